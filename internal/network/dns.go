package network

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	maxQuery    = 4096 // bytes of a query over UDP, and of an answer
	maxTCPQuery = 64 * 1024
	// queriesEach is what one sandbox may ask in a second; the resolver of a
	// VPC takes as much from one interface.
	queriesEach = 1024
	// queriesAll bounds the queries and connections under way, the others what
	// one sandbox may have of them.
	queriesAll     = 1024
	udpEach        = 64
	connsEach      = 8
	queryTimeout   = 2 * time.Second // of one resolver
	connIdle       = 10 * time.Second
	resolversEvery = 30 * time.Second // the host's resolv.conf is read again
	zoneTTL        = 60
	resolvConf     = "/etc/resolv.conf"
)

// relay answers the DNS queries of functions: it passes them on to the host's
// resolvers, and answers itself for Zone.
type relay struct {
	udp net.PacketConn
	tcp net.Listener
	log *slog.Logger

	fixed []netip.AddrPort // Options.Resolvers
	slots chan struct{}    // held by queries under way
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu       sync.Mutex
	second   int64              // that asked counts
	asked    map[netip.Addr]int // queries of each sandbox
	busy     map[client]int     // what each has under way
	upstream []netip.AddrPort
	read     time.Time // when upstream was
}

// client is a sandbox by its address, over UDP or TCP.
type client struct {
	addr netip.Addr
	tcp  bool
}

func newRelay(opts Options, r *router) (*relay, error) {
	d := &relay{
		log: opts.Logger, fixed: opts.Resolvers,
		slots: make(chan struct{}, queriesAll),
		asked: map[netip.Addr]int{}, busy: map[client]int{},
	}
	at := netip.AddrPortFrom(endpointAddr, dnsPort).String()
	err := r.ns.Do(func() (err error) {
		if d.udp, err = net.ListenPacket("udp4", at); err != nil {
			return err
		}
		if d.tcp, err = net.Listen("tcp4", at); err != nil {
			d.udp.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.wg.Go(d.serveUDP)
	d.wg.Go(d.serveTCP)
	return d, nil
}

// Close ends the relay and waits for it.
func (d *relay) Close() {
	d.stop()
	d.udp.Close()
	d.tcp.Close()
	d.wg.Wait()
}

func (d *relay) serveUDP() {
	buf := make([]byte, maxQuery+1)
	for {
		n, from, err := d.udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n > maxQuery {
			continue
		}
		c := client{addr: addrOf(from)}
		if !d.admit(c.addr) || !d.enter(c, udpEach) {
			continue // the client asks again
		}
		query := append([]byte(nil), buf[:n]...)
		d.wg.Go(func() {
			defer d.leave(c)
			if answer := d.answer(query, "udp"); answer != nil {
				d.udp.WriteTo(answer, from)
			}
		})
	}
}

func (d *relay) serveTCP() {
	for {
		conn, err := d.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors
			continue
		}
		c := client{addr: addrOf(conn.RemoteAddr()), tcp: true}
		if !d.enter(c, connsEach) {
			conn.Close()
			continue
		}
		d.wg.Go(func() {
			defer d.leave(c)
			stop := context.AfterFunc(d.ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			d.serveConn(conn, c.addr)
		})
	}
}

// serveConn answers the queries of one connection.
func (d *relay) serveConn(conn net.Conn, from netip.Addr) {
	for {
		conn.SetDeadline(time.Now().Add(connIdle))
		query, err := readTCP(conn, maxQuery)
		if err != nil || !d.admit(from) {
			return
		}
		answer := d.answer(query, "tcp")
		if answer == nil || writeTCP(conn, answer) != nil {
			return
		}
	}
}

// admit counts a query of a sandbox and tells whether it may ask.
func (d *relay) admit(a netip.Addr) bool {
	now := time.Now().Unix()
	d.mu.Lock()
	defer d.mu.Unlock()
	if now != d.second {
		d.second = now
		clear(d.asked)
	}
	d.asked[a]++
	return d.asked[a] <= queriesEach
}

// enter takes a slot for what a client has under way, of which it may have so
// many; leave gives it back.
func (d *relay) enter(c client, most int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy[c] >= most {
		return false
	}
	select {
	case d.slots <- struct{}{}:
		d.busy[c]++
		return true
	default:
		return false
	}
}

func (d *relay) leave(c client) {
	d.mu.Lock()
	defer d.mu.Unlock()
	<-d.slots
	if d.busy[c]--; d.busy[c] == 0 {
		delete(d.busy, c)
	}
}

// addrOf returns the address of a UDP or TCP peer.
func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// answer returns the answer to a query, or nil where there is none to give.
func (d *relay) answer(query []byte, network string) []byte {
	h, q, err := parseQuery(query)
	if err != nil {
		if len(query) < 12 || h.Response {
			return nil
		}
		return failed(h, dnsmessage.RCodeFormatError)
	}
	if inZone(q.Name.String()) {
		return zoneAnswer(h, q)
	}
	for _, up := range d.resolvers() {
		ctx, cancel := context.WithTimeout(d.ctx, queryTimeout)
		answer, err := exchange(ctx, network, up, query, q)
		cancel()
		if err == nil {
			return answer
		}
		d.log.Debug("DNS resolver did not answer", "resolver", up, "error", err)
	}
	return failed(h, dnsmessage.RCodeServerFailure)
}

// parseQuery checks that a message is a query with one question.
func parseQuery(b []byte) (h dnsmessage.Header, q dnsmessage.Question, err error) {
	var p dnsmessage.Parser
	if h, err = p.Start(b); err != nil {
		return h, q, err
	}
	if h.Response || h.OpCode != 0 {
		return h, q, errors.New("not a query")
	}
	if q, err = p.Question(); err != nil {
		return h, q, err
	}
	if _, err = p.Question(); err != dnsmessage.ErrSectionDone {
		return h, q, errors.New("not one question")
	}
	return h, q, nil
}

// inZone tells whether a name is Zone or under it.
func inZone(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == Zone || strings.HasSuffix(name, "."+Zone)
}

// zoneAnswer answers for the endpoint.
func zoneAnswer(h dnsmessage.Header, q dnsmessage.Question) []byte {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: h.ID, Response: true, Authoritative: true,
			RecursionDesired: h.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{q},
	}
	if q.Type == dnsmessage.TypeA && q.Class == dnsmessage.ClassINET {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: zoneTTL},
			Body:   &dnsmessage.AResource{A: endpointAddr.As4()},
		}}
	}
	b, err := m.Pack()
	if err != nil {
		return failed(h, dnsmessage.RCodeServerFailure)
	}
	return b
}

