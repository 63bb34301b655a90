package invoke

import (
	"time"

	"lapwing.dev/lapwing/internal/function"
)

// Limits and rates of Lambda (developer guide, "Lambda quotas" and
// "Understanding Lambda function scaling").
const (
	// DefaultAccountLimit is the default concurrency of an account in a Region.
	DefaultAccountLimit = 1000
	// A function gets at most maxStarts new environments every startsPeriod.
	// Provisioned ones do not count.
	maxStarts    = 1000
	startsPeriod = 10 * time.Second
	// requestsPerUnit is how many synchronous requests a second each unit of
	// concurrency allows.
	requestsPerUnit = 10
	// A function with tenant isolation has at most 2,500 environments, busy or
	// idle, for every 1,000 of its concurrency.
	tenantsNum, tenantsDen = 5, 2
	// maxInitFailures is how many times in a row provisioned environments may
	// fail to initialise before their allocation has failed.
	maxInitFailures = 3
)

// Limits is the concurrency that is configured for one function.
type Limits struct {
	// Reserved is what only the function may use, and all that it may use; nil
	// means none is reserved. 0 stops the function.
	Reserved *int
	// Provisioned is what is kept ready, at most one entry a version.
	Provisioned []Allocation
}

// Allocation is the provisioned concurrency of one version.
type Allocation struct {
	Version *function.Version
	Count   int // environments to keep ready, at least 1
	// Token is new whenever the user configures the allocation, even if to the
	// same count: one that has failed is then tried again.
	Token string
}

// AllocationState is where an allocation has got to.
type AllocationState int

// States of an allocation.
const (
	InProgress AllocationState = iota
	Ready
	Failed // the function did not initialise
)

// AllocationStatus is what an allocation has come to.
type AllocationStatus struct {
	State     AllocationState
	Allocated int // environments that are up
	Available int // of these, how many serve invocations, busy or not
}
