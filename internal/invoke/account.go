package invoke

import "sync/atomic"

// account is the concurrency of one Region that functions share unless they
// have reserved some for themselves. It is used without a lock, so functions
// that are warm do not wait for one another.
type account struct {
	limit    int64
	reserved atomic.Int64 // by functions, for themselves alone
	claimed  atomic.Int64 // by functions that have reserved nothing
	requests bucket       // of functions that have reserved nothing
}

// claim takes a unit of concurrency, unless all that is not reserved is in use.
func (a *account) claim() bool {
	if a.claimed.Add(1) > a.limit-a.reserved.Load() {
		a.claimed.Add(-1)
		return false
	}
	return true
}

func (a *account) unclaim() { a.claimed.Add(-1) }
