package edge

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/accesslog"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/tier"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

// network is several locations that serve the same distribution from one origin and
// reach each other over HTTP/2.
type network struct {
	*location // with the origin
	at        map[string]*location
	peers     map[string]*httptest.Server

	mu     sync.Mutex
	places []tier.Place
	asked  []string // the methods by which locations were asked by others, and their names
}

// whoWasAsked returns the methods and names since it was last called.
func (n *network) whoWasAsked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = nil
	return asked
}

// newNetwork makes locations of these names, Regions and tiers.
func newNetwork(t *testing.T, handler http.Handler, places []tier.Place, options ...option) *network {
	t.Helper()
	n := &network{at: map[string]*location{}, peers: map[string]*httptest.Server{}}
	n.location = newLocation(t, handler, append(slices.Clone(options), n.option(places[0]))...)
	n.join(places[0], n.location)
	for _, p := range places[1:] {
		l := &location{t: t, origin: n.origin, store: n.store, record: n.record, d: n.d}
		d := &distribution.Distribution{Behaviours: slices.Clone(n.d.Behaviours)} // the options have changed it
		l.serve(d, append(slices.Clone(options), n.option(p))...)
		n.join(p, l)
	}
	return n
}

// join lets the others reach a location.
func (n *network) join(p tier.Place, l *location) {
	name, peers := p.Name, l.server.Peers()
	peer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		n.asked = append(n.asked, r.Method+" "+name)
		n.mu.Unlock()
		peers.ServeHTTP(w, r)
	}))
	peer.EnableHTTP2 = true
	peer.StartTLS()
	l.t.Cleanup(peer.Close)
	n.at[name], n.peers[name] = l, peer
	p.Address = peer.Listener.Addr().String()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.places = append(n.places, p)
}

// option gives a location the network.
func (n *network) option(self tier.Place) option {
	return func(o *Options, _ *distribution.Distribution) {
		o.Location = self.Name
		o.Tiers = tier.New(tier.Options{
			Self: self, Logger: quiet(),
			Others: func() []tier.Place {
				n.mu.Lock()
				defer n.mu.Unlock()
				return slices.Clone(n.places)
			},
			Transport: func(p tier.Place) http.RoundTripper { return n.peers[p.Name].Client().Transport },
		})
	}
}

// logged returns the first record, which comes when the viewer has his answer.
func (l *location) logged() *accesslog.Record {
	for {
		l.mu.Lock()
		if len(l.logs) > 0 {
			defer l.mu.Unlock()
			return l.logs[0]
		}
		l.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
}

// shielded gives the distribution's origins a shield in a Region.
func shielded(region string) option {
	return with(func(d *distribution.Distribution) {
		for i := range d.Origins {
			d.Origins[i].ShieldRegion = region
		}
	})
}

// two are a shield and two locations below it.
func two() []tier.Place {
	return []tier.Place{
		{Name: "IAD89-P1", Region: "us-east-1", Regional: true, Core: true},
		{Name: "FRA56-P1", Region: "eu-central-1"},
		{Name: "LHR61-P1", Region: "eu-west-2"},
	}
}

func TestSimultaneousMissesAtTwoLocationsAreOneRequestToTheOrigin(t *testing.T) {
	arrived, release := make(chan struct{}, 16), make(chan struct{})
	n := newNetwork(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "hello")
	}), two(), shielded("us-east-1"))
	var wg sync.WaitGroup
	for name := range n.at {
		for range 4 {
			wg.Go(func() {
				if r := n.at[name].get("/a"); r.StatusCode != 200 || r.body != "hello" || r.Header.Get("X-Amz-Cf-Pop") != name {
					t.Errorf("%s: %d %q from %s", name, r.StatusCode, r.body, r.Header.Get("X-Amz-Cf-Pop"))
				}
			})
		}
	}
	<-arrived
	time.Sleep(200 * time.Millisecond) // for the others to get there, if they do
	close(release)
	wg.Wait()
	if got := n.requests.Load(); got != 1 {
		t.Errorf("%d requests to the origin, want 1", got)
	}
	for name := range n.at {
		if r := n.at[name].get("/a"); r.cache() != "Hit" || r.Header.Get("Age") == "" {
			t.Errorf("%s: then %q, Age %q", name, r.cache(), r.Header.Get("Age"))
		}
	}
}

