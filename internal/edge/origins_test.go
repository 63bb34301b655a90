package edge

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

func TestWhatAnOriginGets(t *testing.T) {
	l := newLocation(t, echo, with(func(d *distribution.Distribution) {
		d.Origins[0].Path = "/v2"
		d.Origins[0].Header = []distribution.HeaderValue{{Name: "X-Shared", Value: "s3cret"}}
		b := &d.Behaviours[0]
		b.Key = distribution.Selection{
			Headers: distribution.Choice{Mode: distribution.ModeOnly, Names: []string{"accept-language", "cloudfront-is-mobile-viewer"}},
			Cookies: distribution.Choice{Mode: distribution.ModeOnly, Names: []string{"bag"}},
			Query:   distribution.Choice{Mode: distribution.ModeOnly, Names: []string{"size"}},
		}
		b.AcceptGzip, b.AcceptBrotli = true, true
	}))
	r := l.do("GET", "/a%20b?size=m&utm=x", http.Header{
		"Accept-Language": {"de"}, "Cookie": {"sid=1; bag=blue"}, "Authorization": {"Basic x"}, "Accept-Encoding": {"gzip, deflate, br"},
		"X-Shared": {"spoofed"}, "Cloudfront-Is-Mobile-Viewer": {"spoofed"}, "User-Agent": {"Mozilla/5.0 (iPhone)"}, "X-Forwarded-For": {"192.0.2.1"},
	})
	for _, want := range []string{
		"GET /v2/a%20b?size=m\n", "Accept-Language: de\r\n", "Cookie: bag=blue\r\n", "Accept-Encoding: br,gzip\r\n", "X-Shared: s3cret\r\n",
		"Cloudfront-Is-Mobile-Viewer: true\r\n", "User-Agent: Amazon CloudFront\r\n", "X-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n", "Via: 1.1 ", "X-Amz-Cf-Id: ",
		"Host: 127.0.0.1:",
	} {
		if !strings.Contains(r.body, want) {
			t.Errorf("no %q in\n%s", want, r.body)
		}
	}
	if strings.Contains(r.body, "Authorization") || strings.Contains(r.body, "spoofed") {
		t.Errorf("too much in\n%s", r.body)
	}
}

func TestAnOriginGroupFailsOver(t *testing.T) {
	second := httptest.NewServer(answers(200, "second"))
	t.Cleanup(second.Close)
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/bad") {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, "first")
	}), with(func(d *distribution.Distribution) {
		gone := d.Origins[0]
		gone.ID, gone.HTTPPort = "gone", 1
		d.Origins = append(d.Origins, customOrigin("second", second.URL), gone)
		d.OriginGroups = []distribution.OriginGroup{
			{ID: "group", Members: [2]string{"main", "second"}, StatusCodes: []int{404, 503}},
			{ID: "half", Members: [2]string{"gone", "second"}, StatusCodes: []int{503}},
		}
		d.Behaviours[0].Origin = "group"
		d.Behaviours[0].AllowedMethods = []string{"GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"}
		half := d.Behaviours[0]
		half.Pattern, half.Origin = "/half/*", "half"
		d.Behaviours = append([]distribution.Behaviour{half}, d.Behaviours...)
	}))
	for path, want := range map[string]string{"/good": "first", "/bad": "second", "/half/a": "second"} {
		if r := l.get(path); r.body != want {
			t.Errorf("%s: %d %q", path, r.StatusCode, r.body)
		}
	}
	if r := l.do("POST", "/bad", nil); r.StatusCode != 404 {
		t.Errorf("a POST was failed over: %d", r.StatusCode)
	}
}

func TestBodiesReachTheOriginAndFunctionsSeeWhatTheyMay(t *testing.T) {
	big := strings.Repeat("x", 50<<10)
	l := newLocation(t, echo, with(func(d *distribution.Distribution) {
		d.Behaviours[0].AllowedMethods = []string{"GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"}
	}), lambdas(scripted{
		distribution.ViewerRequest: func(x *trigger.Exchange) error {
			if b := x.Request.Body; x.Request.URI == "/replace" {
				b.Data, b.Replaced = []byte("other"), true
			} else if len(b.Data) != 40<<10 || !b.Truncated {
				t.Errorf("the function saw %d bytes", len(b.Data))
			}
			return nil
		},
	}), with(func(d *distribution.Distribution) {
		a := d.Behaviours[0].Functions[distribution.ViewerRequest]
		a.IncludeBody = true
		d.Behaviours[0].Functions[distribution.ViewerRequest] = a
	}))
	for path, want := range map[string]string{"/keep": big, "/replace": "other"} {
		r, err := l.send("POST", path, nil, strings.NewReader(big))
		if err != nil {
			t.Fatal(err)
		}
		if _, got, _ := strings.Cut(r.body, "\r\n\n"); got != want {
			t.Errorf("%s: the origin got %d bytes", path, len(got))
		}
	}
}

