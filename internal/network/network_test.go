package network

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// world is a host of its own with the internet behind it.
type world struct {
	host, internet *namespace
}

const (
	hostAddr     = "198.51.100.1"
	internetAddr = "198.51.100.2"
	privateAddr  = "10.99.0.1"       // behind the internet's interface
	metadataAddr = "169.254.169.254" // likewise
	greeting     = "hello"
)

// newWorld makes the two namespaces. The internet greets on port 80 of its
// addresses, the host on port 8080.
func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	w := new(world)
	for _, ns := range []**namespace{&w.host, &w.internet} {
		n, err := newNamespace()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Close)
		*ns = n
		must(t, n.Do(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.LinkSetUp(lo)
		}))
	}
	must(t, w.host.Do(func() error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer nl.Close()
		// A namespace begins with the settings of the machine's.
		if err := setSysctl(forwardingKey("default"), "0"); err != nil {
			return err
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "net0", PeerNamespace: netlink.NsFd(w.internet.fd())}
		if err := nl.LinkAdd(veth); err != nil {
			return err
		}
		return setUp(nl, "eth0", netip.MustParsePrefix(hostAddr+"/24"))
	}))
	must(t, w.internet.Do(func() error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer nl.Close()
		for _, a := range []string{internetAddr + "/24", privateAddr + "/32", metadataAddr + "/32"} {
			if err := setUp(nl, "net0", netip.MustParsePrefix(a)); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, w.host.Do(func() error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer nl.Close()
		return nl.RouteAdd(&netlink.Route{Gw: net.ParseIP(internetAddr)})
	}))
	greet(t, w.internet, "0.0.0.0:80")
	greet(t, w.host, "0.0.0.0:8080")
	return w
}

// greet serves connections in a namespace with a greeting and the peer's address.
func greet(t testing.TB, ns *namespace, addr string) {
	t.Helper()
	var l net.Listener
	must(t, ns.Do(func() (err error) { l, err = net.Listen("tcp4", addr); return err }))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", greeting, c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a pool in the world.
func (w *world) open(t testing.TB, change func(*Options)) *Pool {
	t.Helper()
	opts := Options{Dir: t.TempDir(), hostNS: w.host, Prepare: 2, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&opts)
	}
	p, err := Open(opts)
	must(t, err)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		os.Remove(forwardingFile + "-" + opts.id())
	})
	return p
}

func (p *Pool) acquire(t testing.TB) *Attachment {
	t.Helper()
	a, err := p.Acquire(t.Context(), 0)
	must(t, err)
	t.Cleanup(a.Release)
	return a
}

// dialTimeout bounds the attempts to reach what cannot be reached, too.
const dialTimeout = 900 * time.Millisecond

// call connects from the sandbox and returns what it was greeted with.
func (a *Attachment) call(addr string) (said string, err error) {
	var conn net.Conn
	err = a.ns.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp4", addr, dialTimeout)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(conn)
	return string(b), err
}

func TestFunctionsReachTheInternetAndTheEndpointOnly(t *testing.T) {
	w := newWorld(t)
	p := w.open(t, nil)
	l, err := p.Listen()
	must(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, c.RemoteAddr())
			c.Close()
		}
	}()
	a, b := p.acquire(t), p.acquire(t)
	greet(t, b.ns, "0.0.0.0:80")

	if said, err := a.call(internetAddr + ":80"); said != greeting+" "+hostAddr {
		t.Errorf("internet: %q %v", said, err)
	}
	said, err := a.call(strings.TrimPrefix(a.Endpoint, "http://"))
	if host, _, _ := net.SplitHostPort(said); host != a.Address.Addr().String() {
		t.Errorf("endpoint sees %q %v, want %s", said, err, a.Address)
	}

	uplink := p.host.uplinkAddresses(t)
	for name, addr := range map[string]string{
		"host by its address":              hostAddr + ":8080",
		"host by the uplink":               uplink + ":8080",
		"neighbour":                        b.Address.Addr().String() + ":80",
		"neighbour's gateway":              b.Gateway.String() + ":80",
		"own gateway":                      a.Gateway.String() + ":22",
		"another port of the endpoint":     endpointAddr.String() + ":22",
		"endpoint port of own gateway":     a.Gateway.String() + ":4566",
		"private network":                  privateAddr + ":80",
		"metadata":                         metadataAddr + ":80",
		"loopback of the router by source": "127.0.0.2:80",
	} {
		if said, err := a.call(addr); err == nil {
			t.Errorf("%s is reachable: %q", name, said)
		}
	}
}

// uplinkAddresses returns the host's address on its link.
func (h *host) uplinkAddresses(t *testing.T) string {
	link, err := h.nl.LinkByName(h.link)
	must(t, err)
	addrs, err := h.nl.AddrList(link, netlink.FAMILY_V4)
	must(t, err)
	return addrs[0].IP.String()
}

