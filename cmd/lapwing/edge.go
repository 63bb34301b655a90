package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/spf13/pflag"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/edge"
	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/cffunction"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/geo"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
	"lapwing.dev/lapwing/internal/edge/location"
	"lapwing.dev/lapwing/internal/edge/origin"
	"lapwing.dev/lapwing/internal/edge/trigger"
	"lapwing.dev/lapwing/internal/edge/viewer"
	"lapwing.dev/lapwing/internal/gateway"
)

// edgeOptions are the flags of `lapwing up` that are about viewers.
type edgeOptions struct {
	http, https string
	allow       []string
	originCA    string
	geo         []string
	memoryMB    int
	diskMB      int
	quotas      string

	prefixes []netip.Prefix // of allow
}

// Sizes of the edge cache where the operator gives none, in MB.
const (
	defaultEdgeMemory = 256
	defaultEdgeDisk   = 4096
)

// The quotas of Lambda@Edge that functions are held to when they are associated.
const (
	quotasCurrent = "current"
	quotas2023    = "2023"
)

func (o *edgeOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.http, "edge-http", "", "`HOST:PORT` where viewers of distributions are served by HTTP (distributions' host names are served at --listen, too)")
	f.StringVar(&o.https, "edge-https", "", "`HOST:PORT` where viewers are served by HTTPS, HTTP/2 and, on UDP, HTTP/3")
	f.StringSliceVar(&o.allow, "origin-allow", nil, "`CIDR` of private addresses that origins of distributions may have (may be repeated); loopback is one where Lapwing listens on loopback only")
	f.StringVar(&o.originCA, "origin-ca", "", "`FILE` with certificates of further authorities that origins may be certified by")
	f.StringSliceVar(&o.geo, "geo-database", nil, "`FILE` that knows where viewers are: a database in MaxMind's format (.mmdb) or lines of NETWORK COUNTRY (may be repeated)")
	f.StringVar(&o.quotas, "edge-quotas", quotasCurrent, "quotas of Lambda@Edge, as of `WHEN`: current, or 2023 (viewer events: 128 MB, 5 s, 1 MB of code)")
	f.IntVar(&o.memoryMB, "edge-memory", defaultEdgeMemory, "`MB` of memory for objects of distributions")
	f.IntVar(&o.diskMB, "edge-disk", defaultEdgeDisk, "`MB` of the disk for objects of distributions")
}

func (o *edgeOptions) check(listen string) error {
	loopback := isLoopback(listen)
	for _, l := range []struct{ flag, address string }{{"--edge-http", o.http}, {"--edge-https", o.https}} {
		if l.address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(l.address); err != nil {
			return usageError{fmt.Errorf("%s %q: want HOST:PORT, e.g. 127.0.0.1:8080", l.flag, l.address)}
		}
		loopback = loopback && isLoopback(l.address)
	}
	for _, text := range o.allow {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return usageError{fmt.Errorf("--origin-allow %q: want a network, e.g. 10.0.0.0/8", text)}
		}
		o.prefixes = append(o.prefixes, p)
	}
	if loopback {
		o.prefixes = append(o.prefixes, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	}
	if o.quotas != quotasCurrent && o.quotas != quotas2023 {
		return usageError{fmt.Errorf("--edge-quotas %q: want current or 2023", o.quotas)}
	}
	if o.memoryMB < 1 || o.diskMB < 0 {
		return usageError{errors.New("--edge-memory and --edge-disk: want at least 1 MB of memory")}
	}
	return nil
}

// isLoopback tells whether an address can be reached from this host alone.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// edgeNode is the edge location of this process.
type edgeNode struct {
	records      *distribution.Records
	stores       *keyvalue.Stores
	lambda       *trigger.Lambda
	functions    *cffunction.Functions
	server       *edge.Server
	certificates *viewer.Certificates
	authority    *gateway.Authority
	own          *ownOrigins
	log          *edgeLog
}

// defaultLocation is the name of an edge location that the operator gives none.
const defaultLocation = "LPW50-P1"

