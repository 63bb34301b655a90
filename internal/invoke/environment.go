package invoke

import (
	"context"
	"errors"
	"time"

	"lapwing.dev/lapwing/internal/function"
)

// ErrNoCapacity is what a Starter answers when the host has no room for one
// more execution environment. The dispatcher then gives up an idle one of
// another function, if there is any, and asks again.
var ErrNoCapacity = errors.New("invoke: no capacity for another execution environment")

// ErrInit is what a Starter answers when a provisioned environment failed to
// initialise: the function's fault, not the host's.
var ErrInit = errors.New("invoke: the function failed to initialise")

// ErrUnwanted is what a Starter answers when Spec.Wanted told it to give up.
var ErrUnwanted = errors.New("invoke: nobody waits for the environment any more")

// Spec says which environment to start.
type Spec struct {
	Version *function.Version
	// Tenant is the only tenant that the environment will ever serve; empty
	// where the function has no tenant isolation.
	Tenant string
	// Provisioned tells that it is started ahead, for provisioned concurrency.
	Provisioned bool
	// Wanted is asked when it is the environment's turn to start, after those
	// that were asked for earlier: false gives it up (ErrUnwanted). nil: wanted.
	Wanted func() bool
}

// Starter starts execution environments. Package worker implements it.
type Starter interface {
	// Start returns an environment whose Init phase is over. An Init that
	// failed is no error, unless the environment is provisioned (ErrInit):
	// Lambda repeats it within the first invocation, so that is the
	// environment's own business. Any other error tells that no environment
	// could be made; an *aws.Error in it is for the caller.
	Start(ctx context.Context, s Spec) (Environment, error)
}

// Ending is what is left of an invocation when its response is complete.
type Ending struct {
	// Run runs it, finishes the call if that has yet to be, and tells whether the
	// environment can be used again.
	Run func() (reusable bool)
	// Waits tells that the runtime, or an extension, is not done yet.
	Waits bool
}

// Environment is one execution environment. The dispatcher calls Invoke for one
// invocation at a time.
type Environment interface {
	// Invoke runs one invocation until its response is complete, and finishes
	// call with that, unless the caller wants the log, too. What is left of the
	// invocation is returned, and is always run. ctx ends when the dispatcher is
	// closed, not when the caller leaves.
	Invoke(ctx context.Context, req *Request, call *Call) Ending
	// CPUTime returns how much CPU time it has used so far; 0 where that is not
	// known.
	CPUTime() time.Duration
	// Alive tells whether the environment can take an invocation.
	Alive() bool
	// Close ends the environment: its Shutdown phase, then everything that
	// belongs to it. It bounds itself.
	Close()
}
