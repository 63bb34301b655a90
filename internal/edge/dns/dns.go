// Package dns brings viewers to an edge location near them: a small authoritative
// server that answers for the names of distributions with the addresses of a
// location. It also answers to certificate authorities that ask it for proof.
//
// Where a viewer is, its resolver says by the client subnet (RFC 7871), or else is
// said by the resolver's own address. The operator's Config tells which locations
// are near to which networks. Locations that are not well are passed over, and none
// is answered for that is not in the Config.
//
// Messages, their limits and their transport are those of miekg/dns.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/state"
)

const (
	// How much of a viewer's address counts: as much as resolvers tell by RFC 7871's
	// recommendation.
	bits4, bits6 = 24, 56
	// maxUDP is what fits everywhere (DNS flag day 2020), in bytes.
	maxUDP = 1232
	// ioTimeout bounds reading and writing on a connection.
	ioTimeout = 2 * time.Second
	// maxQueries bounds those of a TCP connection.
	maxQueries = 64
)

// Options configures a Server. All fields are required.
type Options struct {
	Config        *Config
	Distributions *state.Collection[distribution.Distribution]
	// Challenges are the TXT records that authorities look for.
	Challenges *state.Collection[distribution.Challenge]
	// Healthy tells whether a location is well, as far as is known.
	Healthy func(location string) bool
	// Region is the AWS Region of a location, by which price classes go; empty: not
	// known.
	Region func(location string) string
	Logger *slog.Logger
}

// Server is an authoritative DNS server for the names of distributions.
type Server struct {
	opts    Options
	chooser *chooser
}

// New returns a Server.
func New(o Options) *Server {
	return &Server{opts: o, chooser: newChooser(o.Config, o.Healthy, o.Region)}
}

// Serve answers at UDP and TCP sockets until ctx ends.
func (s *Server) Serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	servers := []*dns.Server{
		{PacketConn: udp, Handler: s, UDPSize: maxUDP, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout},
		{Listener: tcp, Handler: s, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout, MaxTCPQueries: maxQueries},
	}
	failed := make(chan error, len(servers))
	for _, d := range servers {
		go func() { failed <- d.ActivateAndServe() }()
	}
	var err error
	running := len(servers)
	select {
	case err = <-failed:
		running--
	case <-ctx.Done():
	}
	err = errors.Join(err, udp.Close(), closed(tcp.Close()))
	for range running {
		<-failed // that its socket is closed
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("edge/dns: %w", err)
}

// closed takes no offence at what is closed already.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	from, err := netip.ParseAddrPort(w.RemoteAddr().String())
	if err != nil {
		return // no network that we serve
	}
	m := s.answer(q, from.Addr().Unmap())
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
	}
	if tcp {
		size = dns.MaxMsgSize
	}
	m.Truncate(size)
	if err := w.WriteMsg(m); err != nil {
		s.opts.Logger.Debug("a DNS answer was not sent", "to", w.RemoteAddr(), "error", err)
	}
}

// answer answers a message from a resolver.
func (s *Server) answer(q *dns.Msg, resolver netip.Addr) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	opt := q.IsEdns0()
	var reply *dns.OPT
	if opt != nil {
		m.SetEdns0(maxUDP, false)
		reply = m.IsEdns0()
		if opt.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	if q.Opcode != dns.OpcodeQuery {
		m.Rcode = dns.RcodeNotImplemented
		return m
	}
	if len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		m.Rcode = dns.RcodeRefused
		return m
	}
	question := q.Question[0]
	name := strings.ToLower(question.Name)
	zone := s.zone(name)
	if zone == "" {
		m.Rcode = dns.RcodeRefused
		return m
	}
	m.Authoritative = true
	viewers, subnet := viewersOf(opt, resolver)
	bits := 0
	switch d, known := s.find(name, zone); {
	case name == zone:
		m.Answer = s.apex(zone, question.Qtype)
	case (!known || question.Qtype == dns.TypeTXT) && s.proof(question, m):
	case !known:
		m.Rcode = dns.RcodeNameError
	case question.Qtype == dns.TypeA || question.Qtype == dns.TypeAAAA && d.IPv6:
		m.Answer, bits = s.addresses(question, viewers, d.PriceClass)
	case question.Qtype == dns.TypeANY: // RFC 8482
		m.Answer = []dns.RR{&dns.HINFO{Hdr: s.header(question.Name, dns.TypeHINFO), Cpu: "RFC8482"}}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{s.soa(zone)}
	}
	if subnet != nil {
		echo := *subnet
		echo.SourceScope = uint8(bits)
		reply.Option = append(reply.Option, &echo)
	}
	return m
}