// failed returns an answer without content.
func failed(h dnsmessage.Header, code dnsmessage.RCode) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{
		ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true, RCode: code,
	}}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// exchange asks a resolver. The query leaves with an id and a port of its own,
// so that no answer can be guessed.
func exchange(ctx context.Context, network string, to netip.AddrPort, query []byte, q dnsmessage.Question) ([]byte, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	id := binary.BigEndian.Uint16(query)
	ask := append([]byte(nil), query...)
	binary.BigEndian.PutUint16(ask, uint16(rand.Uint32()))
	if network == "tcp" {
		if err := writeTCP(conn, ask); err != nil {
			return nil, err
		}
	} else if _, err := conn.Write(ask); err != nil {
		return nil, err
	}
	buf := make([]byte, maxQuery)
	for {
		var answer []byte
		if network == "tcp" {
			if answer, err = readTCP(conn, maxTCPQuery); err != nil {
				return nil, err
			}
		} else {
			n, err := conn.Read(buf)
			if err != nil {
				return nil, err
			}
			answer = buf[:n]
		}
		if !answers(answer, ask, q) {
			continue // not ours
		}
		binary.BigEndian.PutUint16(answer, id)
		return answer, nil
	}
}

// answers tells whether a message answers the query that was asked.
func answers(answer, ask []byte, q dnsmessage.Question) bool {
	if len(answer) < 12 || answer[0] != ask[0] || answer[1] != ask[1] {
		return false
	}
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	if err != nil || !h.Response {
		return false
	}
	got, err := p.Question()
	if err != nil {
		return h.RCode != dnsmessage.RCodeSuccess // some leave it out of errors
	}
	return got.Type == q.Type && got.Class == q.Class && strings.EqualFold(got.Name.String(), q.Name.String())
}

func readTCP(r io.Reader, limit int) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > limit {
		return nil, errors.New("message too large")
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeTCP(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// resolvers returns where queries go.
func (d *relay) resolvers() []netip.AddrPort {
	if len(d.fixed) > 0 {
		return d.fixed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.read) > resolversEvery {
		d.read = time.Now()
		b, err := os.ReadFile(resolvConf)
		if err != nil {
			d.log.Warn("the host's resolvers are unknown", "error", err)
		} else {
			d.upstream = parseResolvers(string(b))
		}
	}
	return d.upstream
}

// parseResolvers returns the name servers of a resolv.conf, at most three as
// in the C library.
func parseResolvers(conf string) []netip.AddrPort {
	var list []netip.AddrPort
	for line := range strings.Lines(conf) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && len(list) < 3 {
			list = append(list, netip.AddrPortFrom(a, dnsPort))
		}
	}
	return list
}
