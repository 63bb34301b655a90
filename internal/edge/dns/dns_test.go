package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/state"
)

const config = `{
  "version": 1, "zones": ["cdn.example.org", "Shop.Example.Net."], "nameservers": ["ns1.example.org"], "ttlSeconds": 30,
  "locations": {
    "FRA": {"addresses": ["192.0.2.1", "2001:db8::1"]},
    "LHR": {"addresses": ["192.0.2.2"]},
    "SYD": {"addresses": ["192.0.2.3"], "weight": 0}
  },
  "subnets": {"198.51.100.0/24": ["LHR", "FRA"], "198.51.0.0/16": ["SYD"], "2001:db8:1::/48": ["FRA"]}
}`

// regions of the locations; that of LHR is not known.
var regions = map[string]string{"FRA": "eu-central-1", "SYD": "ap-southeast-2"}

// fixture is a server with two distributions and locations that can be unwell.
type fixture struct {
	*Server
	unwell map[string]bool
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	c, err := Parse([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	store, err := state.Open(t.Context(), state.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	all, err := state.Collect[distribution.Distribution](t.Context(), store, "distributions")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []distribution.Distribution{
		{ID: "E1", DomainName: "d111.cloudfront.net", Enabled: true, IPv6: true, Aliases: []string{"shop.example.net", "www.shop.example.net", "*.img.shop.example.net"}},
		{ID: "E2", DomainName: "d222.cloudfront.net", Enabled: true},
		{ID: "E3", DomainName: "d333.cloudfront.net"},
		{ID: "E4", DomainName: "d100.cloudfront.net", Enabled: true, PriceClass: "PriceClass_100"},
		{ID: "E5", DomainName: "d200.cloudfront.net", Enabled: true, PriceClass: "PriceClass_200"},
	} {
		if _, err := all.Put(t.Context(), d.ID, d); err != nil {
			t.Fatal(err)
		}
	}
	challenges, err := state.Collect[distribution.Challenge](t.Context(), store, "challenges")
	if err != nil {
		t.Fatal(err)
	}
	for arn, value := range map[string]string{"arn:1": "one", "arn:2": "two"} {
		if _, err := challenges.Put(t.Context(), arn, distribution.Challenge{TXT: map[string][]string{"_x.new.cdn.example.org": {value}, "_acme-challenge.img.shop.example.net": {"star " + value}}}); err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{unwell: map[string]bool{}}
	f.Server = New(Options{Config: c, Distributions: all, Challenges: challenges, Healthy: func(l string) bool { return !f.unwell[l] }, Region: func(l string) string { return regions[l] }, Logger: slog.New(slog.DiscardHandler)})
	return f
}

// ask asks from a resolver, for viewers of a client subnet where there is one.
func (f *fixture) ask(name string, qtype uint16, resolver, subnet string) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	if subnet != "" {
		p := netip.MustParsePrefix(subnet)
		family := uint16(1)
		if p.Addr().Is6() {
			family = 2
		}
		q.SetEdns0(4096, false)
		q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()})
	}
	return f.answer(q, netip.MustParseAddr(resolver))
}

// said returns an answer in short.
func said(m *dns.Msg) string {
	var parts []string
	for _, rr := range m.Answer {
		parts = append(parts, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	s := dns.RcodeToString[m.Rcode] + " " + strings.Join(parts, " ")
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_SUBNET); ok {
				s += fmt.Sprintf(" scope %d", e.SourceScope)
			}
		}
	}
	return strings.TrimSpace(s)
}

