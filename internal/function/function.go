// Package function says what one version of a Lambda function is to the data
// plane: everything that is needed to start execution environments of it, and
// nothing of the control plane's life cycle. The lambda service makes Versions
// from its stored records; invoke and worker use them and never change them.
package function

import (
	"time"
)

// Latest is the name of the unpublished version.
const Latest = "$LATEST"

// Version is an immutable description of a function version. Two Versions with
// the same ARN and different Revision never share an execution environment.
type Version struct {
	Account string
	Region  string
	Name    string
	Version string // Latest, or a decimal number

	// Revision changes with every change of code or configuration that an
	// execution environment can see.
	Revision string

	Runtime string // e.g. nodejs22.x
	// RuntimeVersionARN is the only version of the runtime that may run the
	// function; empty means any.
	RuntimeVersionARN string

	Handler      string
	Architecture string // x86_64 or arm64
	Role         string // ARN of the execution role
	MemoryMB     int    // 128-10,240
	Timeout      time.Duration
	EphemeralMB  int // size of /tmp, 512-10,240
	Env          map[string]string

	// Image is the container image of a function that is one. There is no
	// Runtime, Handler, Code or Layers then.
	Image *Image

	// Code is the file on this host with the image of the unpacked code
	// package, to be mounted at /var/task.
	Code string
	// Layers is the file with the image of what the function's layers come to
	// together, to be mounted at /opt, or empty where it has none.
	Layers string

	Logging Logging

	// ActiveTracing is TracingConfig Mode Active: the function's invocations
	// are traced though the caller does not say so.
	ActiveTracing bool

	// SnapStart is set for a published version of a function with SnapStart
	// ApplyOn PublishedVersions: its snapshot is made when it is published, and
	// what runs in it may know that it is restored from one.
	SnapStart bool
	// SnapshotsOff is the owner's switch: environments of the version are never
	// started from a snapshot.
	SnapshotsOff bool
}

// Image is a container image to be run.
type Image struct {
	Root    string            // the file on this host with its root file system
	Command []string          // entry point and arguments
	Dir     string            // working directory, absolute
	Env     map[string]string // that the image sets
}

// Logging is the function's logging configuration.
type Logging struct {
	Format           string // Text or JSON
	ApplicationLevel string // TRACE..FATAL; JSON only
	SystemLevel      string // DEBUG, INFO, WARN; JSON only
	Group            string // log group name
}

// FunctionARN returns the unqualified ARN.
func (v *Version) FunctionARN() string {
	return "arn:aws:lambda:" + v.Region + ":" + v.Account + ":function:" + v.Name
}

// ARN returns the ARN qualified by the version.
func (v *Version) ARN() string { return v.FunctionARN() + ":" + v.Version }