// openEdge opens the edge location. Its listeners come with serveEdge.
func (s *server) openEdge(ctx context.Context) (err error) {
	n := &edgeNode{own: &ownOrigins{region: s.opts.region, domains: s.opts.domains, listener: newOwnListener()}}
	s.edge = n
	if n.records, err = distribution.Open(ctx, s.store); err != nil {
		return err
	}
	n.stores = keyvalue.NewStores(n.records.KeyValues)
	var packages trigger.Packages // the Lambda service is here
	if s.member != nil {
		if err := s.member.Prepare(s.store, n.records); err != nil {
			return err
		}
		packages = nodePackages{s.member}
	}
	o := s.opts.edge
	store, err := cache.Open(cache.Options{
		Dir: filepath.Join(s.opts.data, "edge-cache"), Memory: int64(o.memoryMB) << 20, Disk: int64(o.diskMB) << 20, Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return store.Close() })
	places, err := geo.Open(o.geo...)
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return places.Close() })
	roots, err := authorities("--origin-ca", o.originCA)
	if err != nil {
		return err
	}
	s.openEdgeFunctions(n, packages)
	signer := func(principal string) *originSigner {
		return &originSigner{principal: principal, credentials: s.issuer, region: s.opts.region, signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })}
	}
	n.log = newEdgeLog(s, n, signer(location.LogDelivery))
	n.server = edge.New(edge.Options{
		Log: n.log.take, Count: n.log.count, Functions: trigger.Runners{n.lambda, n.functions},
		Records: n.records, Cache: store, Geo: places, Logger: s.log, Location: s.location(), Tiers: s.tiers(), HandOver: s.opts.tiers.handOver, AltSvc: altSvc(o.https),
		Origins: origin.New(origin.Options{
			Allow: o.prefixes, Local: n.own.dial, RootCAs: roots,
			Sign: signer(location.CloudFront),
		}),
	})
	s.onClose(func(context.Context) error { n.server.Close(); return nil })
	if n.authority, err = gateway.OpenAuthority(filepath.Join(s.opts.data, authorityDir), s.opts.domains); err != nil {
		return err
	}
	n.certificates = viewer.NewCertificates(viewer.CertificateOptions{
		Sites: n.server, Records: n.records.Certificates, Default: n.authority.Certificate, Logger: s.log,
	})
	s.onClose(func(context.Context) error { n.certificates.Close(); return nil })
	return nil
}

// Applied tells how far this location is with its records. Real-time log
// configurations are read as they are when they are used.
func (n *edgeNode) Applied() distribution.Revisions {
	r := n.server.Applied()
	r.Certificates = n.certificates.Applied()
	r.Replicas, r.Functions = n.lambda.Applied(), n.functions.Applied()
	r.RealtimeLogs = n.records.RealtimeLogs.Mark().Revision // these two are looked up as they are
	r.KeyValues = n.records.KeyValues.Mark().Revision
	return r
}

// openEdgeFunctions opens what runs functions at the location of this process.
func (s *server) openEdgeFunctions(n *edgeNode, packages trigger.Packages) {
	n.lambda = trigger.NewLambda(trigger.Options{
		Account: s.issuer.AccountID(), Region: s.region(), Location: s.location(), Replicas: n.records.Replicas,
		Invoker: s.dispatcher, Images: s.images, Packages: packages, Logs: s.logs, Logger: s.log,
	})
	s.onClose(func(context.Context) error { n.lambda.Close(); return nil })
	n.functions = cffunction.New(cffunction.Options{Records: n.records.Functions, Stores: n.stores, Location: s.location(), Logs: s.logs, Logger: s.log})
	s.onClose(func(context.Context) error { n.functions.Close(); return nil })
}

// altSvc tells viewers of HTTP/3 at the port of HTTPS.
func altSvc(https string) string {
	_, port, err := net.SplitHostPort(https)
	if err != nil || port == "0" {
		return ""
	}
	return fmt.Sprintf(`h3=":%s"; ma=86400`, port)
}

// authorities are those of the system and of a file that a flag names; nil: the
// system's alone.
func authorities(flag, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's certificates: %w", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %s holds no certificates in PEM form", flag, file)
	}
	return pool, nil
}

// listenEdge binds what viewers reach the location by, before anything else is
// opened, so that a port that is taken is told at once.
func (s *server) listenEdge(ctx context.Context) error {
	o := s.opts.edge
	listen := func(flag, address string) (net.Listener, error) {
		if address == "" {
			return nil, nil
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("%w: choose another address with %s", err, flag)
		}
		s.onClose(func(context.Context) error {
			_ = l.Close() // closed already, if it ever served
			return nil
		})
		return l, nil
	}
	var err error
	if s.edgeHTTP, err = listen("--edge-http", o.http); err != nil {
		return err
	}
	if s.edgeHTTPS, err = listen("--edge-https", o.https); err != nil || s.edgeHTTPS == nil {
		return err
	}
	// HTTP/3 has the port of HTTPS.
	if s.edgeQUIC, err = new(net.ListenConfig).ListenPacket(ctx, "udp", s.edgeHTTPS.Addr().String()); err != nil {
		return fmt.Errorf("%w: choose another address with --edge-https", err)
	}
	s.onClose(func(context.Context) error {
		_ = s.edgeQUIC.Close()
		return nil
	})
	return nil
}

