package network

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestParallelAcquire(t *testing.T) {
	w := newWorld(t)
	p := w.open(t, nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Prefix]bool{}
	for range 64 {
		wg.Go(func() {
			a, err := p.Acquire(t.Context(), 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Release()
			if said, err := a.call(internetAddr + ":80"); !strings.HasPrefix(said, greeting) {
				t.Errorf("%q %v", said, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[a.Address] {
				t.Errorf("%s given twice", a.Address)
			}
			seen[a.Address] = true
		})
	}
	wg.Wait()
}

func TestAddressesRunOut(t *testing.T) {
	w := newWorld(t)
	p := w.open(t, func(o *Options) { o.Range = netip.MustParsePrefix("100.64.0.0/28"); o.Prepare = 1 })
	var held []*Attachment
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for {
		a, err := p.Acquire(ctx, 0)
		if err != nil {
			if !strings.Contains(err.Error(), "no capacity") {
				t.Error(err)
			}
			break
		}
		held = append(held, a)
	}
	// The goroutines that prepare may still hold what they have made.
	if len(held) > 8 || len(held) < 8-runtime.NumCPU() {
		t.Errorf("%d networks of 8", len(held))
	}
	for _, a := range held {
		a.Release()
	}
	// The kernel removes interfaces in its own time.
	for {
		a, err := p.Acquire(ctx, 0)
		if err == nil {
			a.Release()
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A host runs hundreds of environments, and each has a network for itself.
func TestHundredsOfNetworksAtOnce(t *testing.T) {
	w := newWorld(t)
	p := w.open(t, nil)
	const n = 256
	held := func() (h struct{ files, links int }) {
		files, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		h.files = len(files)
		p.router.mu.Lock()
		defer p.router.mu.Unlock()
		links, err := p.router.nl.LinkList()
		for errors.Is(err, netlink.ErrDumpInterrupted) { // links came or went
			links, err = p.router.nl.LinkList()
		}
		must(t, err)
		h.links = len(links)
		return h
	}
	p.acquire(t).Release()
	before := held()
	all := make([]*Attachment, n)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			a, err := p.Acquire(t.Context(), 1<<20)
			if err != nil {
				t.Error(err)
				return
			}
			all[i] = a
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	seen := map[netip.Prefix]bool{}
	for _, a := range all {
		if seen[a.Address] {
			t.Errorf("%s given twice", a.Address)
		}
		seen[a.Address] = true
	}
	if h := held(); h.links < n {
		t.Errorf("%d networks have %d links", n, h.links)
	}
	for _, i := range []int{0, n / 2, n - 1} {
		if said, err := all[i].call(internetAddr + ":80"); !strings.HasPrefix(said, greeting) {
			t.Errorf("the network number %d: %q %v", i, said, err)
		}
	}
	for _, a := range all {
		a.Release()
	}
	// Beyond what was there are the networks that are kept ready, and those that
	// the goroutines that prepare hold. The kernel removes links in its own time.
	spare := cap(p.ready) + runtime.NumCPU() + 2
	deadline := time.Now().Add(60 * time.Second)
	for {
		after := held()
		if after.files <= before.files+spare && after.links <= before.links+spare {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("before %+v, after %+v", before, after)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestAcquireAfterClose(t *testing.T) {
	w := newWorld(t)
	p, err := Open(Options{Dir: t.TempDir(), hostNS: w.host, Egress: EgressOff})
	must(t, err)
	must(t, p.Close())
	if _, err := p.Acquire(t.Context(), 0); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
}
