package acm_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acm/types"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	miekg "github.com/miekg/dns"

	"lapwing.dev/lapwing/internal/acme"
	api "lapwing.dev/lapwing/internal/aws/acm"
	"lapwing.dev/lapwing/internal/edge"
	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/dns"
	"lapwing.dev/lapwing/internal/edge/origin"
	"lapwing.dev/lapwing/internal/edge/viewer"
	"lapwing.dev/lapwing/internal/service/acm"
	"lapwing.dev/lapwing/internal/state"
	"lapwing.dev/lapwing/test/servicetest"
)

// Pebble is as awkward as authorities may be: it rejects a third of all nonces, and
// takes no name as validated because it was before.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "30", "PEBBLE_AUTHZREUSE": "0"} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

const zone = "validations.example.org"

// internet is what an authority and we reach each other by: an edge location with
// Lapwing's DNS, and a resolver that knows every name to be at the location.
type internet struct {
	t        *testing.T
	http     net.Addr // the location's
	https    net.Addr
	resolver string
	lapwing  string // Lapwing's DNS

	plain, secure, ownTCP net.Listener
	closed                bool // nothing is served in clear text
	ownUDP                net.PacketConn

	mu      sync.Mutex
	aliases map[string]string // CNAME records that the owners of names have set
	away    map[string]bool   // names that do not lead to the location
}

func (i *internet) set(name, target string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.aliases[strings.ToLower(name)] = target
}

