package invoke

import (
	"runtime"
	"slices"
	"sync"
	"time"
)

// Functions that compute are served best by few environments at a time. Where
// the processors are busy, one more that runs side by side with others only makes
// all of them slower, and costs more: it was frozen and has to be thawed, its
// memory is in no cache, and each switch between its threads is a switch of the
// processor to another process. So an invocation of such a function waits a moment
// for an environment that is in use, before it takes one that is not. A function
// that waits for something else than a processor is not held up.

const (
	// patience is how long an invocation waits for an environment in use where
	// there is one that is not, and how long a crowd is one after it was seen.
	patience = 100 * time.Millisecond
	// sampleEvery is after how many of its invocations the CPU time of an
	// environment is looked at, at the latest.
	sampleEvery = 16
	// demandPeriod is how long what is known of the host's processors holds.
	demandPeriod = 2 * time.Millisecond
	// demandHigh is how many threads a processor run or wait for one where there
	// are too many.
	demandHigh = 1.25
	// computes is the part of the processors from which on the environments of a
	// pool are said to compute. The server and its clients want processors too.
	computes = .5
)

// Processors tells how busy the host is.
type Processors interface {
	// Demand returns how many threads run or wait for a processor.
	Demand() (int, error)
}

// pace is what an invocation takes of its environment, as moving averages. The
// zero value knows nothing.
type pace struct {
	time time.Duration // from when it has the environment until that is free
	cpu  time.Duration // CPU time of the sandbox

	crowdedUntil time.Duration // by the dispatcher's clock
}

// follow moves an average towards a value. One that is far out counts as four
// times the average.
func follow(average *time.Duration, value time.Duration) {
	if *average == 0 {
		*average = value
	} else {
		*average += (min(value, 4**average) - *average) / 8
	}
}

// computing returns how many of so many environments compute, or wait to, at a
// time. load is how many threads there are for a processor: so much longer than
// its CPU time takes what computes.
func (p *pace) computing(environments int, load float64) float64 {
	if p.time == 0 {
		return 0
	}
	return float64(environments) * min(1, float64(p.cpu)*load/float64(p.time))
}

// demand follows the demand for the host's processors.
type demand struct {
	host Processors // nil: it is never high
	cpus int

	mu      sync.Mutex
	asked   time.Duration // by the dispatcher's clock
	average float64       // threads
}

func newDemand(host Processors) *demand { return &demand{host: host, cpus: runtime.NumCPU()} }

// load returns how many threads there are for a processor, or 0 where that is not
// known.
func (d *demand) load(now time.Duration) float64 {
	if d.host == nil {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if since := now - d.asked; since >= demandPeriod || d.asked == 0 {
		n, err := d.host.Demand()
		if err != nil {
			return 0 // there is no such thing here
		}
		// What is old counts little.
		d.average += (float64(n) - d.average) * min(1, max(.125, since.Seconds()*20))
		d.asked = now
	}
	return d.average / float64(d.cpus)
}

// crowded tells whether an environment that p's next invocation could have beside
// those in use would only share their processors with them. That it was so lately
// is enough: what it is told by goes up and down.
func (h *home) crowded(p *pool) bool {
	d, now := h.d.demand, h.d.clock()
	// Half as many again as there are processors keep these busy.
	if p.busy < (3*d.cpus+1)/2 {
		return false
	}
	if load := d.load(now); load > demandHigh && p.pace.computing(p.busy, load) >= computes*float64(d.cpus) {
		p.pace.crowdedUntil = now + patience
	}
	return now < p.pace.crowdedUntil
}

// measure returns the CPU time of an invocation, on the average of those that e
// has served since the last time; 0 tells that it is not the time to look.
func (e *environment) measure() time.Duration {
	if e.served++; e.served < 2*e.sampled && e.served < e.sampled+sampleEvery {
		return 0
	}
	used, n := e.CPUTime(), e.served-e.sampled
	since := used - e.used
	e.used, e.sampled = used, e.served
	if n == e.served || since < 0 {
		return 0 // that was its start
	}
	return since / time.Duration(n)
}

// await waits until w, which may have begun as patient, has an environment or an
// error.
func (h *home) await(p *pool, w *waiter, patient bool) {
	step := finishGrace
	if patient {
		// Where threads wait for a processor, all takes that much longer.
		load := h.d.demand.load(h.d.clock())
		step = min(patience, time.Duration(load*float64(finishGrace)))
	}
	timer := time.NewTimer(step)
	defer timer.Stop()
	since := h.d.clock()
	for passed := -1; ; timer.Reset(step) {
		select {
		case <-w.ready:
			return
		case <-timer.C:
		}
		h.mu.Lock()
		// As long as others get theirs, its turn comes.
		moves := w.patient && p.passed != passed && h.crowded(p)
		passed = p.passed
		switch {
		case !moves:
			p.hurry(w)
			h.serveWaiting(p, 0)
		case h.d.clock()-since >= patience:
			h.handOver(p)
		}
		h.mu.Unlock()
	}
}

// wait makes w wait, patiently or not: who is patient has no environment started
// for it.
func (p *pool) wait(w *waiter, patient bool) {
	p.waiting = append(p.waiting, w)
	if w.patient = patient; patient {
		p.patient++
	}
}

// hurry ends w's patience.
func (p *pool) hurry(w *waiter) {
	if w.patient {
		w.patient = false
		p.patient--
	}
}

// leave takes the waiter at i out.
func (p *pool) leave(i int) *waiter {
	w := p.waiting[i]
	p.waiting = slices.Delete(p.waiting, i, i+1)
	p.hurry(w)
	return w
}