// serveEdge starts the listeners for viewers, and those by which the location
// itself reaches Lapwing's buckets and function URLs.
func (s *server) serveEdge(gw http.Handler) error {
	s.listen(gw, s.edge.own.listener, nil)
	// The last logs go by this listener.
	s.onClose(func(context.Context) error { s.edge.log.close(); return nil })

	front := viewer.New(viewer.Options{
		Handler: s.edge.server, Fast: s.edge.server, Certificates: s.edge.certificates, Logger: s.log, Refusal: edge.Refusal,
	})
	s.onClose(front.Shutdown)
	serve := func(f func() error) { go func() { s.failed <- f() }() }
	if l := s.edgeHTTP; l != nil {
		serve(func() error { return front.Serve(l, false) })
	}
	if l := s.edgeHTTPS; l != nil {
		serve(func() error { return front.Serve(l, true) })
		serve(func() error { return front.ServeQUIC(s.edgeQUIC) })
	}
	return nil
}

// withEdge adds the certificates of distributions to those of the endpoint.
func (n *edgeNode) withEdge(config *tls.Config) *tls.Config {
	viewers := n.certificates.TLS()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if _, ok := n.server.Site(hello.ServerName); ok {
			return viewers.GetConfigForClient(hello)
		}
		return nil, nil
	}
	return config
}

// ownOrigins reaches the buckets and function URLs of this Lapwing, by the names
// that they have on AWS.
type ownOrigins struct {
	region  string
	domains []string

	listener *ownListener // of the endpoint
}

// dial implements origin.Options.Local.
func (o *ownOrigins) dial(host string) (origin.Dial, bool) {
	if !o.ours(strings.ToLower(host)) {
		return nil, false
	}
	return o.listener.dial, true
}

// ours tells whether a host is a bucket's or a function URL's of our Region, or of
// none.
func (o *ownOrigins) ours(host string) bool {
	if rest, ok := strings.CutSuffix(host, ".amazonaws.com"); ok {
		for _, end := range []string{".s3", ".s3." + o.region, ".s3.dualstack." + o.region} {
			if strings.HasSuffix(rest, end) {
				return true
			}
		}
		return false
	}
	_, rest, ok := strings.Cut(host, ".lambda-url."+o.region+".")
	if !ok {
		return false
	}
	if rest == "on.aws" || rest == "localhost" {
		return true
	}
	for _, d := range o.domains {
		if rest == strings.ToLower(d) {
			return true
		}
	}
	return false
}

// originAuthorizer lets CloudFront, when it asks an S3 origin for a viewer, read
// objects and nothing else, whatever methods a behaviour allows: on AWS the
// bucket's policy says what it may, and policies are not evaluated yet. Who
// delivers logs may put objects and records into streams, and nothing else.
type originAuthorizer struct{ gateway.PermitAccount }

// Authorize implements gateway.Authorizer.
func (a originAuthorizer) Authorize(ctx context.Context, r *aws.Request) error {
	op := r.Service + ":" + r.Operation
	denied := false
	switch r.Caller.ARN {
	case location.CloudFront:
		denied = op != "s3:GetObject" && op != "s3:HeadObject"
	case location.LogDelivery:
		denied = op != "s3:PutObject" && op != "kinesis:PutRecords"
	}
	if denied {
		return &aws.Error{Code: "AccessDenied", Status: http.StatusForbidden, Message: "Access Denied"}
	}
	return a.PermitAccount.Authorize(ctx, r)
}

// Lives of the credentials that origins' requests are signed with.
const (
	signerLife    = time.Hour
	signerRenewal = 10 * time.Minute
)

// originSigner signs requests to origins as a principal, CloudFront or
// LogDelivery.
type originSigner struct {
	principal   string
	credentials issuer
	region      string
	signer      *v4.Signer

	mu      sync.Mutex
	session credentials.Session
}

// Sign implements origin.Signer.
func (s *originSigner) Sign(ctx context.Context, r *http.Request, service, payloadHash string) error {
	c, err := s.retrieve()
	if err != nil {
		return err
	}
	if service == "s3" {
		r.Header.Set("X-Amz-Content-Sha256", payloadHash)
	}
	return s.signer.SignHTTP(ctx, c, r, payloadHash, service, s.region, time.Now(), func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = service == "s3"
	})
}

func (s *originSigner) retrieve() (awssdk.Credentials, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Until(s.session.Expiration) < signerRenewal {
		id := aws.Identity{AccountID: s.credentials.AccountID(), ARN: s.principal, UserID: s.principal}
		session, err := s.credentials.IssueFor(id, signerLife)
		if err != nil {
			return awssdk.Credentials{}, err
		}
		s.session = session
	}
	return awssdk.Credentials{AccessKeyID: s.session.AccessKeyID, SecretAccessKey: s.session.SecretAccessKey, SessionToken: s.session.SessionToken}, nil
}
