package gvisor

import (
	"testing"

	"lapwing.dev/lapwing/internal/sandbox"
)

func onHold(s *sandbox.Spec) { s.Held = true }

func TestHeldClonesGoOnWhenTheHostSpeaksAndAreApart(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Prepared = 2 })
	g := newGuest(t, d)
	const pages = 5 << 20 / 4096
	g.must("allocate", "", 5)
	g.must("hold", "", 0)
	snap := takeSnapshot(t, g)
	learn(t, d, snap, func(first *guest) { first.must("scribble", "", 7) })
	clones := []*guest{restore(t, d, snap, onHold), restore(t, d, snap, onHold), restore(t, d, snap)}
	clones[0].must("scribble", "", 9)
	for i, want := range []int64{9 * pages, pages, pages} {
		c := clones[i]
		if n := c.must("held", "", 0).N; int64(n) != want {
			t.Errorf("the memory of clone %d adds up to %d, not %d", i, n, want)
		}
		if c.must("let go", "", 0).N != 1 {
			t.Errorf("clone %d: floating point registers are not what they were", i)
		}
	}
}

// Who waits for nothing leaves nothing behind.
func TestHeldClonesAreRemovedAsOthers(t *testing.T) {
	d := newDriver(t)
	snap := takeSnapshot(t, newGuest(t, d))
	c := restore(t, d, snap, onHold)
	if err := c.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, c.Sandbox.(*instance))
}
