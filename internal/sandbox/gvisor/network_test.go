package gvisor

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/network"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/apart"
)

// testNetwork makes a network namespace with a veth in it, whose other end is in
// a second namespace, the outside. It returns the network and a function that
// calls f on a thread in the outside.
func testNetwork(t *testing.T) (sandbox.Network, func(f func() error) error) {
	t.Helper()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"inside", "outside"} {
		if err := os.WriteFile(path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		made := make(chan error)
		apart.Thread(func() {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				made <- err
				return
			}
			made <- unix.Mount("/proc/thread-self/ns/net", path(name), "", unix.MS_BIND, "")
		})
		if err := <-made; err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(path(name), unix.MNT_DETACH) })
	}
	addr := func(name, cidr string) error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	}
	if err := inNamespace(path("outside"), func() error {
		inside, err := os.Open(path("inside"))
		if err != nil {
			return err
		}
		defer inside.Close()
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "out0"}, PeerName: "in0",
			PeerNamespace: netlink.NsFd(inside.Fd()),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return addr("out0", "10.99.0.1/24")
	}); err != nil {
		t.Fatal(err)
	}
	if err := inNamespace(path("inside"), func() error { return addr("in0", "10.99.0.2/24") }); err != nil {
		t.Fatal(err)
	}
	return sandbox.Network{
		NamespacePath: path("inside"), Interface: "in0", MTU: 1500,
		Address: netip.MustParsePrefix("10.99.0.2/24"), Gateway: netip.MustParseAddr("10.99.0.1"),
	}, func(f func() error) error { return inNamespace(path("outside"), f) }
}

func TestNetwork(t *testing.T) {
	d := newDriver(t)
	network, outside := testNetwork(t)
	var l net.Listener
	if err := outside(func() (err error) {
		l, err = net.Listen("tcp", "10.99.0.1:8080")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	const size = 20 << 20
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.Copy(w, io.LimitReader(zeros{}, size))
	})}
	go server.Serve(l)
	defer server.Close()

	g := newGuest(t, d, func(s *sandbox.Spec) { s.Network = network })
	got := g.must("interfaces", "", 0).Text
	if !strings.Contains(got, "eth0 1500 [10.99.0.2/24]") {
		t.Errorf("interfaces\n%s", got)
	}
	if n := g.must("get", "http://10.99.0.1:8080/", 0).N; n != size {
		t.Errorf("%d bytes came in", n)
	}
	g.must("serve", "0.0.0.0:80", size)
	if err := outside(func() error {
		conn, err := net.Dial("tcp", "10.99.0.2:80")
		if err != nil {
			return err
		}
		client := http.Client{Transport: &http.Transport{
			DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			DisableKeepAlives: true,
		}}
		resp, err := client.Get("http://10.99.0.2/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, resp.Body)
		if err != nil {
			return err
		}
		if n != size {
			return fmt.Errorf("%d bytes came out", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if r := g.do("dial", "tcp!10.99.0.2:8080", 0); r.Error == "" {
		t.Error("the guest reaches a port that it does not listen on")
	}
	// The network can be used again by the next sandbox.
	if err := g.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	g = newGuest(t, d, func(s *sandbox.Spec) { s.Network = network })
	if n := g.must("get", "http://10.99.0.1:8080/", 0).N; n != size {
		t.Errorf("the second sandbox got %d bytes", n)
	}
}

// The rates are far below what functions have, so that a busy host can keep up
// with them: what is compared is the same transfer over two of them.
func TestBandwidthIsLimitedBothWays(t *testing.T) {
	d := newDriver(t)
	pool, err := network.Open(network.Options{Dir: t.TempDir(), Egress: network.EgressOff, Prepare: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	const (
		size  = 4 << 20
		small = 512 << 10 // a second: the bucket holds 2 MiB, the rest takes 4 s
		large = 8 << 20   // a second: all is in the bucket
	)
	l, err := pool.Listen()
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			io.Copy(io.Discard, r.Body)
			return
		}
		io.Copy(w, io.LimitReader(zeros{}, size))
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	took := make(map[string]time.Duration)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, c := range []struct {
		name string
		rate int64
		op   string
	}{
		{"small in", small, "get"}, {"small out", small, "post"}, {"large in", large, "get"}, {"large out", large, "post"},
	} {
		a, err := pool.Acquire(t.Context(), c.rate)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Release)
		g := newGuest(t, d, func(s *sandbox.Spec) { s.Network = a.Network })
		wg.Go(func() {
			start := time.Now()
			r, err := g.try(c.op, a.Endpoint, size)
			if err != nil || r.Error != "" {
				t.Errorf("%s: %+v, %v", c.name, r, err)
			}
			mu.Lock()
			defer mu.Unlock()
			took[c.name] = time.Since(start)
		})
	}
	wg.Wait()
	t.Log(took)
	for _, way := range []string{"in", "out"} {
		// 4 s, less what the kernel's clock and rounding may add to the bucket.
		if took["small "+way] < 3*time.Second {
			t.Errorf("4 MiB went %s in %v over 512 KiB a second", way, took["small "+way])
		}
		if took["large "+way] >= took["small "+way] { // a busy host takes its own time
			t.Errorf("16 times the bandwidth %s is no faster: %v", way, took)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
