package gvisor

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/sandbox"
)

// learn has a clone tell what it has touched, and waits for that.
func learn(tb testing.TB, d *Driver, snap sandbox.Snapshot, use func(*guest)) {
	tb.Helper()
	first := restore(tb, d, snap)
	use(first)
	if err := first.EndBoost(); err != nil {
		tb.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); d.footprints.of(memoryOf(tb, snap)) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatal("a clone does not tell what it has touched")
		}
	}
}

func memoryOf(tb testing.TB, snap sandbox.Snapshot) memoryID {
	tb.Helper()
	id, err := memoryIDOf(snap.Memory)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

func digest(tb testing.TB, f *os.File) []byte {
	tb.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, math.MaxInt64)); err != nil {
		tb.Fatal(err)
	}
	return h.Sum(nil)
}

func TestClonesGetAheadWhatTheFirstHadToCopyAndAreApart(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	const pages = 5 << 20 / 4096
	g.must("allocate", "", 5)
	snap := takeSnapshot(t, g)
	before := digest(t, snap.Memory)
	learn(t, d, snap, func(first *guest) { first.must("scribble", "", 7) })
	clones := []*guest{restore(t, d, snap), restore(t, d, snap)}
	for _, c := range clones {
		if n := c.Sandbox.(*instance).copied; n < 5<<20 {
			t.Errorf("%d bytes were copied ahead, and the first clone wrote to 5 MiB", n)
		}
		if n := c.must("held", "", 0).N; n != pages {
			t.Errorf("the memory of a clone adds up to %d, not %d", n, pages)
		}
	}
	clones[0].must("scribble", "", 9)
	for _, c := range []*guest{clones[1], restore(t, d, snap)} {
		if n := c.must("held", "", 0).N; n != pages {
			t.Errorf("another clone's memory adds up to %d, not %d", n, pages)
		}
	}
	if !bytes.Equal(digest(t, snap.Memory), before) {
		t.Error("the snapshot has changed")
	}
}

func TestWhatIsCopiedAheadCountsAsTheClonesMemory(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	g.must("allocate", "", 90)
	fresh, err := g.PeakMemoryMB()
	if err != nil {
		t.Fatal(err)
	}
	snap := takeSnapshot(t, g)
	learn(t, d, snap, func(first *guest) { first.must("scribble", "", 7) })
	c := restore(t, d, snap)
	const near = 12 // MiB
	if got, err := c.PeakMemoryMB(); err != nil || got < fresh-near || got > fresh+near {
		t.Errorf("a clone uses %d MB, %v, a fresh sandbox %d MB", got, err, fresh)
	}
	c.try("allocate", "", 70) // its answer may be faster than its end
	if exit := c.ended(); !exit.OutOfMemory {
		t.Errorf("160 of 128 MB in use: %+v", exit)
	}
}

// What a clone tells comes from a process that runs guest code.
func TestFootprintsThatTellNonsenseChangeNothing(t *testing.T) {
	d := newDriver(t)
	g := newGuest(t, d)
	const pages = 5 << 20 / 4096
	g.must("allocate", "", 5)
	snap := takeSnapshot(t, g)
	touches := func(all ...[3]uint64) (b []byte) { // process and kind, start, end
		for _, t := range all {
			for _, n := range t {
				b = binary.LittleEndian.AppendUint64(b, n)
			}
		}
		return b
	}
	const (
		write, copied = 1 << 32, 2 << 32
		everything    = math.MaxUint64 &^ 0xfff
	)
	st, err := snap.Memory.Stat()
	if err != nil {
		t.Fatal(err)
	}
	size := uint64(st.Size())
	random := make([]byte, 24*4000)
	rand.NewChaCha8([32]byte{1}).Read(random)
	for name, footprint := range map[string][]byte{
		"cut off":              random[:100],
		"random":               random,
		"all addresses":        touches([3]uint64{1, 0, everything}, [3]uint64{1 | write, 0, everything}),
		"all memory":           touches([3]uint64{copied, 0, size}),
		"more than all memory": touches([3]uint64{copied, 0, everything}, [3]uint64{copied, size, size + 4096}),
		"parts of pages":       touches([3]uint64{copied, 4095, size - 1}, [3]uint64{1, 1, 4095}),
		"backwards":            touches([3]uint64{copied, everything, 0}, [3]uint64{1, 1 << 40, 1 << 39}),
		"what cannot be":       touches([3]uint64{1, everything - 4096, everything}, [3]uint64{1 | write, 1 << 63, 1<<63 + 4096}),
		"of another process":   touches([3]uint64{77 | write, 0, everything}),
		"the same many a time": bytes.Repeat(touches([3]uint64{copied, 0, size}), 2000),
		"a page many a time":   bytes.Repeat(touches([3]uint64{copied, 0, 4096}), 2000),
	} {
		t.Run(name, func(t *testing.T) {
			d.footprints.keep(memoryOf(t, snap), footprint)
			c := restore(t, d, snap)
			if n := c.must("held", "", 0).N; n != pages {
				t.Errorf("its memory adds up to %d, not %d", n, pages)
			}
			c.must("scribble", "", 7)
			if n := c.must("held", "", 0).N; n != 7*pages {
				t.Errorf("the memory that it has written to adds up to %d, not %d", n, 7*pages)
			}
			if err := c.Destroy(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