func TestAnswers(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		name             string
		qtype            uint16
		resolver, subnet string
		unwell           string
		want             string
	}{
		{name: "d111.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.100.7", want: "NOERROR 192.0.2.2"},
		{name: "D111.CDN.example.org", qtype: dns.TypeA, resolver: "198.51.100.7", want: "NOERROR 192.0.2.2"},
		{name: "d111.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.7.7", want: "NOERROR 192.0.2.3"},
		{name: "d100.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.7.7", unwell: "LHR", want: "NOERROR 192.0.2.1"},
		{name: "d200.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.7.7", unwell: "LHR", want: "NOERROR 192.0.2.1"},
		{name: "d200.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.7.7", unwell: "LHR FRA", want: "NOERROR 192.0.2.3"},
		{name: "d100.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.100.7", want: "NOERROR 192.0.2.2"},
		{name: "d111.cdn.example.org", qtype: dns.TypeA, resolver: "203.0.113.1", subnet: "198.51.100.0/24", want: "NOERROR 192.0.2.2 scope 24"},
		{name: "d111.cdn.example.org", qtype: dns.TypeA, resolver: "203.0.113.1", subnet: "198.51.100.7/32", want: "NOERROR 192.0.2.2 scope 24"},
		{name: "d111.cdn.example.org", qtype: dns.TypeA, resolver: "203.0.113.1", subnet: "198.51.0.0/16", want: "NOERROR 192.0.2.3 scope 16"},
		{name: "d111.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.100.7", unwell: "LHR", want: "NOERROR 192.0.2.1"},
		{name: "d111.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.100.7", unwell: "LHR FRA SYD", want: "NOERROR 192.0.2.2"},
		{name: "d111.cdn.example.org", qtype: dns.TypeAAAA, resolver: "198.51.100.7", want: "NOERROR 2001:db8::1"},
		{name: "d111.cdn.example.org", qtype: dns.TypeA, resolver: "203.0.113.1", subnet: "2001:db8:1::/56", want: "NOERROR 192.0.2.1 scope 48"},
		{name: "d222.cdn.example.org", qtype: dns.TypeAAAA, resolver: "198.51.100.7", want: "NOERROR"},
		{name: "d333.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.100.7", want: "NXDOMAIN"},
		{name: "x.d111.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.100.7", want: "NXDOMAIN"},
		{name: "shop.example.net", qtype: dns.TypeSOA, resolver: "198.51.100.7", want: "NOERROR ns1.example.org. hostmaster.shop.example.net. 1 3600 600 86400 30"},
		{name: "www.shop.example.net", qtype: dns.TypeA, resolver: "198.51.100.7", want: "NOERROR 192.0.2.2"},
		{name: "any.img.shop.example.net", qtype: dns.TypeA, resolver: "198.51.100.7", want: "NOERROR 192.0.2.2"},
		{name: "a.b.img.shop.example.net", qtype: dns.TypeA, resolver: "198.51.100.7", want: "NXDOMAIN"},
		{name: "www.shop.example.net", qtype: dns.TypeMX, resolver: "198.51.100.7", want: "NOERROR"},
		{name: "www.shop.example.net", qtype: dns.TypeANY, resolver: "198.51.100.7", want: `NOERROR "RFC8482" ""`},
		{name: "_X.new.cdn.example.org", qtype: dns.TypeTXT, resolver: "198.51.100.7", want: `NOERROR "one" "two"`},
		{name: "_x.new.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.100.7", want: "NOERROR"},
		{name: "_y.new.cdn.example.org", qtype: dns.TypeTXT, resolver: "198.51.100.7", want: "NXDOMAIN"},
		{name: "new.cdn.example.org", qtype: dns.TypeA, resolver: "198.51.100.7", want: "NOERROR"},
		{name: "_acme-challenge.img.shop.example.net", qtype: dns.TypeTXT, resolver: "198.51.100.7", want: `NOERROR "star one" "star two"`},
		{name: "cdn.example.org", qtype: dns.TypeNS, resolver: "198.51.100.7", want: "NOERROR ns1.example.org."},
		{name: "example.org", qtype: dns.TypeA, resolver: "198.51.100.7", want: "REFUSED"},
		{name: "d111.cloudfront.net", qtype: dns.TypeA, resolver: "198.51.100.7", want: "REFUSED"},
	} {
		f.unwell = map[string]bool{}
		for _, l := range strings.Fields(c.unwell) {
			f.unwell[l] = true
		}
		m := f.ask(c.name, c.qtype, c.resolver, c.subnet)
		if got := said(m); got != c.want {
			t.Errorf("%s %s from %s for %q, with %q unwell: %q, want %q", c.name, dns.TypeToString[c.qtype], c.resolver, c.subnet, c.unwell, got, c.want)
		}
		if len(m.Answer) == 0 && m.Rcode != dns.RcodeRefused && (len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA) {
			t.Errorf("%s: no answer, and no SOA that says for how long", c.name)
		}
	}
}