func TestFunctionsRunWhenTheyShould(t *testing.T) {
	var mu sync.Mutex
	var ran []string
	note := func(e distribution.EventType, f func(x *trigger.Exchange)) func(x *trigger.Exchange) error {
		return func(x *trigger.Exchange) error {
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, string(e))
			if f != nil {
				f(x)
			}
			return nil
		}
	}
	l := newLocation(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		w.Header().Set("X-Origin", r.URL.RequestURI())
		_, _ = io.WriteString(w, "body")
	}), lambdas(scripted{
		distribution.ViewerRequest: note(distribution.ViewerRequest, func(x *trigger.Exchange) {
			if x.Request.Origin != nil {
				t.Error("a viewer event has an origin")
			}
			if x.Request.URI == "/alias" {
				x.Request.URI = "/page"
			}
		}),
		distribution.OriginRequest: note(distribution.OriginRequest, func(x *trigger.Exchange) {
			if x.Request.Origin == nil || x.Request.Header.Get("Host") == "" {
				t.Errorf("an origin event without origin or Host: %+v", x.Request)
			}
			if x.Request.URI == "/old" {
				x.Response = &trigger.Response{Status: 301, Header: trigger.Header{{Name: "Location", Value: "/new"}, {Name: "Cache-Control", Value: "max-age=60"}}}
				return
			}
			x.Request.URI = "/rewritten" + strings.TrimPrefix(x.Request.URI, "/page")
			if x.Request.URI == "/rewritten/missing" {
				x.Request.URI = "/missing"
			}
		}),
		distribution.OriginResponse: note(distribution.OriginResponse, func(x *trigger.Exchange) {
			x.Response.Header = append(x.Response.Header, trigger.Field{Name: "X-Stored", Value: "1"})
		}),
		distribution.ViewerResponse: note(distribution.ViewerResponse, func(x *trigger.Exchange) {
			x.Response.Header = append(x.Response.Header, trigger.Field{Name: "Set-Cookie", Value: "a=1"})
		}),
	}))
	all := "viewer-request origin-request origin-response viewer-response"
	for _, c := range []struct{ path, cache, ran string }{
		{"/page", "Miss", all},
		{"/page", "Hit", "viewer-request viewer-response"},
		{"/alias", "Hit", "viewer-request viewer-response"},
		{"/old", "LambdaGeneratedResponse", "viewer-request origin-request viewer-response"},
		{"/old", "Hit", "viewer-request viewer-response"},
		{"/missing", "Error", "viewer-request origin-request origin-response"},
		{"/missing", "Error", "viewer-request"},
	} {
		mu.Lock()
		ran = nil
		mu.Unlock()
		r := l.get(c.path)
		mu.Lock()
		got := strings.Join(ran, " ")
		mu.Unlock()
		if r.cache() != c.cache || got != c.ran {
			t.Errorf("%s: %s, ran %s; want %s, %s", c.path, r.cache(), got, c.cache, c.ran)
		}
		if r.StatusCode == 200 && (r.Header.Get("X-Origin") != "/rewritten" || r.Header.Get("X-Stored") != "1" || r.Header.Get("Set-Cookie") != "a=1") {
			t.Errorf("%s: %v", c.path, r.Header)
		}
	}
}

func TestAFunctionSendsRequestsToAnotherOrigin(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fails" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "other as %s", r.Host)
	}))
	t.Cleanup(other.Close)
	chosen := customOrigin("other", other.URL)
	shop := "shop.example.net"
	l := newLocation(t, echo, lambdas(scripted{
		distribution.ViewerRequest: func(x *trigger.Exchange) error {
			if x.Request.URI != "/main" {
				x.Request.Route = &trigger.Route{Targets: []trigger.Target{{Origin: &chosen, Host: &shop}}}
			}
			if x.Request.URI == "/fails" {
				main := x.Request.Route.Targets[0]
				x.Request.Route = &trigger.Route{Targets: []trigger.Target{main, {Origin: &chosen}}, StatusCodes: []int{503}}
			}
			return nil
		},
	}))
	if r := l.get("/other"); r.body != "other as shop.example.net" || r.cache() != "Miss" {
		t.Errorf("%s: %q", r.cache(), r.body)
	}
	if r := l.get("/other"); r.cache() != "Hit" {
		t.Errorf("again: %s", r.cache())
	}
	if r := l.get("/main"); strings.HasPrefix(r.body, "other") || r.StatusCode != 200 {
		t.Errorf("%d: %q", r.StatusCode, r.body)
	}
	if r := l.get("/fails"); r.StatusCode != 503 {
		t.Errorf("status %d of both targets", r.StatusCode)
	}
}

func TestAFunctionThatFailsIsNotPassedBy(t *testing.T) {
	l := newLocation(t, echo, lambdas(scripted{
		distribution.OriginRequest: func(*trigger.Exchange) error {
			return &trigger.Error{Class: trigger.LambdaExecution, Text: "The function is invalid."}
		},
	}))
	for range 2 {
		r := l.get("/a")
		if l.expect(r, 503, "LambdaExecutionError", 0); !strings.Contains(r.body, "The function is invalid.") {
			t.Error(r.body)
		}
	}
}
