package network

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestDNS(t *testing.T) {
	w := newWorld(t)
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0") // never answers
	must(t, err)
	defer silent.Close()
	up := fakeResolver(t)
	p := w.open(t, func(o *Options) {
		o.Resolvers = []netip.AddrPort{silent.LocalAddr().(*net.UDPAddr).AddrPort(), up}
	})
	a := p.acquire(t)
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		err = a.ns.Do(func() (err error) {
			c, err = new(net.Dialer).DialContext(ctx, network[:3]+"4", endpointAddr.String()+":53")
			return err
		})
		return c, err
	}}
	for name, want := range map[string]string{
		"example.com.":                "203.0.113.7",
		"large.example.com.":          "203.0.113.7", // only over TCP
		"lapwing.internal.":           "169.254.100.1",
		"Bucket.S3.Lapwing.Internal.": "169.254.100.1",
	} {
		ips, err := r.LookupNetIP(t.Context(), "ip4", name)
		if err != nil || len(ips) == 0 || ips[0].String() != want {
			t.Errorf("%s: %v %v", name, ips, err)
		}
	}
	if _, err := r.LookupNetIP(t.Context(), "ip4", "missing.example.com."); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("missing: %v", err)
	}
}

// fakeResolver answers over UDP and TCP, with names that begin with large over
// TCP only.
func fakeResolver(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	pc, err := net.ListenPacket("udp4", l.Addr().String())
	must(t, err)
	t.Cleanup(func() { l.Close(); pc.Close() })
	reply := func(b []byte, tcp bool) []byte {
		var m dnsmessage.Message
		if m.Unpack(b) != nil {
			return nil
		}
		q := m.Questions[0]
		m.Response, m.Additionals = true, nil
		switch name := q.Name.String(); {
		case strings.HasPrefix(name, "missing"):
			m.RCode = dnsmessage.RCodeNameError
		case strings.HasPrefix(name, "large") && !tcp:
			m.Truncated = true
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{203, 0, 113, 7}},
			}}
		}
		out, _ := m.Pack()
		return out
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo([]byte("noise that is no answer"), from)
			pc.WriteTo(reply(buf[:n], false), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if b, err := readTCP(c, 4096); err == nil {
				writeTCP(c, reply(b, true))
			}
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestOneSandboxCannotUseUpTheResolver(t *testing.T) {
	d := &relay{asked: map[netip.Addr]int{}}
	greedy, other := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.3")
	refused := false
	for range 2*queriesEach + 2 { // within two seconds at most
		refused = !d.admit(greedy) || refused
	}
	if !refused || !d.admit(other) {
		t.Errorf("refused %v", refused)
	}
}

func TestOneSandboxCannotHoldAllQueries(t *testing.T) {
	d := &relay{slots: make(chan struct{}, queriesAll), busy: map[client]int{}}
	greedy, other := client{addr: netip.MustParseAddr("100.64.0.1")}, client{addr: netip.MustParseAddr("100.64.0.3")}
	for range udpEach {
		if !d.enter(greedy, udpEach) {
			t.Fatal("refused below the limit")
		}
	}
	if d.enter(greedy, udpEach) || !d.enter(other, udpEach) {
		t.Error("the limit of one is not its own")
	}
	d.leave(greedy)
	if !d.enter(greedy, udpEach) {
		t.Error("a slot was not given back")
	}
}

func TestParseResolvers(t *testing.T) {
	got := parseResolvers("# x\nnameserver 10.0.0.1\nnameserver  fd00::1\nsearch a\nnameserver bad\nnameserver 1.1.1.1\nnameserver 9.9.9.9\n")
	if fmt.Sprint(got) != "[10.0.0.1:53 [fd00::1]:53 1.1.1.1:53]" {
		t.Errorf("got %v", got)
	}
}

func FuzzAnswer(f *testing.F) {
	d := &relay{log: slog.New(slog.DiscardHandler), fixed: []netip.AddrPort{}, asked: map[netip.Addr]int{}}
	d.read = time.Now() // no resolvers
	d.ctx = context.Background()
	name := dnsmessage.MustNewName("a.lapwing.internal.")
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, query []byte) {
		answer := d.answer(query, "udp")
		if answer == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil || !m.Response || m.ID != uint16(query[0])<<8|uint16(query[1]) {
			t.Fatalf("answer %x to %x: %v", answer, query, err)
		}
	})
}