func TestAllowedPrivateNetworksAreReachable(t *testing.T) {
	w := newWorld(t)
	p := w.open(t, func(o *Options) {
		o.Allow = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16"), netip.MustParsePrefix("169.254.0.0/16")}
	})
	a := p.acquire(t)
	if said, err := a.call(privateAddr + ":80"); !strings.HasPrefix(said, greeting) {
		t.Errorf("allowed: %q %v", said, err)
	}
	if _, err := a.call(metadataAddr + ":80"); err == nil {
		t.Error("link-local addresses were opened")
	}
}

func TestTheInternetDoesNotReachFunctions(t *testing.T) {
	w := newWorld(t)
	p := w.open(t, nil)
	a := p.acquire(t)
	greet(t, a.ns, "0.0.0.0:80")
	// A neighbour of the host routes to it what is not its own.
	must(t, w.internet.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: ipNet("100.64.0.0/10"), Gw: net.ParseIP(hostAddr)})
	}))
	outside := &Attachment{ns: w.internet}
	if _, err := outside.call(a.Address.Addr().String() + ":80"); err == nil {
		t.Error("a function is reachable from outside")
	}
	if _, err := outside.call(p.host.uplinkAddresses(t) + ":4566"); err == nil {
		t.Error("the link is reachable from outside")
	}
}

func ipNet(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

func TestSpoofedSourcesAreDropped(t *testing.T) {
	w := newWorld(t)
	p := w.open(t, nil)
	a, b := p.acquire(t), p.acquire(t)
	seen := make(chan string, 10)
	var pc net.PacketConn
	must(t, w.internet.Do(func() (err error) { pc, err = net.ListenPacket("udp4", internetAddr+":99"); return err }))
	defer pc.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, _, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			seen <- string(buf[:n])
		}
	}()
	send := func(source, what string) {
		must(t, a.ns.Do(func() error {
			nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
			if err != nil {
				return err
			}
			defer nl.Close()
			if source != a.Address.Addr().String() {
				link, err := nl.LinkByName("eth0")
				if err != nil {
					return err
				}
				if err := nl.AddrAdd(link, &netlink.Addr{IPNet: ipNet(source + "/32")}); err != nil {
					return err
				}
			}
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(source)}, &net.UDPAddr{IP: net.ParseIP(internetAddr), Port: 99})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte(what))
			return err
		}))
	}
	send(b.Address.Addr().String(), "as neighbour")
	send("203.0.113.9", "as stranger")
	send(a.Address.Addr().String(), "as itself")
	select {
	case got := <-seen:
		if got != "as itself" {
			t.Errorf("a packet %s went through", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing arrived")
	}
}

func TestOneSandboxCannotUseUpConnectionTracking(t *testing.T) {
	w := newWorld(t)
	p := w.open(t, nil)
	a, b := p.acquire(t), p.acquire(t)
	must(t, a.ns.Do(func() error {
		c, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		defer c.Close()
		for port := range 2 * maxConnsEach {
			// Each port is a connection of its own; those over the limit may fail.
			c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(internetAddr), Port: 10_000 + port})
		}
		return nil
	}))
	must(t, p.router.ns.Do(func() error {
		b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if n < maxConnsEach/2 || n > maxConnsEach+16 {
			t.Errorf("%d connections are tracked, want %d", n, maxConnsEach)
		}
		return err
	}))
	if said, err := b.call(internetAddr + ":80"); !strings.HasPrefix(said, greeting) {
		t.Errorf("neighbour: %q %v", said, err)
	}
}

func TestOneSandboxCannotUseUpTheEndpointsConnections(t *testing.T) {
	p := newWorld(t).open(t, nil)
	l, err := p.Listen()
	must(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	a, b := p.acquire(t), p.acquire(t)
	open := func(from *Attachment, n int) (opened int) {
		must(t, from.ns.Do(func() error {
			for range n {
				c, err := net.DialTimeout("tcp4", p.endpoint().String(), 10*time.Second)
				if err != nil {
					return nil
				}
				t.Cleanup(func() { c.Close() })
				opened++
			}
			return nil
		}))
		return opened
	}
	if n := open(a, maxCallsEach+100); n != maxCallsEach {
		t.Errorf("%d connections, want %d", n, maxCallsEach)
	}
	if open(b, 1) != 1 {
		t.Error("its neighbour does not reach the endpoint")
	}
}

func TestEgressOff(t *testing.T) {
	w := newWorld(t)
	p := w.open(t, func(o *Options) { o.Egress = EgressOff })
	a := p.acquire(t)
	if _, err := a.call(internetAddr + ":80"); err == nil {
		t.Error("the internet is reachable")
	}
	l, err := p.Listen()
	must(t, err)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.WriteString(c, greeting)
			c.Close()
		}
	}()
	if said, err := a.call(fmt.Sprint(endpointAddr, ":", EndpointPort)); said != greeting {
		t.Errorf("endpoint: %q %v", said, err)
	}
	if n := len(tables(t, w.host)); n != 0 {
		t.Errorf("%d tables on the host", n)
	}
}