// zone returns which of our zones a name is in, or "".
func (s *Server) zone(name string) string {
	best := ""
	for _, z := range s.opts.Config.Zones {
		if dns.IsSubDomain(z, name) && len(z) > len(best) {
			best = z
		}
	}
	return best
}

// find returns the distribution that has a name in a zone: as an alias, or by the
// first label of its domain name. Of aliases the exact ones come first.
func (s *Server) find(name, zone string) (d distribution.Distribution, ok bool) {
	host := strings.TrimSuffix(name, ".")
	label, rest, _ := strings.Cut(name, ".")
	_, parent, _ := strings.Cut(host, ".")
	for item := range s.opts.Distributions.Scan("", "") {
		v := item.Value
		if !v.Enabled {
			continue
		}
		if first, _, _ := strings.Cut(v.DomainName, "."); first == label && rest == zone {
			return v, true
		}
		for _, alias := range v.Aliases {
			if alias == host {
				return v, true
			}
			if alias == "*."+parent {
				d, ok = v, true
			}
		}
	}
	return d, ok
}

// proof answers a question for what a certificate authority looks for, and tells
// whether there is such a name, or one below it: resolvers ask for these one after
// the other. All certificates with a name have the same record.
func (s *Server) proof(q dns.Question, m *dns.Msg) bool {
	host := strings.TrimSuffix(strings.ToLower(q.Name), ".")
	found := false
	for item := range s.opts.Challenges.Scan("", "") {
		for name, values := range item.Value.TXT {
			if name != host {
				found = found || strings.HasSuffix(name, "."+host)
				continue
			}
			found = true
			for _, v := range values {
				if q.Qtype == dns.TypeTXT {
					m.Answer = append(m.Answer, &dns.TXT{Hdr: s.proofHeader(q.Name), Txt: []string{v}})
				}
			}
		}
	}
	return found
}

// proofHeader is that of a record which is not to be kept: it changes at once.
func (s *Server) proofHeader(name string) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}
}

// addresses returns those of the location for viewers of a distribution of a price
// class, and how many bits of their network that depends on.
func (s *Server) addresses(q dns.Question, viewers netip.Prefix, class string) (rrs []dns.RR, bits int) {
	location, bits, ok := s.chooser.choose(viewers, class, q.Qtype == dns.TypeAAAA)
	if !ok {
		return nil, bits
	}
	for _, a := range s.opts.Config.Locations[location].of(q.Qtype == dns.TypeAAAA) {
		if a.Is4() {
			rrs = append(rrs, &dns.A{Hdr: s.header(q.Name, dns.TypeA), A: a.AsSlice()})
		} else {
			rrs = append(rrs, &dns.AAAA{Hdr: s.header(q.Name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return rrs, bits
}

// viewersOf returns the network that viewers are in: the client subnet that the
// resolver tells, or the resolver's own. subnet is what it told, nil: nothing.
func viewersOf(opt *dns.OPT, resolver netip.Addr) (viewers netip.Prefix, subnet *dns.EDNS0_SUBNET) {
	if opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_SUBNET); ok {
				subnet = e
			}
		}
	}
	if subnet != nil && subnet.SourceNetmask > 0 {
		if a, ok := netip.AddrFromSlice(subnet.Address); ok {
			if p, err := a.Unmap().Prefix(min(int(subnet.SourceNetmask), significant(a.Unmap()))); err == nil {
				return p, subnet
			}
		}
	}
	return netip.PrefixFrom(resolver, significant(resolver)).Masked(), subnet
}

func significant(a netip.Addr) int {
	if a.Is4() {
		return bits4
	}
	return bits6
}

// apex returns the records of a zone itself.
func (s *Server) apex(zone string, qtype uint16) (rrs []dns.RR) {
	switch qtype {
	case dns.TypeSOA:
		return []dns.RR{s.soa(zone)}
	case dns.TypeNS:
		for _, n := range s.opts.Config.Nameservers {
			rrs = append(rrs, &dns.NS{Hdr: s.header(zone, dns.TypeNS), Ns: n})
		}
	}
	return rrs
}

func (s *Server) soa(zone string) dns.RR {
	ttl := s.opts.Config.TTLSeconds
	return &dns.SOA{
		Hdr: s.header(zone, dns.TypeSOA), Ns: s.opts.Config.Nameservers[0], Mbox: "hostmaster." + zone,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}

func (s *Server) header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: s.opts.Config.TTLSeconds}
}

func canonical(name string) string { return dns.CanonicalName(name) }

func validName(name string) bool {
	_, ok := dns.IsDomainName(name)
	return ok && name != "."
}
