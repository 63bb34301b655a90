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

// Environment is one execution environment. The dispatcher calls Invoke for one
// invocation at a time.
type Environment interface {
	// Invoke runs one invocation to its end, writing the response to call and
	// finishing call when the caller may have its answer, which can be before
	// Invoke returns. It tells whether the environment can be used again. ctx
	// ends when the dispatcher is closed, not when the caller leaves.
	Invoke(ctx context.Context, req *Request, call *Call) (reusable bool)
	// CPUTime returns how much CPU time it has used so far; 0 where that is not
	// known.
	CPUTime() time.Duration
	// Alive tells whether the environment can take an invocation.
	Alive() bool
	// Close ends the environment: its Shutdown phase, then everything that
	// belongs to it. It bounds itself.
	Close()
}
