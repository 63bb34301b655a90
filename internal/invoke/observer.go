package invoke

import "lapwing.dev/lapwing/internal/function"

// Served says what an admitted invocation runs on.
type Served int

const (
	// OnDemand is an environment of the function's on-demand concurrency.
	OnDemand Served = iota
	// Provisioned is one of the version's provisioned environments.
	Provisioned
	// Spillover is on demand because the version's provisioned environments
	// were all in use.
	Spillover
)

// Observer is told of every change of concurrency: what metrics and metering are
// made of. Its methods are called in the order of events, with locks of the
// dispatcher held: they must be quick and must not call back.
type Observer interface {
	// Admitted tells that req holds a unit of concurrency from now on, until
	// Released is called with the same arguments.
	Admitted(req *Request, by Served)
	Released(req *Request, by Served)
	// Throttled tells that req was refused with a TooManyRequestsException of
	// this reason.
	Throttled(req *Request, reason string)
	// Allocated tells that an environment of v's provisioned concurrency has
	// come up (n is 1) or is gone (n is -1). In between Lambda bills
	// v.MemoryMB, whether or not it is used.
	Allocated(v *function.Version, n int)
}

// noObserver is the Observer where none is given.
type noObserver struct{}

func (noObserver) Admitted(*Request, Served)        {}
func (noObserver) Released(*Request, Served)        {}
func (noObserver) Throttled(*Request, string)       {}
func (noObserver) Allocated(*function.Version, int) {}
