package location

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/tier"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/metrics"
	"lapwing.dev/lapwing/internal/state"
)

// patience is how long a test waits for what must happen on any machine.
const patience = 2 * time.Minute

// testCore is a core with everything that locations ask of it.
type testCore struct {
	*Core
	t         *testing.T
	dir       string
	address   string
	store     *state.Store
	records   *distribution.Records
	authority *cluster.Authority
	stop      func()

	mu       sync.Mutex
	packages map[string][]byte
	logs     map[string][]string // by group and stream
	issued   int
	counted  map[string]uint64 // sequence numbers of metrics, by source and id
	sum      float64           // of all metrics
	lose     int               // how many answers to metrics get lost
}

type closer struct{ *bytes.Reader }

func (closer) Close() error { return nil }

func (c *testCore) OpenPackage(digest string) (io.ReadSeekCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.packages[digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return closer{bytes.NewReader(b)}, nil
}

func (c *testCore) Issue(role, session string, ttl time.Duration) (credentials.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.issued++
	return credentials.Session{AccessKeyID: "ASIA", SecretAccessKey: role, SessionToken: session, Expiration: time.Now().Add(ttl)}, nil
}

func (c *testCore) IssueFor(user aws.Identity, ttl time.Duration) (credentials.Session, error) {
	return c.Issue(user.ARN, "", ttl)
}

func (c *testCore) ServeFrom(region string, w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, region+" "+r.Method+" "+r.Host+" "+r.RequestURI+" "+r.Header.Get(awsHeader)+r.Header.Get("Authorization")+" "+r.Header.Get("X-Forwarded-For"))
}

func (c *testCore) Append(group, stream string, events []logstore.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := group + " " + stream
	for _, e := range events {
		c.logs[key] = append(c.logs[key], e.Message)
	}
	return nil
}

// PutOnce implements Metrics. It fails once it has kept what it is given, as if the
// answer was lost, as often as told.
func (c *testCore) PutOnce(_ context.Context, source, id string, sequence uint64, data []metrics.Datum) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key := source + " " + id; c.counted[key] < sequence {
		c.counted[key] = sequence
		for _, d := range data {
			c.sum += d.Set.Sum
		}
	}
	if c.lose--; c.lose >= 0 {
		return errors.New("the answer is lost")
	}
	return nil
}

func (c *testCore) total() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sum
}

func (c *testCore) logged(key string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.logs[key]...)
}

func newCore(t *testing.T) *testCore {
	c := &testCore{t: t, dir: t.TempDir(), packages: map[string][]byte{}, logs: map[string][]string{}, counted: map[string]uint64{}}
	c.start("127.0.0.1:0", "127.0.0.1:0", 0)
	t.Cleanup(func() { c.stop() })
	return c
}

func (c *testCore) start(listen, leaves string, away time.Duration) {
	c.t.Helper()
	var err error
	if c.authority, err = cluster.OpenAuthority(filepath.Join(c.dir, "nodes")); err != nil {
		c.t.Fatal(err)
	}
	node, err := c.authority.Node(cluster.Identity{Role: cluster.Core, Name: "core"})
	if err != nil {
		c.t.Fatal(err)
	}
	c.store, err = state.Open(c.t.Context(), state.Options{Dir: c.dir, Hub: &state.Hub{
		Listen: leaves, TLS: node.Server(false), Leaf: func(cert *x509.Certificate) (string, error) { return c.Member(cert) },
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	if c.records, err = distribution.Open(c.t.Context(), c.store); err != nil {
		c.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.Default()
	}
	c.Core, err = OpenCore(c.t.Context(), CoreOptions{
		Store: c.store, Records: c.records, Authority: c.authority, Packages: c, Credentials: c, Logs: c, Metrics: c, AccountID: "123456789012", Region: "us-east-1", Logger: log, Away: away,
		AWS: c, Self: tier.Place{Name: "IAD89-P1", Region: "us-east-1", Core: true, Regional: true},
		Peers: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the core") }),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		c.t.Fatal(err)
	}
	c.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- node.Serve(ctx, cluster.ServerOptions{Listener: l, Handler: c.Handler(), Joining: true, Logger: log})
	}()
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, c.store.Close()); err != nil {
			c.t.Error(err)
		}
	})
}

