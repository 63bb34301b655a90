// Package pace tells how often something happened lately, for those who prepare for
// its happening again.
package pace

import "time"

// Span is the length of a span of time.
const Span = time.Minute

// Rate counts by spans. The zero value is ready for use.
type Rate struct {
	since         time.Time // the beginning of the present span
	now, previous int       // how many in this span, and in the one before
}

// Note counts one at a time.
func (r *Rate) Note(t time.Time) {
	r.at(t)
	r.now++
}

// Lately returns how many there were in the busier of the two spans up to a time.
func (r *Rate) Lately(t time.Time) int {
	r.at(t)
	return max(r.now, r.previous)
}

// at begins a new span where it is time for one.
func (r *Rate) at(t time.Time) {
	switch gone := t.Sub(r.since); {
	case gone >= 2*Span:
		*r = Rate{since: t}
	case gone >= Span:
		*r = Rate{since: r.since.Add(Span), previous: r.now}
	}
}
