package edge

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/accesslog"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/tier"
)

// network is several locations that serve the same distribution from one origin and
// reach each other over HTTP/2.
type network struct {
	*location // with the origin
	at        map[string]*location
	peers     map[string]*httptest.Server

	mu     sync.Mutex
	places []tier.Place
}

// newNetwork makes locations of these names, Regions and tiers.
func newNetwork(t *testing.T, handler http.Handler, places []tier.Place, options ...option) *network {
	t.Helper()
	n := &network{at: map[string]*location{}, peers: map[string]*httptest.Server{}}
	for _, p := range places {
		on := append(slices.Clone(options), n.option(t, p))
		l := n.location
		if l == nil {
			n.location = newLocation(t, handler, on...)
			l = n.location
		} else {
			l = &location{t: t, origin: l.origin, store: l.store, record: l.record, d: l.d}
			l.serve(&distribution.Distribution{Behaviours: slices.Clone(l.d.Behaviours)}, on...) // it has been changed
		}
		n.at[p.Name] = l
		peer := httptest.NewUnstartedServer(http.HandlerFunc(l.server.ServeTier))
		peer.EnableHTTP2 = true
		peer.StartTLS()
		t.Cleanup(peer.Close)
		n.peers[p.Name] = peer
		p.Address = peer.Listener.Addr().String()
		n.places = append(n.places, p)
	}
	return n
}

func (n *network) option(t *testing.T, self tier.Place) option {
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
	var through []string
	n := newNetwork(t, echo, two(), shielded("us-east-1"), with(func(d *distribution.Distribution) {
		d.Behaviours[0].AllowedMethods = []string{"GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"}
		d.Behaviours = append([]distribution.Behaviour{d.Behaviours[0]}, d.Behaviours[0])
		d.Behaviours[0].Pattern, d.Behaviours[0].TTL = "/dynamic", distribution.TTL{}
	}))
	n.peers["IAD89-P1"].Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		through = append(through, r.Method)
		n.at["IAD89-P1"].server.ServeTier(w, r)
	})
	l := n.at["FRA56-P1"]
	for _, method := range []string{"OPTIONS", "PUT", "POST", "PATCH", "DELETE"} {
		if r := l.do(method, "/a", nil); r.StatusCode != 200 {
			t.Errorf("%s: %d", method, r.StatusCode)
		}
	}
	l.get("/dynamic")
	if len(through) != 0 {
		t.Errorf("through the shield: %v", through)
	}
	l.do("HEAD", "/b", nil)
	l.get("/b")
	if !slices.Equal(through, []string{"HEAD", "GET"}) {
		t.Errorf("through the shield: %v", through)
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