func TestViewersOfNoSubnetAreSpreadByWeightAndStay(t *testing.T) {
	f := newFixture(t)
	where := map[string]int{}
	for i := range 2000 {
		resolver := fmt.Sprintf("10.%d.%d.1", i/250, i%250)
		first := said(f.ask("d111.cdn.example.org", dns.TypeA, resolver, ""))
		if again := said(f.ask("d111.cdn.example.org", dns.TypeA, resolver, "")); again != first {
			t.Fatalf("%s: %s, then %s", resolver, first, again)
		}
		where[first]++
	}
	if where["NOERROR 192.0.2.1"] < 850 || where["NOERROR 192.0.2.2"] < 850 || len(where) != 2 {
		t.Errorf("of 2000 networks, with equal weights and one of 0: %v", where)
	}
}

func TestConfigsThatCannotBeAreRefused(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{`"version": 1`, `"version": 2`, "version"},
		{`"zones"`, `"zone"`, "unknown field"},
		{`["LHR", "FRA"]`, `["XXX"]`, "no location"},
		{`198.51.100.0/24`, `198.51.100.1/24`, "the network is"},
		{`["192.0.2.2"]`, `[]`, "no addresses"},
		{`"weight": 0`, `"weight": -1`, "below 0"},
		{`"cdn.example.org"`, `"."`, "no domain name"},
	} {
		if _, err := Parse([]byte(strings.Replace(config, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: %v, want %q", c.new, c.old, err, c.want)
		}
	}
}

func TestServesUDPAndTCP(t *testing.T) {
	f := newFixture(t)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(ctx, udp, tcp) }()
	for _, network := range []string{"udp", "tcp"} {
		q := new(dns.Msg)
		q.SetQuestion("d111.cdn.example.org.", dns.TypeA)
		c := &dns.Client{Net: network, Timeout: 10 * time.Second}
		m, _, err := c.Exchange(q, udp.LocalAddr().String())
		if err != nil || !m.Authoritative || len(m.Answer) != 1 {
			t.Errorf("%s: %v, %v", network, m, err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func FuzzAnswer(f *testing.F) {
	s := newFixture(f)
	for _, q := range []string{"d111.cdn.example.org.", "x.img.shop.example.net.", "cdn.example.org.", "."} {
		m := new(dns.Msg)
		m.SetQuestion(q, dns.TypeA)
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(198, 51, 100, 0)})
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		m := s.answer(q, netip.MustParseAddr("198.51.100.7"))
		m.Truncate(maxUDP)
		if _, err := m.Pack(); err != nil {
			t.Fatalf("an answer that cannot be sent: %v", err)
		}
	})
}

func TestPriceClassesCoverWhatCloudFrontsDo(t *testing.T) {
	for class, want := range map[string]map[string]bool{
		"PriceClass_100": {"us-east-1": true, "us-gov-west-1": true, "ca-west-1": true, "mx-central-1": true, "eu-south-2": true, "il-central-1": true, "af-south-1": false, "me-central-1": false, "ap-northeast-1": false, "ap-south-1": false, "sa-east-1": false, "": true},
		"PriceClass_200": {"eu-west-1": true, "af-south-1": true, "me-south-1": true, "ap-northeast-1": true, "ap-southeast-1": true, "ap-southeast-3": true, "ap-south-1": true, "ap-southeast-2": false, "ap-southeast-4": false, "ap-southeast-6": false, "sa-east-1": false},
		"PriceClass_All": {"sa-east-1": true, "ap-southeast-2": true},
		"":               {"sa-east-1": true},
	} {
		for region, in := range want {
			if got := covered(class, region); got != in {
				t.Errorf("%s covers %q: %v, want %v", class, region, got, in)
			}
		}
	}
}