func TestAMissThatTheShieldHasIsAHit(t *testing.T) {
	n := newNetwork(t, answers(200, "hello", "Cache-Control", "max-age=60", "Etag", `"1"`), two(), shielded("us-east-1"))
	n.expect(n.at["FRA56-P1"].get("/a"), 200, "Miss", 1)
	n.expect(n.at["LHR61-P1"].get("/a"), 200, "Hit", 1)
	if r := n.at["LHR61-P1"].logged(); r.Result != "Hit" || r.Detail != "OriginShieldHit" {
		t.Errorf("logged: %+v", r)
	}
}

func TestWithoutItsShieldALocationAsksTheOrigin(t *testing.T) {
	n := newNetwork(t, answers(200, "hello", "Cache-Control", "max-age=60"), two(), shielded("us-east-1"))
	n.peers["IAD89-P1"].Close()
	n.expect(n.at["FRA56-P1"].get("/a"), 200, "Miss", 1)
	n.expect(n.at["FRA56-P1"].get("/a"), 200, "Hit", 1)
	n.expect(n.at["LHR61-P1"].get("/a"), 200, "Miss", 2)
}

func TestWhatIsNotCachedBypassesTheTiers(t *testing.T) {
	n := newNetwork(t, echo, two(), shielded("us-east-1"), with(func(d *distribution.Distribution) {
		d.Behaviours[0].AllowedMethods = []string{"GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"}
		d.Behaviours = append([]distribution.Behaviour{d.Behaviours[0]}, d.Behaviours[0])
		d.Behaviours[0].Pattern, d.Behaviours[0].TTL = "/dynamic", distribution.TTL{}
	}))
	l := n.at["FRA56-P1"]
	for _, method := range []string{"OPTIONS", "PUT", "POST", "PATCH", "DELETE"} {
		if r := l.do(method, "/a", nil); r.StatusCode != 200 {
			t.Errorf("%s: %d", method, r.StatusCode)
		}
	}
	l.get("/dynamic")
	if got := n.whoWasAsked(); len(got) != 0 {
		t.Errorf("asked: %v", got)
	}
	l.do("HEAD", "/b", nil)
	l.get("/b")
	if got := n.whoWasAsked(); !slices.Equal(got, []string{"HEAD IAD89-P1", "GET IAD89-P1"}) {
		t.Errorf("asked: %v", got)
	}
}