// tables returns the names of Lapwing's tables in a namespace.
func tables(t testing.TB, ns *namespace) (names []string) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.fd()))
	must(t, err)
	all, err := conn.ListTables()
	must(t, err)
	for _, tb := range all {
		names = append(names, tb.Name)
	}
	return names
}

func TestCloseUndoesEverythingOnTheHost(t *testing.T) {
	w := newWorld(t)
	forwarding := func(want string) {
		t.Helper()
		must(t, w.host.Do(func() error {
			b, err := os.ReadFile("/proc/sys/" + forwardingKey("eth0"))
			if got := strings.TrimSpace(string(b)); got != want {
				t.Errorf("forwarding is %s, want %s", got, want)
			}
			return err
		}))
	}
	forwarding("0")
	dir := t.TempDir()
	open := func() *Pool {
		p, err := Open(Options{Dir: dir, hostNS: w.host, Prepare: 1})
		must(t, err)
		return p
	}
	p := open()
	forwarding("1")

	// As after kill -9: the next one finds what the first has left.
	p.stop()
	p.wg.Wait()
	p.relay.Close()
	p.router.ns.f.Close()
	p2 := open()
	a := p2.acquire(t)
	if said, err := a.call(internetAddr + ":80"); !strings.HasPrefix(said, greeting) {
		t.Errorf("after a crash: %q %v", said, err)
	}
	a.Release()
	must(t, p2.Close())

	forwarding("0")
	if got := tables(t, w.host); len(got) != 0 {
		t.Errorf("tables left: %v", got)
	}
	must(t, w.host.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, linkPrefix) {
				t.Errorf("interface left: %s", l.Attrs().Name)
			}
		}
		return err
	}))
	os.Remove(forwardingFile + "-" + p.opts.id())
}

func TestTwoPoolsOnOneHost(t *testing.T) {
	w := newWorld(t)
	p, q := w.open(t, nil), w.open(t, nil)
	a, b := p.acquire(t), q.acquire(t)
	for _, at := range []*Attachment{a, b} {
		if said, err := at.call(internetAddr + ":80"); !strings.HasPrefix(said, greeting) {
			t.Errorf("%q %v", said, err)
		}
	}
	if _, err := a.call(q.host.uplinkAddresses(t) + ":80"); err == nil {
		t.Error("the other's link is reachable")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"no directory":   {},
		"egress":         {Dir: "x", Egress: "maybe"},
		"range":          {Dir: "x", Range: netip.MustParsePrefix("169.254.0.0/16")},
		"small range":    {Dir: "x", Range: netip.MustParsePrefix("10.0.0.0/30")},
		"range of IPv6":  {Dir: "x", Range: netip.MustParsePrefix("fd00::/64")},
		"allow of IPv6":  {Dir: "x", Allow: []netip.Prefix{netip.MustParsePrefix("fd00::/64")}},
		"clash of range": {Dir: "x", Range: netip.MustParsePrefix("169.254.100.0/24")},
	} {
		if p, err := Open(o); err == nil {
			p.Close()
			t.Errorf("%s was taken", name)
		}
	}
}

func TestLinkAddressesAvoidThoseOfTheHost(t *testing.T) {
	w := newWorld(t)
	must(t, w.host.Do(func() error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer nl.Close()
		return setUp(nl, "eth0", netip.MustParsePrefix("100.127.254.1/24"))
	}))
	p := w.open(t, nil)
	if got := p.host.uplinkAddresses(t); got != "100.127.255.0" {
		t.Errorf("the link has %s", got)
	}
}

func TestFilesOfTheSandbox(t *testing.T) {
	w := newWorld(t)
	a := w.open(t, nil).acquire(t)
	got := map[string]string{}
	for _, m := range a.Mounts {
		b, err := os.ReadFile(m.Source)
		must(t, err)
		got[m.Target] = string(b)
		if !filepath.IsAbs(m.Source) {
			t.Errorf("%s is not absolute", m.Source)
		}
	}
	if !strings.Contains(got["/etc/resolv.conf"], "nameserver 169.254.100.1\n") || !strings.Contains(got["/etc/hosts"], "169.254.100.1 lapwing.internal\n") {
		t.Errorf("got %q", got)
	}
}
