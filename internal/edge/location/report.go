package location

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"lapwing.dev/lapwing/internal/state"
)

const (
	// stuckAfter is how long a mirror may be behind a core that can be reached,
	// and not move, before it is begun anew; twice as long each time that this
	// does not help, up to stuckMax.
	stuckAfter = 700 * time.Millisecond
	stuckMax   = time.Minute
	// wrongAfter is how long a mirror may be where the core is and hold other
	// records, before it is made anew.
	wrongAfter = 3 * time.Second
	// complainEvery bounds how often it is logged that the core does not answer.
	complainEvery = time.Minute
)

// run reports to the core until ctx ends: every second, and at once where
// something was applied.
func (n *Node) run(ctx context.Context) {
	w := watchdog{node: n, patience: stuckAfter}
	var complained time.Time
	reached := false
	for ctx.Err() == nil {
		r := n.report()
		var a answer
		err := n.call(ctx, pathReport, r, &a)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if reached || time.Since(complained) > complainEvery {
				n.log.Warn("the core does not answer; this location serves what it has", "core", n.core(), "error", err)
				complained = time.Now()
			}
			reached = false
			n.health.Store(&Health{LastAnswer: n.Health().LastAnswer, Behind: n.Health().Behind})
			n.sleep(ctx, retryEvery)
			continue
		case !reached:
			n.log.Info("connected to the core", "core", n.core())
			reached = true
			w.patience = stuckAfter
		}
		n.health.Store(&Health{Connected: true, LastAnswer: time.Now(), Behind: behind(r.Marks, a.Marks)})
		n.take(ctx, a)
		w.look(ctx, r.Marks, a.Marks)
		n.await(ctx, r)
	}
}

// Health is how a location stands to the core. It serves without that.
type Health struct {
	Connected  bool      `json:"connected"`
	LastAnswer time.Time `json:"lastAnswer,omitzero"`
	// Behind is by how many revisions the records were behind then.
	Behind uint64 `json:"behind"`
}

// Health tells how the location stands to the core.
func (n *Node) Health() Health {
	if h := n.health.Load(); h != nil {
		return *h
	}
	return Health{}
}

// report is what the node has to say now.
func (n *Node) report() report {
	return report{
		Version: n.opts.Version, Region: n.opts.Region, Started: started, Address: n.address, Regional: n.regional,
		Applied: n.applied(), Marks: n.store.Marks(), Spooled: n.spool.Size(),
	}
}

var started = time.Now()

// await returns when it is time for the next report.
func (n *Node) await(ctx context.Context, last report) {
	for until := time.Now().Add(reportEvery); time.Now().Before(until) && ctx.Err() == nil; {
		n.sleep(ctx, lookEvery)
		if n.applied() != last.Applied || !maps.Equal(n.store.Marks(), last.Marks) {
			return
		}
	}
}

func (n *Node) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// take heeds what the core says of itself and of others.
func (n *Node) take(ctx context.Context, a answer) {
	n.mu.Lock()
	moved := a.LeafPort != n.membership.Facts.LeafPort
	if moved {
		n.membership.Facts.LeafPort = a.LeafPort
	}
	aging := n.node.Aging()
	n.mu.Unlock()
	if moved {
		n.log.Error("the core takes leaf nodes at another port now: restart this location", "port", a.LeafPort)
		n.save()
	}
	if aging {
		if err := n.renew(ctx); err != nil {
			n.log.Warn("the location's certificate was not renewed", "expires", n.Identity().Expires(), "error", err)
		}
	}
	n.learn(a.Peers)
}

func (n *Node) save() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.membership.Write(filepath.Join(n.opts.Dir, membershipFile)); err != nil {
		n.log.Error("the location's membership was not written", "error", err)
	}
}

// renew gets a new certificate.
func (n *Node) renew(ctx context.Context) error {
	var r renewed
	if err := n.call(ctx, pathRenew, struct{}{}, &r); err != nil {
		return err
	}
	n.mu.Lock()
	m := *n.membership
	n.mu.Unlock()
	m.Certificate = r.Certificate
	if err := n.use(&m); err != nil {
		return err
	}
	n.save()
	return nil
}

// watchdog sees to mirrors that do not move though the core can be reached, or that
// cannot be right.
type watchdog struct {
	node     *Node
	patience time.Duration

	marks map[string]state.Mark // of the mirrors, at
	since time.Time             // which they have been
	core  map[string]state.Mark
}

func (w *watchdog) look(ctx context.Context, mirrors, core map[string]state.Mark) {
	if !maps.Equal(w.marks, mirrors) || !maps.Equal(w.core, core) && behind(mirrors, w.core) == 0 {
		w.marks, w.since = mirrors, time.Now()
	}
	w.core = core
	stood := time.Since(w.since)
	var wrong map[string]state.Mark
	for name, want := range core {
		have, ok := mirrors[name]
		if ok && have.Revision >= want.Revision && (have.Sum != want.Sum || have.Records != want.Records) {
			if wrong == nil {
				wrong = map[string]state.Mark{}
			}
			wrong[name] = want
		}
	}
	var err error
	switch {
	case behind(mirrors, core) > 0:
		if stood < w.patience {
			return
		}
		w.node.log.Info("the mirrors do not move; beginning anew", "behind", behind(mirrors, core))
		w.patience = min(2*w.patience, stuckMax)
		err = w.node.store.RestartMirrors(ctx)
	case wrong != nil && stood > max(wrongAfter, w.patience):
		w.node.log.Warn("mirrors hold other records than the core has; making them anew", "mirrors", slices.Sorted(maps.Keys(wrong)))
		w.patience = min(2*w.patience, stuckMax)
		rctx, cancel := context.WithTimeout(ctx, stuckMax)
		defer cancel()
		err = w.node.store.Renew(rctx, wrong)
	case wrong == nil:
		w.patience = stuckAfter
		return
	default:
		return
	}
	if err != nil && ctx.Err() == nil {
		w.node.log.Error("the mirrors were not begun anew", "error", err)
	}
	w.since = time.Now()
}