func (c *testCore) token(name string) string {
	c.t.Helper()
	t, err := c.Token(c.t.Context(), name, time.Hour)
	if err != nil {
		c.t.Fatal(err)
	}
	return t.String()
}

// testNode is a location that applies what it mirrors at once.
type testNode struct {
	*Node
	store   *state.Store
	records *distribution.Records
	stop    func()
}

func (n *testNode) revisions() distribution.Revisions {
	return distribution.Revisions{
		Distributions: n.records.Distributions.Mark().Revision, Certificates: n.records.Certificates.Mark().Revision,
		Functions: n.records.Functions.Mark().Revision, Replicas: n.records.Replicas.Mark().Revision,
		Invalidations: n.records.Invalidations.Mark().Revision, RealtimeLogs: n.records.RealtimeLogs.Mark().Revision,
		Challenges: n.records.Challenges.Mark().Revision,
	}
}

func startNode(t *testing.T, dir, core, token string, change ...func(*StartOptions)) *testNode {
	t.Helper()
	o := NodeOptions{Dir: filepath.Join(dir, "edge"), Region: "eu-central-1", Version: "test", Core: core, Token: token, Logger: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		o.Logger = slog.Default()
	}
	node, err := OpenNode(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{Node: node}
	if n.store, err = state.Open(t.Context(), state.Options{Dir: dir, Leaf: node.Leaf()}); err != nil {
		t.Fatal(err)
	}
	if n.records, err = distribution.Open(t.Context(), n.store); err != nil {
		t.Fatal(err)
	}
	if err := n.Prepare(n.store, n.records); err != nil {
		t.Fatal(err)
	}
	start := StartOptions{Applied: n.revisions}
	for _, f := range change {
		f(&start)
	}
	n.Start(start)
	n.stop = sync.OnceFunc(func() {
		n.Stop()
		if err := errors.Join(n.Close(), n.store.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func eventually(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

func (c *testCore) distribute(id, comment string) uint64 {
	c.t.Helper()
	item, err := c.records.Distributions.Put(c.t.Context(), id, distribution.Distribution{ID: id, DomainName: comment})
	if err != nil {
		c.t.Fatal(err)
	}
	return item.Revision
}

func (c *testCore) replica(name string, code []byte) distribution.LambdaReplica {
	c.t.Helper()
	sum := sha256.Sum256(code)
	r := distribution.LambdaReplica{
		ARN: "arn:aws:lambda:us-east-1:123456789012:function:" + name + ":1", Name: name, Version: "1",
		Role: "arn:aws:iam::123456789012:role/" + name, Code: hex.EncodeToString(sum[:]), Size: int64(len(code)),
	}
	c.mu.Lock()
	c.packages[r.Code] = code
	c.mu.Unlock()
	if _, err := c.records.Replicas.Put(c.t.Context(), r.ARN, r); err != nil {
		c.t.Fatal(err)
	}
	return r
}

func TestLocationGetsRecordsAndTheCoreKnowsWhatItHas(t *testing.T) {
	c := newCore(t)
	n := startNode(t, t.TempDir(), c.address, c.token("FRA56-P1"))
	revision := c.distribute("E1", "one")
	eventually(t, "applied", func() bool { return c.Applied().Distributions >= revision })
	if d, ok := n.records.Distributions.Get("E1"); !ok || d.Value.DomainName != "one" {
		t.Errorf("the location has %v, %v", d, ok)
	}
	eventually(t, "current", func() bool {
		all := c.Locations()
		return len(all) == 1 && all[0].Name == "FRA56-P1" && all[0].State == StateCurrent && all[0].Region == "eu-central-1" && all[0].Behind == 0 && all[0].LagSeconds == 0
	})
}

func TestPackageIsFetchedVerifiedAndKept(t *testing.T) {
	c := newCore(t)
	code := bytes.Repeat([]byte("some code "), 100_000)
	r := c.replica("f", code)
	dir := t.TempDir()
	n := startNode(t, dir, c.address, c.token("L1"))
	f, size, err := n.OpenPackage(t.Context(), r.Code)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	f.Close()
	if err != nil || size != int64(len(code)) || !bytes.Equal(got, code) {
		t.Fatalf("got %d bytes of %d, %v", len(got), size, err)
	}

	other := sha256.Sum256([]byte("other"))
	c.mu.Lock()
	c.packages[hex.EncodeToString(other[:])] = []byte("other")
	c.mu.Unlock()
	if _, _, err := n.OpenPackage(t.Context(), hex.EncodeToString(other[:])); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a package of no function at edge locations: %v, want a refusal", err)
	}
	wrong := c.replica("wrong", []byte("right"))
	c.mu.Lock()
	c.packages[wrong.Code] = []byte("wrong")
	c.mu.Unlock()
	if _, _, err := n.OpenPackage(t.Context(), wrong.Code); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("a package with another digest: %v", err)
	}

	c.stop()
	n.stop()
	n = startNode(t, dir, "", "")
	if f, _, err := n.OpenPackage(t.Context(), r.Code); err != nil {
		t.Errorf("without the core: %v", err)
	} else {
		f.Close()
	}
}

func TestPackageGoesWithTheLastFunctionThatHasIt(t *testing.T) {
	c := newCore(t)
	a, b := c.replica("a", []byte("shared")), c.replica("b", []byte("shared"))
	n := startNode(t, t.TempDir(), c.address, c.token("L1"))
	if f, _, err := n.OpenPackage(t.Context(), a.Code); err != nil {
		t.Fatal(err)
	} else {
		f.Close()
	}
	has := func() bool {
		f, err := n.packages.Open(state.Digest(a.Code))
		if err == nil {
			f.Close()
		}
		return err == nil
	}
	remove := func(arn string) {
		item, _ := c.records.Replicas.Get(arn)
		if err := c.records.Replicas.Delete(t.Context(), arn, item.Revision); err != nil {
			t.Fatal(err)
		}
		revision := c.records.Replicas.Mark().Revision
		eventually(t, "applied", func() bool { return n.records.Replicas.Mark().Revision >= revision })
	}
	remove(a.ARN)
	time.Sleep(100 * time.Millisecond)
	if !has() {
		t.Error("a package went that a function still has")
	}
	remove(b.ARN)
	eventually(t, "gone", func() bool { return !has() })
}

func TestCredentialsOutliveTheCore(t *testing.T) {
	c := newCore(t)
	r := c.replica("f", []byte("code"))
	dir := t.TempDir()
	n := startNode(t, dir, c.address, c.token("L1"))
	name := credentials.SessionName(r.LocalName())
	eventually(t, "credentials come with the record", func() bool {
		n.roles.mu.Lock()
		defer n.roles.mu.Unlock()
		return len(n.roles.held) == 2 // and CloudFront's own
	})
	if _, err := n.Issue("arn:aws:iam::123456789012:role/other", "x", time.Hour); err == nil {
		t.Error("a location may act as a role of no function at edge locations")
	}
	c.stop()
	n.stop()
	n = startNode(t, dir, "", "")
	s, err := n.Issue(r.Role, name, time.Hour)
	if err != nil || s.SecretAccessKey != r.Role {
		t.Errorf("without the core: %v, %v", s, err)
	}
	if _, err := n.IssueFor(aws.Identity{ARN: CloudFront}, time.Hour); err != nil {
		t.Errorf("CloudFront's own credentials without the core: %v", err)
	}
}

func TestLogsReachTheCoreOnceItIsThere(t *testing.T) {
	c := newCore(t)
	dir := t.TempDir()
	n := startNode(t, dir, c.address, c.token("L1"))
	put := func(message string) {
		if err := n.Append("/aws/lambda/us-east-1.f", "s", []logstore.Event{{Time: time.Now(), Message: message}}); err != nil {
			t.Fatal(err)
		}
	}
	key := "/aws/lambda/us-east-1.f s"
	put("one")
	eventually(t, "one", func() bool { return strings.Join(c.logged(key), " ") == "one" && n.spool.Size() == 0 })
	address, leaf := c.address, c.store.HubAddress().String()
	c.stop()
	put("two")
	put("three")
	n.stop()
	n = startNode(t, dir, "", "")
	put("four")
	c.start(address, leaf, 0)
	eventually(t, "all", func() bool { return len(c.logged(key)) >= 4 })
	if got := strings.Join(c.logged(key), " "); got != "one two three four" {
		t.Errorf("the core has %q", got)
	}

	// What the core refuses does not hold up the rest.
	if err := n.Append("/aws/lambda/other", "s", []logstore.Event{{Message: "no"}}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * spoolEvery)
	put("five")
	eventually(t, "five", func() bool { return strings.HasSuffix(strings.Join(c.logged(key), " "), "five") })
	if got := c.logged("/aws/lambda/other s"); got != nil {
		t.Errorf("a group that edge locations do not have has %v", got)
	}
}

func TestFullSpoolDropsTheOldestAndTells(t *testing.T) {
	s, err := openSpool(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.max = 3 * spoolSegment
	message := strings.Repeat("x", 64<<10)
	for range 100 {
		if err := s.add(logBatch{Group: "g", Stream: "s", Events: []logstore.Event{{Message: message}}}); err != nil {
			t.Fatal(err)
		}
	}
	if s.Size() > s.max+spoolSegment {
		t.Errorf("it holds %d bytes, more than %d", s.Size(), s.max)
	}
	var got, told int
	if err := s.flush(t.Context(), func(_ context.Context, batches []logBatch) error {
		for _, b := range batches {
			for _, e := range b.Events {
				if strings.Contains(e.Message, "were dropped") {
					told++
				} else {
					got++
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got == 0 || got >= 100 || told != 1 || s.Size() != 0 {
		t.Errorf("%d of 100 events came, %d lines told of the rest, %d bytes stay", got, told, s.Size())
	}
}

func TestAWSRequestsPassUnchanged(t *testing.T) {
	c := newCore(t)
	n := startNode(t, t.TempDir(), c.address, c.token("L1"))
	server := httptest.NewServer(n.AWS())
	defer server.Close()
	req, err := http.NewRequest("PUT", server.URL+"/a%2Fb/c%20d?x=%2F&y", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "bucket.s3.amazonaws.com"
	req.Header.Set("Authorization", "signature")
	req.Header.Set("X-Forwarded-For", "198.51.100.7")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if want := "eu-central-1 PUT bucket.s3.amazonaws.com /a%2Fb/c%20d?x=%2F&y signature 198.51.100.7"; err != nil || string(b) != want {
		t.Errorf("the core saw %q, want %q (%v)", b, want, err)
	}
}

func TestTokensAreForOneLocationOnce(t *testing.T) {
	c := newCore(t)
	token := c.token("L1")
	dir := t.TempDir()
	n := startNode(t, dir, c.address, token)
	n.stop()
	n = startNode(t, dir, c.address, token) // the same location, again
	if _, err := OpenNode(t.Context(), NodeOptions{Dir: t.TempDir(), Core: c.address, Token: token, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "used") {
		t.Errorf("a second location with the token: %v", err)
	}
	if _, err := OpenNode(t.Context(), NodeOptions{Dir: t.TempDir(), Core: c.address, Token: cluster.NewToken("L2", c.authority.Fingerprint()).String(), Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("a token that nobody made was taken")
	}
	stranger := cluster.NewToken("L2", strings.Repeat("0", 64)).String()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := OpenNode(ctx, NodeOptions{Dir: t.TempDir(), Core: c.address, Token: stranger, Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a location joined a core that its token is not of: %v", err)
	}
	// Who joins again under a name takes its place.
	second := startNode(t, t.TempDir(), c.address, c.token("L1"))
	revision := c.distribute("E1", "one")
	eventually(t, "the second has it", func() bool { return second.records.Distributions.Mark().Revision >= revision })
	if err := n.call(t.Context(), pathReport, n.report(), new(answer)); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("the first is told %v", err)
	}
}

func TestRemovedLocationIsRefusedAndNotWaitedFor(t *testing.T) {
	c := newCore(t)
	n := startNode(t, t.TempDir(), c.address, c.token("L1"))
	revision := c.distribute("E1", "one")
	eventually(t, "applied", func() bool { return c.Applied().Distributions >= revision })
	o, err := NewOperator(c.authority, c.address)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if all, err := o.Locations(t.Context()); err != nil || len(all) != 1 {
		t.Fatalf("locations: %v, %v", all, err)
	}
	if err := o.Remove(t.Context(), "L1"); err != nil {
		t.Fatal(err)
	}
	c.distribute("E1", "two")
	if got := c.Applied().Distributions; got != ^uint64(0) {
		t.Errorf("with no location left, applied is %d", got)
	}
	time.Sleep(time.Second)
	if d, _ := n.records.Distributions.Get("E1"); d.Value.DomainName != "one" {
		t.Errorf("a location that was removed was told %v", d.Value.DomainName)
	}
	if err := o.Remove(t.Context(), "L1"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("removed twice: %v", err)
	}
}

func TestLocationsMayNotDoWhatOperatorsDo(t *testing.T) {
	c := newCore(t)
	n := startNode(t, t.TempDir(), c.address, c.token("L1"))
	o := &Operator{n.Identity().Transport(cluster.Core), c.address}
	defer o.Close()
	if _, err := o.Token(t.Context(), "L2", time.Hour); err == nil {
		t.Error("a location made a token")
	}
	if err := o.Remove(t.Context(), "L1"); err == nil {
		t.Error("a location removed one")
	}
	anonymous := &Operator{cluster.JoiningTransport(c.authority.Fingerprint()), c.address}
	defer anonymous.Close()
	if _, err := anonymous.Locations(t.Context()); err == nil {
		t.Error("somebody without a certificate was told of the locations")
	}
}

func TestNobodyWaitsForALocationThatIsAway(t *testing.T) {
	c := &testCore{t: t, dir: t.TempDir(), packages: map[string][]byte{}, logs: map[string][]string{}, counted: map[string]uint64{}}
	c.start("127.0.0.1:0", "127.0.0.1:0", 2*time.Second)
	t.Cleanup(func() { c.stop() })
	dir := t.TempDir()
	n := startNode(t, dir, c.address, c.token("L1"))
	first := c.distribute("E1", "one")
	eventually(t, "applied", func() bool { return c.Applied().Distributions >= first })
	n.stop()
	second := c.distribute("E1", "two")
	// On a busy machine it may be away by the time that the core is asked: then nobody
	// waits, rightly.
	if got := c.Applied().Distributions; got >= second && c.Locations()[0].State != StateAway {
		t.Errorf("applied is %d while a location has not got %d", got, second)
	}
	eventually(t, "away", func() bool { return c.Applied().Distributions >= second && c.Locations()[0].State == StateAway })
	n = startNode(t, dir, "", "")
	eventually(t, "back", func() bool { return c.Locations()[0].State == StateCurrent })
	if d, _ := n.records.Distributions.Get("E1"); d.Value.DomainName != "two" {
		t.Errorf("it has %q", d.Value.DomainName)
	}
}
