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
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
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
		onOwnThread(func() {
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

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
