package trace

import (
	"math/rand/v2"
	"sync"
	"time"
)

// sampleRate is the share of requests that are traced beside the first one in
// each second (X-Ray developer guide, "Configuring sampling rules": the default
// rule).
const sampleRate = 0.05

// Sampler decides which requests to functions with active tracing are traced
// where the caller has not decided: X-Ray's default rule, the first request in
// each second and 5 percent of the others. The zero value is ready for use.
type Sampler struct {
	mu     sync.Mutex
	second int64 // in which a request was traced last
}

// Decide returns h with a decision about sampling: the caller's, if there is
// one; else the sampler's for a function with active tracing, and no for others
// (Lambda developer guide, "Visualize Lambda function invocations using AWS
// X-Ray").
func (s *Sampler) Decide(h Header, active bool, now time.Time) Header {
	switch {
	case h.Sampled == "1" || h.Sampled == "0":
	case active && s.sample(now):
		h.Sampled = "1"
	default:
		h.Sampled = "0"
	}
	return h
}

func (s *Sampler) sample(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if second := now.Unix(); second != s.second {
		s.second = second
		return true
	}
	return rand.Float64() < sampleRate
}

// NewSegment returns a new segment id.
func NewSegment() string {
	return string(appendHex(make([]byte, 0, 16), rand.Uint64(), 16))
}
