package function

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
