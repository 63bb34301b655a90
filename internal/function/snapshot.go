package function

import "time"

// InitFailure is why a version cannot be initialised, where that is the
// function's own doing: its environments would fail in the same way.
type InitFailure struct {
	// Type is the error type as logs show it, e.g. Runtime.ExitError;
	// Sandbox.Timedout where the time of the Init phase was over.
	Type string
	// Message is what there is to say beside the type, for the function's owner.
	Message string
}

// Error implements error.
func (e *InitFailure) Error() string { return e.Type + ": " + e.Message }

// TypeTimeout is the InitFailure.Type of an Init phase whose time was over.
const TypeTimeout = "Sandbox.Timedout"

// SnapshotStatus is what there is to tell of a version's snapshot.
type SnapshotStatus struct {
	// Ready tells that there is one, from which environments start.
	Ready   bool
	Created time.Time
	Size    int64 // on the disk, in bytes
	Uses    int64 // environments that were started from it
	// Reason is why there is none, in words for the function's owner; empty
	// where it only was not needed yet.
	Reason string
	// Runtime tells that environments start from a snapshot of the runtime alone
	// meanwhile.
	Runtime bool
}
