package invoke

import (
	"sync/atomic"
	"time"
)

// bucket limits how often something may happen: at most n times within per, and
// refilled continuously. The zero value is full. It is a token bucket without a
// lock (the generic cell rate algorithm): all it keeps is when it will be full
// again.
type bucket struct{ full atomic.Int64 }

// take takes one of n tokens per period, if there is one. now is any clock that
// never goes back.
func (b *bucket) take(now time.Duration, n int, per time.Duration) bool {
	if n <= 0 {
		return false
	}
	interval := int64(per) / int64(n)
	for {
		was := b.full.Load()
		is := max(was, int64(now)) + interval
		if is-int64(now) > int64(per) {
			return false
		}
		if b.full.CompareAndSwap(was, is) {
			return true
		}
	}
}

// give gives a token back that was taken and not used.
func (b *bucket) give(n int, per time.Duration) { b.full.Add(-int64(per) / int64(n)) }