// ServeDNS implements miekg.Handler: it resolves.
func (i *internet) ServeDNS(w miekg.ResponseWriter, q *miekg.Msg) {
	i.mu.Lock()
	defer i.mu.Unlock()
	m := new(miekg.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	name := strings.ToLower(q.Question[0].Name)
	if target, ok := i.aliases[name]; ok {
		m.Answer = append(m.Answer, &miekg.CNAME{Hdr: miekg.RR_Header{Name: name, Rrtype: miekg.TypeCNAME, Class: miekg.ClassINET}, Target: target})
		name = target
	}
	switch {
	case miekg.IsSubDomain(zone+".", name):
		ask := new(miekg.Msg)
		ask.SetQuestion(name, q.Question[0].Qtype)
		got, _, err := new(miekg.Client).Exchange(ask, i.lapwing)
		if err != nil {
			m.Rcode = miekg.RcodeServerFailure
			break
		}
		m.Answer, m.Rcode = append(m.Answer, got.Answer...), got.Rcode
	case q.Question[0].Qtype == miekg.TypeA && !i.away[strings.TrimSuffix(name, ".")]:
		m.Answer = append(m.Answer, &miekg.A{Hdr: miekg.RR_Header{Name: name, Rrtype: miekg.TypeA, Class: miekg.ClassINET}, A: net.IPv4(127, 0, 0, 1)})
	}
	_ = w.WriteMsg(m) // who asked may be gone
}

func newInternet(t *testing.T) *internet {
	i := &internet{t: t, aliases: map[string]string{}, away: map[string]bool{}, plain: listen(t), secure: listen(t)}
	i.http, i.https = i.plain.Addr(), i.secure.Addr()
	i.ownUDP, i.ownTCP = both(t)
	i.lapwing = i.ownUDP.LocalAddr().String()
	udp, tcp := both(t)
	i.resolver = udp.LocalAddr().String()
	var running sync.WaitGroup
	for _, r := range []*miekg.Server{{PacketConn: udp, Handler: i}, {Listener: tcp, Handler: i}} {
		running.Go(func() { check(t, r.ActivateAndServe()) })
	}
	t.Cleanup(func() {
		_, _ = udp.Close(), tcp.Close()
		running.Wait()
	})
	return i
}

// start has an edge location and Lapwing's DNS serve what the records say.
func (i *internet) start(records *distribution.Records) *edge.Server {
	t, quiet := i.t, slog.New(slog.DiscardHandler)
	objects, err := cache.Open(cache.Options{Memory: 1 << 20, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	server := edge.New(edge.Options{Records: records, Cache: objects, Logger: quiet, Location: "TST50-P1", Origins: origin.New(origin.Options{})})
	certificates := viewer.NewCertificates(viewer.CertificateOptions{
		Sites: server, Records: records.Certificates, Logger: quiet,
		Default: func(string) (*tls.Certificate, error) {
			return acme.ProofCertificate("default.example.org", "any certificate does")
		},
	})
	front := viewer.New(viewer.Options{Handler: server, Fast: server, Certificates: certificates, Logger: quiet})
	config, err := dns.Parse(fmt.Appendf(nil, `{"version": 1, "zones": [%q], "nameservers": ["ns.example.org"], "locations": {"TST50-P1": {"addresses": ["127.0.0.1"]}}}`, zone))
	if err != nil {
		t.Fatal(err)
	}
	answers := dns.New(dns.Options{
		Config: config, Distributions: records.Distributions, Challenges: records.Challenges, Logger: quiet,
		Healthy: func(string) bool { return true }, Region: func(string) string { return "" },
	})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	if i.closed {
		check(t, i.plain.Close())
	} else {
		running.Go(func() { check(t, front.Serve(i.plain, false)) })
	}
	running.Go(func() { check(t, front.Serve(i.secure, true)) })
	running.Go(func() { check(t, answers.Serve(ctx, i.ownUDP, i.ownTCP)) })
	t.Cleanup(func() {
		stop()
		check(t, front.Shutdown(context.Background()))
		running.Wait()
		certificates.Close()
		server.Close()
		check(t, objects.Close())
	})
	return server
}

func check(t *testing.T, err error) {
	if err != nil && !strings.Contains(err.Error(), "use of closed") {
		t.Error(err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// both listens at one port by UDP and TCP, which somebody may have for one of them.
func both(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if tcp, err := net.Listen("tcp", udp.LocalAddr().String()); err == nil {
			return udp, tcp
		}
		_ = udp.Close()
	}
	t.Fatal("there is no port that is free by UDP and TCP")
	return nil, nil
}

// pebble is Let's Encrypt's authority for tests. It counts the orders.
type pebble struct {
	*httptest.Server
	orders  atomic.Int64 // that it took
	refused atomic.Int64 // calls while it was down
	down    atomic.Bool
}

func newPebble(t *testing.T, i *internet, seconds uint64, blocked ...string) *pebble {
	t.Helper()
	logger := log.New(io.Discard, "", 0)
	if testing.Verbose() {
		logger = log.New(os.Stderr, "pebble ", 0)
	}
	store := db.NewMemoryStore()
	for _, name := range blocked {
		if err := store.AddBlockedDomain(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.AddExternalAccountKeyByID("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"); err != nil {
		t.Fatal(err)
	}
	issuer := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default", ValidityPeriod: seconds}})
	validator := va.New(logger, i.http.(*net.TCPAddr).Port, i.https.(*net.TCPAddr).Port, true, i.resolver, store)
	front := wfe.New(logger, store, validator, issuer, []string{"pebble.example.org"}, true, true, 1, 1)
	handler := front.Handler()
	p := &pebble{}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.down.Load() {
			p.refused.Add(1)
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		answer := &counted{ResponseWriter: w}
		handler.ServeHTTP(answer, r)
		if strings.HasPrefix(r.URL.Path, "/order-plz") && answer.status == http.StatusCreated { // not those with nonces that it rejects
			p.orders.Add(1)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// counted remembers the status of an answer.
type counted struct {
	http.ResponseWriter
	status int
}

func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (p *pebble) client(t *testing.T, i *internet, dir string) *acme.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(p.Certificate())
	c, err := acme.New(acme.Options{
		Directory: p.URL + wfe.DirectoryPath, KeyFile: filepath.Join(dir, "acme", "account.pem"), AgreeToTerms: true, Email: "ops@example.org",
		Binding: &acme.Binding{ID: "kid-1", Key: "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"},
		Roots:   roots, Resolver: i.resolver, HTTPPort: i.http.(*net.TCPAddr).Port, HTTPSPort: i.https.(*net.TCPAddr).Port,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// applied is a location that is where it says.
type applied struct{ server *edge.Server }

func (a applied) Applied() distribution.Revisions { return a.server.Applied() }

// connectACME is connect with an authority whose certificates live for seconds.
func connectACME(t *testing.T, seconds uint64, blocked ...string) (*sdk.Client, *distribution.Records, *internet, *pebble) {
	return connectInternet(t, newInternet(t), seconds, blocked...)
}

func connectInternet(t *testing.T, i *internet, seconds uint64, blocked ...string) (*sdk.Client, *distribution.Records, *internet, *pebble) {
	var p *pebble
	c, records := connectWith(t, func(o *acm.Options, dir string) {
		server := i.start(o.Records)
		p = newPebble(t, i, seconds, blocked...)
		o.ACME, o.Zone, o.Locations = p.client(t, i, dir), zone, applied{server}
		if testing.Verbose() {
			o.Logger = slog.Default()
		}
	})
	return c, records, i, p
}

// await waits until a certificate has a status.
func await(t *testing.T, c *sdk.Client, arn *string, want types.CertificateStatus) *types.CertificateDetail {
	t.Helper()
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		d, err := c.DescribeCertificate(t.Context(), &sdk.DescribeCertificateInput{CertificateArn: arn})
		if err != nil {
			t.Fatal(err)
		}
		if d.Certificate.Status == want {
			return d.Certificate
		}
		if time.Now().After(until) {
			t.Fatalf("the certificate is %s, not %s: %+v", d.Certificate.Status, want, d.Certificate)
		}
	}
}

// serve has a distribution show a certificate, and returns a function that looks at
// what a viewer is shown.
func serve(t *testing.T, records *distribution.Records, i *internet, arn, alias string) func() *x509.Certificate {
	t.Helper()
	d := distribution.Distribution{
		Format: distribution.Format, ID: "E1", ARN: "arn:aws:cloudfront::123456789012:distribution/E1", DomainName: "d111.cloudfront.net",
		Enabled: true, Aliases: []string{alias}, Certificate: distribution.Certificate{ARN: arn, MinimumProtocol: "TLSv1.2_2021"},
	}
	if _, err := records.Distributions.Put(t.Context(), d.ID, d); err != nil {
		t.Fatal(err)
	}
	return func() *x509.Certificate {
		for until := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			conn, err := tls.Dial("tcp", i.https.String(), &tls.Config{ServerName: alias, InsecureSkipVerify: true}) // a test of which one it is
			if err == nil {
				defer conn.Close()
				return conn.ConnectionState().PeerCertificates[0]
			}
			if time.Now().After(until) {
				t.Fatal(err)
			}
		}
	}
}

func TestAnACMEAuthorityIssuesByHTTPAndDNSAndViewersSeeIt(t *testing.T) {
	c, records, i, p := connectACME(t, 3600)
	made, err := c.RequestCertificate(t.Context(), &sdk.RequestCertificateInput{
		DomainName: sdkaws.String("shop.example.net"), SubjectAlternativeNames: []string{"*.shop.example.net", "www.example.net"},
		ValidationMethod: types.ValidationMethodDns, KeyAlgorithm: types.KeyAlgorithmEcPrime256v1,
	})
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is ordered before every name leads here: the one with a star does not.
	pending := await(t, c, made.CertificateArn, types.CertificateStatusPendingValidation)
	_, err = c.GetCertificate(t.Context(), &sdk.GetCertificateInput{CertificateArn: made.CertificateArn})
	servicetest.WantCode(t, err, "RequestInProgressException")
	if n := p.orders.Load(); n != 0 {
		t.Errorf("%d orders before names lead here", n)
	}
	for _, v := range pending.DomainValidationOptions {
		if *v.DomainName == "*.shop.example.net" {
			i.set(*v.ResourceRecord.Name, *v.ResourceRecord.Value)
		}
	}
	issued := await(t, c, made.CertificateArn, types.CertificateStatusIssued)
	if n := p.orders.Load(); n != 1 {
		t.Errorf("%d orders for one certificate", n)
	}
	if len(issued.SubjectAlternativeNames) != 3 || issued.DomainValidationOptions[1].ValidationStatus != types.DomainStatusSuccess {
		t.Errorf("issued %+v", issued)
	}
	shown := serve(t, records, i, *made.CertificateArn, "a.shop.example.net")()
	if err := shown.VerifyHostname("a.shop.example.net"); err != nil || !strings.Contains(shown.Issuer.CommonName, "Pebble") {
		t.Errorf("a viewer is shown a certificate of %s: %v", shown.Issuer, err)
	}
	for until := time.Now().Add(10 * time.Second); records.Challenges.Len() != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("challenges are still answered")
		}
	}
}

func TestAnACMEAuthorityIssuesByTLSWherePort80IsClosed(t *testing.T) {
	i := newInternet(t)
	i.closed = true
	c, records, i, p := connectInternet(t, i, 3600)
	made, err := c.RequestCertificate(t.Context(), &sdk.RequestCertificateInput{
		DomainName: sdkaws.String("Shop.example.net"), SubjectAlternativeNames: []string{"www.example.net"}, KeyAlgorithm: types.KeyAlgorithmEcPrime256v1,
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, c, made.CertificateArn, types.CertificateStatusIssued)
	if n := p.orders.Load(); n != 1 {
		t.Errorf("%d orders for one certificate", n)
	}
	if shown := serve(t, records, i, *made.CertificateArn, "shop.example.net")(); shown.VerifyHostname("www.example.net") != nil {
		t.Errorf("a viewer is shown a certificate of %v", shown.DNSNames)
	}
	for until := time.Now().Add(10 * time.Second); records.Challenges.Len() != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("challenges are still answered")
		}
	}
	conn, err := tls.Dial("tcp", i.https.String(), &tls.Config{ServerName: "shop.example.net", InsecureSkipVerify: true, NextProtos: []string{acme.ALPNProtocol}})
	if err == nil {
		_ = conn.Close()
		t.Error("proof is given when nobody asks for it any more")
	}
}

func TestARenewalHasTheSameARNAndViewersSeeIt(t *testing.T) {
	c, records, i, p := connectACME(t, 24)
	made, err := c.RequestCertificate(t.Context(), &sdk.RequestCertificateInput{DomainName: sdkaws.String("shop.example.net"), ValidationMethod: types.ValidationMethodDns})
	if err != nil {
		t.Fatal(err)
	}
	first := await(t, c, made.CertificateArn, types.CertificateStatusIssued)
	if first.RenewalEligibility != types.RenewalEligibilityIneligible || first.RenewalSummary != nil {
		t.Errorf("nothing shows the certificate, and it is %s with %v", first.RenewalEligibility, first.RenewalSummary)
	}
	shown := serve(t, records, i, *made.CertificateArn, "shop.example.net")
	before := shown()
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if now := shown(); !now.Equal(before) {
			if now.NotAfter.Before(before.NotAfter) || time.Now().After(before.NotAfter) {
				t.Errorf("renewed until %v, after one until %v", now.NotAfter, before.NotAfter)
			}
			break
		}
		if time.Now().After(until) {
			t.Fatalf("not renewed, after %d orders", p.orders.Load())
		}
	}
	d, err := c.DescribeCertificate(t.Context(), &sdk.DescribeCertificateInput{CertificateArn: made.CertificateArn})
	if err != nil || d.Certificate.RenewalSummary == nil || d.Certificate.RenewalEligibility != types.RenewalEligibilityEligible {
		t.Errorf("described %+v, %v", d, err)
	}
}

func TestWhatTheAuthorityDeniesFails(t *testing.T) {
	c, records, _, _ := connectACME(t, 3600, "denied.example.net")
	made, err := c.RequestCertificate(t.Context(), &sdk.RequestCertificateInput{DomainName: sdkaws.String("denied.example.net"), ValidationMethod: types.ValidationMethodDns})
	if err != nil {
		t.Fatal(err)
	}
	if d := await(t, c, made.CertificateArn, types.CertificateStatusFailed); d.FailureReason != types.FailureReasonDomainNotAllowed {
		t.Errorf("failed because of %s", d.FailureReason)
	}
	_, err = c.DeleteCertificate(t.Context(), &sdk.DeleteCertificateInput{CertificateArn: made.CertificateArn})
	servicetest.WantCode(t, err, "")
	if records.Certificates.Len() != 0 || records.Challenges.Len() != 0 {
		t.Error("edge locations have something of it")
	}
}

// cut is an authority that nothing is heard of any more once something is ordered.
type cut struct {
	acm.ACME
	ordered chan string
}

func (c cut) Finish(ctx context.Context, order string, _ []string, _ crypto.Signer, _ acme.Proof) (acme.Issued, error) {
	c.ordered <- order
	<-ctx.Done()
	return acme.Issued{}, ctx.Err()
}

// everywhere is locations that have all.
type everywhere struct{}

func (everywhere) Applied() distribution.Revisions {
	return distribution.Revisions{Challenges: math.MaxUint64}
}

func (c cut) Look(context.Context, string, string) string { return acme.HTTP01 }

func TestAnOrderGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	i := newInternet(t)
	p := newPebble(t, i, 3600)
	open := func(authority acm.ACME, locations func(*distribution.Records) acm.Locations) (*acm.Service, func()) {
		store, err := state.Open(t.Context(), state.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		records, err := distribution.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		s, err := acm.New(t.Context(), acm.Options{
			Store: store, Records: records, AccountID: "123456789012", Region: "eu-central-1", Logger: slog.New(slog.DiscardHandler), Zone: zone,
			Locations: locations(records), ACME: authority,
		})
		if err != nil {
			t.Fatal(err)
		}
		return s, func() {
			s.Close()
			check(t, store.Close())
		}
	}
	ordered := make(chan string, 1)
	before, end := open(cut{p.client(t, i, dir), ordered}, func(*distribution.Records) acm.Locations { return everywhere{} })
	made, err := before.RequestCertificate(t.Context(), &api.RequestCertificateInput{DomainName: sdkaws.String("shop.example.net"), KeyAlgorithm: api.KeyAlgorithmECPrime256v1})
	if err != nil {
		t.Fatal(err)
	}
	<-ordered
	end()

	after, end := open(p.client(t, i, dir), func(r *distribution.Records) acm.Locations { return applied{i.start(r)} })
	t.Cleanup(end)
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		d, err := after.DescribeCertificate(t.Context(), &api.DescribeCertificateInput{CertificateArn: made.CertificateArn})
		if err != nil {
			t.Fatal(err)
		}
		if d.Certificate.Status == api.CertificateStatusIssued {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("the certificate is %+v", d.Certificate)
		}
	}
	if n := p.orders.Load(); n != 1 {
		t.Errorf("%d orders for one certificate", n)
	}
}

func TestAnAuthorityThatIsDownIsAskedAgain(t *testing.T) {
	c, _, _, p := connectACME(t, 3600)
	p.down.Store(true)
	made, err := c.RequestCertificate(t.Context(), &sdk.RequestCertificateInput{DomainName: sdkaws.String("shop.example.net"), KeyAlgorithm: types.KeyAlgorithmEcPrime256v1})
	if err != nil {
		t.Fatal(err)
	}
	for p.refused.Load() == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	p.down.Store(false)
	await(t, c, made.CertificateArn, types.CertificateStatusIssued)
}

func TestNamesWithAStarNeedLapwingsDNS(t *testing.T) {
	c, _ := connectWith(t, func(o *acm.Options, _ string) { o.ACME = cut{} })
	_, err := c.RequestCertificate(t.Context(), &sdk.RequestCertificateInput{DomainName: sdkaws.String("*.example.net")})
	servicetest.WantCode(t, err, "InvalidParameterException")
}
