package tier

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/edge/freshness"
)

func TestARequestIsReadAsItWasWritten(t *testing.T) {
	want := &Request{
		Level: Shield, Distribution: "E1", Behaviour: "/a*?", Origin: "o&1", ID: "x==", Client: netip.MustParseAddr("2001:db8::1"), Secure: true,
		Method: "GET", Host: "www.example.net", Path: "/a%2F\xff;b", Query: "a=1&b=%zz+", Distributions: 1 << 60, Invalidations: 7,
		Header: http.Header{"Range": {"bytes=0-1"}},
	}
	r := want.encode(t.Context(), "127.0.0.1:1")
	if r.Method != "GET" || r.URL.String() != "https://127.0.0.1:1"+ObjectPath {
		t.Errorf("%s %s", r.Method, r.URL)
	}
	got, err := Decode(r)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if want.Header[aside] != nil {
		t.Error("the asker's header was changed")
	}
}

func TestAReplyIsReadAsItWasWritten(t *testing.T) {
	for name, want := range map[string]*Reply{
		"nothing":     {Result: "Miss"},
		"an object":   {Result: "Hit", Layer: Shield, Lifetime: &freshness.Lifetime{Store: true, InitialAge: 3, TTL: time.Hour, WhileRevalidate: 5, IfError: -1}},
		"a cut body":  {Result: "Miss", Cut: true},
		"an origin's": {Result: "Error", Failure: &Failure{Detail: "OriginDnsError", Timeout: true}},
		"a function's": {Result: "Error", Failure: &Failure{
			Class: "LambdaExecutionError", Text: "A sentence & more.",
		}},
	} {
		h := http.Header{}
		want.Encode(h)
		got, err := decodeReply(&http.Response{Header: h})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if len(h) != 0 {
			t.Errorf("%s: left in the header: %v", name, h)
		}
	}
	if _, err := decodeReply(&http.Response{Status: "503 Service Unavailable", Header: http.Header{}}); err == nil {
		t.Error("an answer without a reply passes for one")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("level=1&distribution=E1&behaviour=*&revisions=1&revisions=2&client=192.0.2.1", "host=a&target=%2Fa%3Fb&viewer=192.0.2.1%3A80&proto=HTTP%2F1.1&tls=772&cipher=4865&name=a")
	f.Add("level=9", "viewer=x")
	f.Fuzz(func(t *testing.T, object, viewer string) {
		r := httptest.NewRequest("GET", ObjectPath, http.NoBody)
		r.Header[aside] = []string{object}
		if q, err := Decode(r); err == nil && (q.Level != Regional && q.Level != Shield || q.Header[aside] != nil) {
			t.Errorf("%q is %+v", object, q)
		}
		r = httptest.NewRequest("GET", ViewerPath, http.NoBody)
		r.Header[aside] = []string{viewer}
		if v, err := HandedOver(r); err == nil && (v.URL == nil || v.ProtoMajor < 0 || v.Header[aside] != nil) {
			t.Errorf("%q is %+v", viewer, v)
		}
		_, _ = decodeReply(&http.Response{Header: http.Header{aside: {object}}})
	})
}

// places are a network as one of them sees it.
func places(self Place, others ...Place) *Network {
	return New(Options{
		Self: self, Others: func() []Place { return others }, Logger: slog.New(slog.DiscardHandler),
		Transport: func(Place) http.RoundTripper { return http.DefaultTransport },
	})
}

func names(peers []*Peer) (all []string) {
	for _, p := range peers {
		all = append(all, p.Name)
	}
	return all
}

func TestAllLocationsAgreeWhomToAsk(t *testing.T) {
	var all []Place
	for _, name := range []string{"A", "B", "C"} {
		all = append(all, Place{Name: name, Region: "eu-central-1", Address: name + ":1", Regional: true})
	}
	edge := Place{Name: "E", Region: "eu-central-1"}
	first := map[string]int{}
	for i := range 300 {
		key := [32]byte{byte(i), byte(i >> 8)}
		order := names(places(edge, all...).Caches("eu-central-1", key))
		if len(order) != attempts {
			t.Fatalf("%d to ask", len(order))
		}
		first[order[0]]++
		for j, self := range all {
			others := slices.Delete(slices.Clone(all), j, j+1)
			got := names(places(self, others...).Caches("eu-central-1", key))
			switch self.Name {
			case order[0]:
				if len(got) != 0 {
					t.Fatalf("the first of %v asks %v", order, got)
				}
			case order[1]:
				if !slices.Equal(got, order[:1]) {
					t.Fatalf("the second of %v asks %v", order, got)
				}
			default:
				if !slices.Equal(got, order) {
					t.Fatalf("the third of %v asks %v", order, got)
				}
			}
		}
	}
	for name, n := range first {
		if n < 60 {
			t.Errorf("%s has %d objects of 300", name, n)
		}
	}
	for name, region := range map[string]string{"no region": "", "a region without": "us-east-1"} {
		if got := places(edge, all...).Caches(region, [32]byte{}); len(got) != 0 {
			t.Errorf("%s: %v", name, names(got))
		}
	}
}

func TestALocationThatCannotBeReachedIsLeftAloneForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := places(Place{Name: "E", Region: "r"}, Place{Name: "A", Region: "r", Address: "a:1", Regional: true})
		n.options.Transport = func(Place) http.RoundTripper { return gone{} }
		q := &Request{Level: Regional, Method: "GET", Header: http.Header{}}
		peers := n.Caches("r", [32]byte{})
		if len(peers) != 1 {
			t.Fatalf("to ask: %v", names(peers))
		}
		if _, _, err := n.Ask(t.Context(), peers[0], q); !errors.Is(err, errGone) {
			t.Errorf("%v", err)
		}
		if got := n.Caches("r", [32]byte{}); len(got) != 0 {
			t.Errorf("at once: %v", names(got))
		}
		time.Sleep(pause + time.Millisecond)
		if got := n.Caches("r", [32]byte{}); len(got) != 1 {
			t.Errorf("after a while: %v", names(got))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, _ = n.Ask(ctx, peers[0], q)
		if got := n.Caches("r", [32]byte{}); len(got) != 1 {
			t.Error("a viewer who left has a location left alone")
		}
	})
}

var errGone = errors.New("connection refused")

// gone is a location that is not there.
type gone struct{}

func (gone) RoundTrip(*http.Request) (*http.Response, error) { return nil, errGone }
