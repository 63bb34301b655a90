package edge

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

func handsOver(o *Options, _ *distribution.Distribution) { o.HandOver = true }

func TestARequestIsHandedToTheLocationThatItNames(t *testing.T) {
	n := newNetwork(t, echo, two(), handsOver, with(func(d *distribution.Distribution) {
		b := &d.Behaviours[0]
		b.AllowedMethods = []string{"GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"}
		b.Forward.Headers = distribution.Choice{Mode: distribution.ModeAll}
		b.Forward.Query = distribution.Choice{Mode: distribution.ModeAll}
	}))
	to := func(name string) http.Header {
		return http.Header{locationHeader: {name}, "X-Mine": {"1"}, "X-Forwarded-For": {"192.0.2.1"}}
	}
	at := n.at["FRA56-P1"]
	for _, name := range []string{"FRA56-P1", "LHR61-P1", "IAD89-P1"} {
		r := at.do("GET", "/"+name+"?b=%31&a", to(name))
		if r.StatusCode != 200 || r.Header.Get("X-Amz-Cf-Pop") != name || r.cache() != "Miss" {
			t.Errorf("%s: %d %q by %q: %s", name, r.StatusCode, r.cache(), r.Header.Get("X-Amz-Cf-Pop"), r.body)
		}
		for _, want := range []string{"GET /" + name + "?b=%31&a\n", "X-Mine: 1", "X-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n"} {
			if !strings.Contains(r.body, want) {
				t.Errorf("%s: no %q in what the origin got:\n%s", name, want, r.body)
			}
		}
		if strings.Contains(strings.ToLower(r.body), "lapwing-") {
			t.Errorf("the origin got\n%s", r.body)
		}
		n.at[name].logged()
	}
	r, err := at.send("POST", "/post", to("LHR61-P1"), strings.NewReader("a body"))
	if err != nil || !strings.HasSuffix(r.body, "\n\na body") || r.Header.Get("X-Amz-Cf-Pop") != "LHR61-P1" {
		t.Errorf("%v, %v", r, err)
	}
	if r := at.do("GET", "/a", to("CDG50-P1")); r.StatusCode != 400 || !strings.Contains(r.body, "CDG50-P1") {
		t.Errorf("to nowhere: %d %q", r.StatusCode, r.body)
	}
	n.peers["LHR61-P1"].CloseClientConnections()
	n.peers["LHR61-P1"].Listener.Close()
	if r := at.do("GET", "/a", to("LHR61-P1")); r.StatusCode != 502 || r.Header.Get("X-Amz-Cf-Pop") != "FRA56-P1" {
		t.Errorf("to one that is gone: %d %q", r.StatusCode, r.body)
	}
}

func TestNobodyIsHandedOverUnlessTheOperatorLetsThem(t *testing.T) {
	n := newNetwork(t, echo, two(), with(func(d *distribution.Distribution) {
		d.Behaviours[0].Forward.Headers = distribution.Choice{Mode: distribution.ModeAll}
	}))
	r := n.at["FRA56-P1"].do("GET", "/a", http.Header{locationHeader: {"LHR61-P1"}})
	if r.StatusCode != 200 || r.Header.Get("X-Amz-Cf-Pop") != "FRA56-P1" || strings.Contains(r.body, "Lapwing") {
		t.Errorf("%d by %q:\n%s", r.StatusCode, r.Header.Get("X-Amz-Cf-Pop"), r.body)
	}
	if got := n.whoWasAsked(); slices.Contains(got, "GET LHR61-P1") {
		t.Errorf("asked: %v", got)
	}
}