func TestTheOriginSeesOneLocationOfCloudFront(t *testing.T) {
	n := newNetwork(t, echo, two(), shielded("us-east-1"), with(func(d *distribution.Distribution) {
		d.Behaviours[0].Key.Query = distribution.Choice{Mode: distribution.ModeAll}
		d.Behaviours[0].Key.Headers = distribution.Choice{Mode: distribution.ModeOnly, Names: []string{"host", "x-mine"}}
		d.Behaviours[0].Key.Cookies = distribution.Choice{Mode: distribution.ModeOnly, Names: []string{"a"}}
		d.Behaviours[0].AcceptGzip = true
	}))
	header := http.Header{"X-Mine": {"1"}, "Cookie": {"a=1; b=2"}, "Accept-Encoding": {"deflate, gzip"}, "X-Forwarded-For": {"192.0.2.1"}}
	through := n.at["FRA56-P1"].do("GET", "/x%2Fy?b=2&a=%31", header)
	direct := n.at["IAD89-P1"].do("GET", "/x%2Fy?b=2&a=%31&other", header)
	if n.requests.Load() != 2 {
		t.Fatalf("%d requests to the origin", n.requests.Load())
	}
	lines := func(r *reply) []string {
		var kept []string
		for line := range strings.Lines(r.body) {
			if !strings.HasPrefix(line, "Via:") && !strings.HasPrefix(line, "X-Amz-Cf-Id:") {
				kept = append(kept, strings.ReplaceAll(strings.TrimSpace(line), "&other", ""))
			}
		}
		return kept
	}
	if got, want := lines(through), lines(direct); !slices.Equal(got, want) {
		t.Errorf("through a shield the origin gets\n%s\nand without\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Count(through.body, "(CloudFront)") != 1 || !strings.Contains(through.body, through.Header.Get("X-Amz-Cf-Id")) {
		t.Errorf("the origin gets\n%s", through.body)
	}
}

// three are a location, the regional edge cache of its Region and a shield elsewhere.
func three() []tier.Place {
	return []tier.Place{
		{Name: "FRA56-P1", Region: "eu-central-1"},
		{Name: "FRA2-C1", Region: "eu-central-1", Regional: true},
		{Name: "IAD89-P1", Region: "us-east-1", Regional: true, Core: true},
	}
}

func TestAMissGoesByTheRegionalCacheToTheShield(t *testing.T) {
	n := newNetwork(t, answers(200, "hello", "Cache-Control", "max-age=60"), three(), shielded("us-east-1"))
	n.expect(n.at["FRA56-P1"].get("/a"), 200, "Miss", 1)
	if got, want := n.whoWasAsked(), []string{"GET FRA2-C1", "GET IAD89-P1"}; !slices.Equal(got, want) {
		t.Errorf("asked: %v, want %v", got, want)
	}
	for name := range n.at {
		n.expect(n.at[name].get("/a"), 200, "Hit", 1)
	}
	n.peers["FRA2-C1"].Close()
	n.expect(n.at["FRA56-P1"].get("/b"), 200, "Miss", 2)
	if got, want := n.whoWasAsked(), []string{"GET IAD89-P1"}; !slices.Equal(got, want) {
		t.Errorf("without the regional cache, asked: %v, want %v", got, want)
	}
}

func TestRegionalCachesShareTheirRegionsObjects(t *testing.T) {
	n := newNetwork(t, answers(200, "hello", "Cache-Control", "max-age=60"), []tier.Place{
		{Name: "FRA56-P1", Region: "eu-central-1"}, {Name: "FRA2-C1", Region: "eu-central-1", Regional: true}, {Name: "FRA2-C2", Region: "eu-central-1", Regional: true},
	}, shielded("eu-central-1"))
	for i := range 16 {
		path := fmt.Sprint("/", i)
		for _, name := range []string{"FRA2-C1", "FRA56-P1", "FRA2-C2"} {
			n.at[name].get(path)
		}
		if got := n.requests.Load(); got != int64(i+1) {
			t.Fatalf("%d requests to the origin for %d objects", got, i+1)
		}
	}
	asked := n.whoWasAsked()
	if !slices.Contains(asked, "GET FRA2-C1") || !slices.Contains(asked, "GET FRA2-C2") {
		t.Errorf("asked: %v", asked)
	}
}

// Two locations that each take the other for the one to ask, as they may while one
// is told of earlier than the other.
func TestLocationsThatAskEachOtherDoNotWaitForEachOther(t *testing.T) {
	n := newNetwork(t, answers(200, "hello", "Cache-Control", "max-age=60"), []tier.Place{
		{Name: "A", Region: "eu-central-1"}, {Name: "B", Region: "us-east-1"},
	})
	n.mu.Lock()
	for i := range n.places { // each is regional for the other, and nothing for itself
		n.places[i].Regional = true
		n.places[i].Region = map[string]string{"A": "us-east-1", "B": "eu-central-1"}[n.places[i].Name]
	}
	n.mu.Unlock()
	var wg sync.WaitGroup
	for name := range n.at {
		for range 8 {
			wg.Go(func() {
				if r := n.at[name].get("/a"); r.StatusCode != 200 {
					t.Errorf("%s: %d", name, r.StatusCode)
				}
			})
		}
	}
	wg.Wait()
}

func TestPartsAndValidatorsPassTheTiers(t *testing.T) {
	var ranges, conditional atomic.Int64
	n := newNetwork(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header["Range"] != nil {
			ranges.Add(1)
		}
		if r.Header["If-None-Match"] != nil {
			conditional.Add(1)
		}
		w.Header().Set("Cache-Control", "max-age=1")
		w.Header().Set("Etag", `"one"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
	}), two(), shielded("us-east-1"))
	l := n.at["FRA56-P1"]
	r := l.do("GET", "/a", http.Header{"Range": {"bytes=2-4"}})
	if r.StatusCode != 206 || r.body != "234" || r.Header.Get("Content-Range") != "bytes 2-4/10" || ranges.Load() != 1 {
		t.Errorf("a part: %d %q %q, %d parts of the origin", r.StatusCode, r.body, r.Header.Get("Content-Range"), ranges.Load())
	}
	if r := l.do("GET", "/a", http.Header{"Range": {"bytes=20-"}}); r.StatusCode != 416 {
		t.Errorf("beyond the end: %d", r.StatusCode)
	}
	l.get("/b")
	n.at["LHR61-P1"].get("/b")
	time.Sleep(1100 * time.Millisecond)
	requests := n.requests.Load()
	n.expect(l.get("/b"), 200, "RefreshHit", requests+1)
	r = n.at["LHR61-P1"].get("/b")
	n.expect(r, 200, "RefreshHit", requests+1)
	if r.body != "0123456789" || conditional.Load() != 1 {
		t.Errorf("%q after %d conditional requests to the origin", r.body, conditional.Load())
	}
}

func TestAnObjectIsNoOlderAnywhereThanWhereTheOriginWasAsked(t *testing.T) {
	n := newNetwork(t, answers(200, "hello"), two(), shielded("us-east-1"), with(func(d *distribution.Distribution) {
		d.Behaviours[0].TTL.Default = 2 * time.Second // which each location would count anew
	}))
	began := time.Now()
	n.at["IAD89-P1"].get("/a")
	time.Sleep(1200 * time.Millisecond)
	r := n.at["FRA56-P1"].get("/a")
	n.expect(r, 200, "Hit", 1)
	if r.Header.Get("Age") != "1" {
		t.Errorf("Age %q", r.Header.Get("Age"))
	}
	time.Sleep(time.Until(began.Add(2200 * time.Millisecond)))
	if r := n.at["FRA56-P1"].get("/a"); n.requests.Load() != 2 {
		t.Errorf("then %q of %q", r.cache(), r.Header.Get("Age"))
	}
}

func TestAGroupsMembersEachHaveTheirShield(t *testing.T) {
	second := httptest.NewServer(answers(200, "second"))
	t.Cleanup(second.Close)
	n := newNetwork(t, answers(404, "first"), []tier.Place{
		{Name: "FRA56-P1", Region: "eu-central-1"}, {Name: "IAD89-P1", Region: "us-east-1", Regional: true}, {Name: "LHR61-P1", Region: "eu-west-2", Regional: true},
	}, with(func(d *distribution.Distribution) {
		if len(d.Origins) == 0 {
			return
		}
		d.Origins[0].ShieldRegion = "us-east-1"
		o := customOrigin("second", second.URL)
		o.ShieldRegion = "eu-west-2"
		d.Origins = append(d.Origins, o)
		d.OriginGroups = []distribution.OriginGroup{{ID: "group", Members: [2]string{"main", "second"}, StatusCodes: []int{404}}}
		d.Behaviours[0].Origin = "group"
	}))
	l := n.at["FRA56-P1"]
	if r := l.get("/a"); r.StatusCode != 200 || r.body != "second" {
		t.Errorf("%d %q", r.StatusCode, r.body)
	}
	if got, want := n.whoWasAsked(), []string{"GET IAD89-P1", "GET LHR61-P1"}; !slices.Equal(got, want) {
		t.Errorf("asked: %v, want %v", got, want)
	}
	if r := n.at["IAD89-P1"].get("/a"); r.StatusCode != 200 || r.body != "second" {
		t.Errorf("a viewer at the shield: %d %q", r.StatusCode, r.body)
	}
}

func TestFailuresPassTheTiersAsTheyAre(t *testing.T) {
	n := newNetwork(t, answers(200, ""), two(), shielded("us-east-1"), with(func(d *distribution.Distribution) {
		if len(d.Origins) > 0 {
			d.Origins[0].HTTPPort = 1
		}
	}))
	r := n.at["FRA56-P1"].get("/a")
	if r.StatusCode != 502 || r.cache() != "Error" || !strings.Contains(r.body, "able to connect to the origin") {
		t.Errorf("%d %q %q", r.StatusCode, r.cache(), r.body)
	}
	if l := n.at["FRA56-P1"].logged(); l.Detail != "OriginConnectError" {
		t.Errorf("logged: %q", l.Detail)
	}
	if got, want := n.whoWasAsked(), []string{"GET IAD89-P1"}; !slices.Equal(got, want) {
		t.Errorf("asked: %v, want %v", got, want)
	}
}

func TestFunctionsRunWhereTheOriginIsAskedOrTheViewerCame(t *testing.T) {
	var mu sync.Mutex
	var ran []string
	at := func(o *Options, d *distribution.Distribution) {
		note := func(e distribution.EventType) func(x *trigger.Exchange) error {
			return func(x *trigger.Exchange) error {
				mu.Lock()
				defer mu.Unlock()
				ran = append(ran, o.Location+" "+string(e)+" "+x.Request.ClientIP)
				if x.Request.URI == "/bad" && e == distribution.OriginRequest {
					return &trigger.Error{Class: trigger.LambdaValidation, Text: "It is not right."}
				}
				return nil
			}
		}
		s := scripted{}
		for _, e := range []distribution.EventType{distribution.ViewerRequest, distribution.OriginRequest, distribution.OriginResponse, distribution.ViewerResponse} {
			s[e] = note(e)
		}
		lambdas(s)(o, d)
	}
	n := newNetwork(t, answers(200, "hello", "Cache-Control", "max-age=60"), two(), shielded("us-east-1"), at)
	n.at["FRA56-P1"].get("/a")
	n.at["LHR61-P1"].get("/a")
	want := []string{
		"FRA56-P1 viewer-request 127.0.0.1", "IAD89-P1 origin-request 127.0.0.1", "IAD89-P1 origin-response 127.0.0.1", "FRA56-P1 viewer-response 127.0.0.1",
		"LHR61-P1 viewer-request 127.0.0.1", "LHR61-P1 viewer-response 127.0.0.1",
	}
	mu.Lock()
	if !slices.Equal(ran, want) {
		t.Errorf("ran\n%s\nwant\n%s", strings.Join(ran, "\n"), strings.Join(want, "\n"))
	}
	mu.Unlock()
	if r := n.at["FRA56-P1"].get("/bad"); r.StatusCode != 502 || r.cache() != "LambdaValidationError" || !strings.Contains(r.body, "It is not right.") {
		t.Errorf("%d %q %q", r.StatusCode, r.cache(), r.body)
	}
}

func TestABodyPassesTheTiersAsItArrives(t *testing.T) {
	more := make(chan struct{})
	n := newNetwork(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "first ")
		w.(http.Flusher).Flush()
		<-more
		fmt.Fprint(w, "second")
	}), three(), shielded("us-east-1"))
	open := func(name string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), "GET", n.at[name].front.URL+"/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	// One that asks, and two that wait for the same, at two tiers.
	var all []*http.Response
	for _, name := range []string{"FRA56-P1", "FRA56-P1", "FRA2-C1"} {
		resp := open(name)
		defer resp.Body.Close()
		b := make([]byte, len("first "))
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "first " {
			t.Fatalf("%s: %q, %v", name, b, err)
		}
		all = append(all, resp)
	}
	close(more)
	for _, resp := range all {
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "second" {
			t.Errorf("then %q, %v", b, err)
		}
	}
	if got := n.requests.Load(); got != 1 {
		t.Errorf("%d requests to the origin", got)
	}
}

func TestAShieldThatDiesWhileItAnswers(t *testing.T) {
	const half = 256 << 10
	body := strings.Repeat("0123456789abcdef", 2*half/16)
	for name, etag := range map[string]string{"resumed": `"one"`, "broken off": ""} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan struct{})
			n := newNetwork(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				if etag != "" {
					w.Header().Set("Etag", etag)
				}
				if r.Header["Range"] != nil || etag == "" && r.URL.Path == "/again" {
					http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
					return
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				_, _ = io.WriteString(w, body[:half])
				w.(http.Flusher).Flush()
				<-gone
			}), two(), shielded("us-east-1"))
			go func() {
				for n.requests.Load() == 0 {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(100 * time.Millisecond) // some of it is under way
				n.peers["IAD89-P1"].CloseClientConnections()
				n.peers["IAD89-P1"].Listener.Close()
			}()
			r, err := n.at["FRA56-P1"].send("GET", "/a", nil, nil)
			close(gone)
			if etag == "" {
				if err == nil {
					t.Errorf("%d bytes pass for the whole object", len(r.body))
				}
				n.expect(n.at["FRA56-P1"].get("/again"), 200, "Miss", 2)
				return
			}
			if err != nil || r.body != body {
				t.Fatalf("%d bytes, %v", len(r.body), err)
			}
			n.expect(n.at["FRA56-P1"].get("/a"), 200, "Hit", 2)
		})
	}
}

// A location that has applied an invalidation gets nothing older from a tier that
// has not.
func TestAnInvalidationHoldsAgainstATierThatIsBehind(t *testing.T) {
	var version atomic.Int64
	n := newNetwork(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, version.Load())
	}), two()[:1], shielded("us-east-1"))
	shield := n.location
	// The other location has records of its own, which are ahead.
	edge := &location{t: t, origin: n.origin, d: n.d}
	edge.open()
	p := two()[1]
	edge.serve(&distribution.Distribution{Behaviours: slices.Clone(n.d.Behaviours)}, n.option(p))
	n.join(p, edge)
	invalidate := func(l *location, id string) {
		item, err := l.record.Invalidations.Put(t.Context(), id, distribution.Invalidation{
			Format: 1, ID: id, Distribution: l.d.ID, Paths: []string{"/*"}, At: time.Now(),
		})
		if err != nil {
			t.Fatal(err)
		}
		for l.server.Applied().Invalidations < item.Revision {
			time.Sleep(time.Millisecond)
		}
	}
	n.expect(edge.get("/a"), 200, "Miss", 1)
	version.Store(1)
	invalidate(edge, "I1")
	if r := edge.get("/a"); r.body != "1" || r.cache() != "Miss" {
		t.Errorf("with a shield that is behind: %q %q", r.body, r.cache())
	}
	if r := shield.get("/a"); r.body != "0" {
		t.Errorf("the shield is not behind: %q", r.body)
	}
	version.Store(2)
	invalidate(edge, "I2")
	go func() {
		time.Sleep(50 * time.Millisecond)
		invalidate(shield, "I1")
		invalidate(shield, "I2")
	}()
	requests := n.requests.Load()
	if r := edge.get("/a"); r.body != "2" {
		t.Errorf("with a shield that catches up: %q", r.body)
	}
	if r := shield.get("/a"); r.body != "2" || n.requests.Load() != requests+1 {
		t.Errorf("the location did not wait for the shield: %q, %d requests", r.body, n.requests.Load()-requests)
	}
}
