package policy

import (
	"net/http"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

func TestPatternsMatchPaths(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"*", "/", true},
		{"*", "/a/b", true},
		{"images/*.jpg", "/images/a.jpg", true},
		{"/images/*.jpg", "/images/a/b.jpg", true},
		{"/images/*.jpg", "/images/a.png", false},
		{"*.gif", "/a/b.gif", true},
		{"/a?c", "/abc", true},
		{"/a?c", "/ac", false},
		{"/A", "/a", false},
		{"/a*b*c", "/a-b-b-c", true},
		{"/a*b*c", "/a-b-b", false},
		{"/", "/index.html", false},
	} {
		p := Compile(&distribution.Behaviour{Pattern: c.pattern})
		if got := p.Matches(Normalise(c.path)); got != c.want {
			t.Errorf("%s on %s: %v", c.pattern, c.path, got)
		}
	}
}

func TestPathsAreNormalisedForMatching(t *testing.T) {
	for path, want := range map[string]string{
		"/a": "/a", "/%61%2Fb": "/a%2Fb", "/a/./b": "/a/b", "/a/../b": "/b", "/../a": "/a", "/a/..": "/", "/a/.": "/a/", "/%2e%2e/admin": "/admin", "/a%": "/a%",
	} {
		if got := Normalise(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func only(names ...string) distribution.Choice {
	return distribution.Choice{Mode: distribution.ModeOnly, Names: names}
}

func except(names ...string) distribution.Choice {
	return distribution.Choice{Mode: distribution.ModeExcept, Names: names}
}

var everything = distribution.Choice{Mode: distribution.ModeAll}

func TestWhatTellsObjectsApart(t *testing.T) {
	base := Request{Method: "GET", Host: "h", Path: "/a", Query: "x=1&y=2", Header: http.Header{
		"Cookie": {"a=1; b=2"}, "Accept-Language": {"de"}, "Accept-Encoding": {"gzip, br"},
	}}
	changed := func(f func(r *Request)) Request {
		r := base
		r.Header = base.Header.Clone()
		f(&r)
		return r
	}
	for _, c := range []struct {
		name  string
		key   distribution.Selection
		other Request
		same  bool
	}{
		{"path", distribution.Selection{}, changed(func(r *Request) { r.Path = "/b" }), false},
		{"HEAD", distribution.Selection{}, changed(func(r *Request) { r.Method = "HEAD" }), true},
		{"OPTIONS", distribution.Selection{}, changed(func(r *Request) { r.Method = "OPTIONS" }), false},
		{"host, not keyed", distribution.Selection{}, changed(func(r *Request) { r.Host = "i" }), true},
		{"host, keyed", distribution.Selection{Headers: only("host")}, changed(func(r *Request) { r.Host = "i" }), false},
		{"query, not keyed", distribution.Selection{}, changed(func(r *Request) { r.Query = "" }), true},
		{"query, all, order", distribution.Selection{Query: everything}, changed(func(r *Request) { r.Query = "y=2&x=1" }), false},
		{"query, listed", distribution.Selection{Query: only("x")}, changed(func(r *Request) { r.Query = "x=1&y=3" }), true},
		{"query, listed, changed", distribution.Selection{Query: only("x")}, changed(func(r *Request) { r.Query = "x=2" }), false},
		{"query, all but", distribution.Selection{Query: except("y")}, changed(func(r *Request) { r.Query = "x=1" }), true},
		{"cookie, not keyed", distribution.Selection{}, changed(func(r *Request) { r.Header.Del("Cookie") }), true},
		{"cookie, order", distribution.Selection{Cookies: everything}, changed(func(r *Request) { r.Header["Cookie"] = []string{"b=2", "a=1"} }), true},
		{"cookie, listed", distribution.Selection{Cookies: only("a")}, changed(func(r *Request) { r.Header["Cookie"] = []string{"a=1; c=3"} }), true},
		{"cookie, listed, changed", distribution.Selection{Cookies: only("a")}, changed(func(r *Request) { r.Header["Cookie"] = []string{"a=2"} }), false},
		{"header", distribution.Selection{Headers: only("accept-language")}, changed(func(r *Request) { r.Header.Set("Accept-Language", "fr") }), false},
		{"header, absent", distribution.Selection{Headers: only("accept-language")}, changed(func(r *Request) { r.Header.Del("Accept-Language") }), false},
		{"encoding, normalised", distribution.Selection{}, changed(func(r *Request) { r.Header.Set("Accept-Encoding", "br;q=0.1, x, GZIP") }), true},
		{"encoding, refused", distribution.Selection{}, changed(func(r *Request) { r.Header.Set("Accept-Encoding", "gzip, br;q=0") }), false},
	} {
		p := Compile(&distribution.Behaviour{Pattern: "*", Key: c.key, AcceptGzip: true, AcceptBrotli: true})
		if same := string(p.AppendKey(nil, &base)) == string(p.AppendKey(nil, &c.other)); same != c.same {
			t.Errorf("%s: the same object: %v", c.name, same)
		}
	}
}

func TestAPlainKeyIsTheKey(t *testing.T) {
	for _, query := range []distribution.Choice{{}, everything, only("x"), except("x")} {
		p := Compile(&distribution.Behaviour{Pattern: "*", Key: distribution.Selection{Query: query}, AcceptGzip: true})
		r := &Request{Method: "GET", Path: "/a", Query: "x=1&y=2", Header: http.Header{"Accept-Encoding": {"gzip, br"}}}
		if !p.Plain() || string(p.AppendKey(nil, r)) != string(p.AppendPlainKey(nil, r.Path, r.Query, p.Takes(Accepted("gzip, br")))) {
			t.Errorf("%v: the keys differ", query)
		}
	}
}

func TestBehavioursDoNotShareObjectsUnlessTheirKeysMeanTheSame(t *testing.T) {
	r := &Request{Method: "GET", Path: "/a", Header: http.Header{"X-One": {"1"}, "X-Two": {"1"}}}
	base := distribution.Behaviour{Pattern: "*", Key: distribution.Selection{Headers: only("x-one")}}
	key := func(change func(b *distribution.Behaviour)) string {
		b := base
		change(&b)
		return string(Compile(&b).AppendKey(nil, r))
	}
	same := key(func(*distribution.Behaviour) {})
	if got := key(func(b *distribution.Behaviour) { b.TTL.Max, b.Origin = 1, "other" }); got != same {
		t.Error("what is no part of the key has changed it")
	}
	for name, change := range map[string]func(b *distribution.Behaviour){
		"another header": func(b *distribution.Behaviour) { b.Key.Headers = only("x-two") },
		"other paths":    func(b *distribution.Behaviour) { b.Pattern = "/private/*" },
	} {
		if key(change) == same {
			t.Errorf("%s: the same key", name)
		}
	}
}

func TestWhatIsForwarded(t *testing.T) {
	r := &Request{Method: "GET", Host: "www.example.net", Path: "/a", Query: "x=1&y=2&z=3", Header: http.Header{
		"Cookie": {"a=1; b=2"}, "Accept-Language": {"de"}, "Authorization": {"Basic x"}, "Referer": {"r"}, "X-Own": {"1"}, "Te": {"trailers"}, "Accept-Encoding": {"gzip"},
		"User-Agent": {"curl"}, "Connection": {"close"},
	}}
	for _, c := range []struct {
		name     string
		b        distribution.Behaviour
		query    string
		host     string
		cookie   string
		has, not string
	}{
		{"no policies", distribution.Behaviour{}, "", "", "", "", "Authorization Referer X-Own Accept-Language Te Connection"},
		{"all viewer", distribution.Behaviour{Forward: distribution.Selection{Headers: everything, Cookies: everything, Query: everything}},
			r.Query, r.Host, "a=1; b=2", "Authorization Referer X-Own", "Te Connection"},
		{"all viewer but Host", distribution.Behaviour{Forward: distribution.Selection{Headers: except("host"), Cookies: everything, Query: everything}},
			r.Query, "", "a=1; b=2", "Authorization Referer", "Te"},
		{"the key goes along", distribution.Behaviour{
			Key:     distribution.Selection{Headers: only("authorization"), Cookies: only("a"), Query: only("x")},
			Forward: distribution.Selection{Headers: only("referer"), Cookies: only("b"), Query: only("z")},
		}, "x=1&z=3", "", "a=1; b=2", "Authorization Referer", "X-Own"},
		{"the key wins over an exclusion", distribution.Behaviour{
			Key: distribution.Selection{Query: only("x")}, Forward: distribution.Selection{Query: except("x", "y")},
		}, "x=1&z=3", "", "", "", "Referer"},
		{"legacy", distribution.Behaviour{Legacy: true}, "", "", "", "X-Own", "Authorization Referer Accept-Language"},
	} {
		f := Compile(&c.b).Forward(r)
		if f.Query != c.query || f.Host != c.host || f.Header.Get("Cookie") != c.cookie {
			t.Errorf("%s: query %q, host %q, cookies %q", c.name, f.Query, f.Host, f.Header.Get("Cookie"))
		}
		for _, name := range strings.Fields(c.has) {
			if f.Header.Get(name) == "" {
				t.Errorf("%s: no %s", c.name, name)
			}
		}
		for _, name := range strings.Fields(c.not) {
			if f.Header.Get(name) != "" {
				t.Errorf("%s: %s was forwarded", c.name, name)
			}
		}
	}
}

func TestWhatViewersDoNotGetOfAnOrigin(t *testing.T) {
	h := http.Header{
		"Connection": {"X-Hop"}, "X-Hop": {"1"}, "Set-Cookie": {"a=1"}, "Vary": {"Accept-Language, Accept-Encoding, User-Agent"}, "Via": {"1.1 x"}, "X-Cache": {"HIT"}, "X-Own": {"1"},
	}
	p := Compile(&distribution.Behaviour{Key: distribution.Selection{Headers: only("accept-language")}})
	p.Clean(h)
	if len(h) != 2 || h.Get("X-Own") != "1" || h.Get("Vary") != "Accept-Language, Accept-Encoding" {
		t.Errorf("%v", h)
	}
	h = http.Header{"Set-Cookie": {"a=1", "b=2"}}
	if Compile(&distribution.Behaviour{Forward: distribution.Selection{Cookies: everything}}).Clean(h); len(h["Set-Cookie"]) != 2 {
		t.Error("cookies that are forwarded come back without their answers")
	}
}

func TestResponseHeadersPolicies(t *testing.T) {
	cors := &distribution.CORS{AllowOrigins: []string{"https://*.example.com"}, AllowMethods: []string{"GET"}, AllowHeaders: []string{"X-A"}, ExposeHeaders: []string{"X-B"}, MaxAge: 600e9}
	override := *cors
	override.Override = true
	for _, c := range []struct {
		name          string
		policy        distribution.ResponseHeaders
		request, sent http.Header
		method        string
		want, absent  string
	}{
		{"set unless sent", distribution.ResponseHeaders{Set: []distribution.HeaderValue{{Name: "X-Frame-Options", Value: "DENY"}}}, nil, http.Header{"X-Frame-Options": {"SAMEORIGIN"}}, "GET", "X-Frame-Options: SAMEORIGIN", ""},
		{"override", distribution.ResponseHeaders{Set: []distribution.HeaderValue{{Name: "X-Frame-Options", Value: "DENY", Override: true}}}, nil, http.Header{"X-Frame-Options": {"SAMEORIGIN"}}, "GET", "X-Frame-Options: DENY", ""},
		{"removed, then set", distribution.ResponseHeaders{Remove: []string{"server", "x-a"}, Set: []distribution.HeaderValue{{Name: "X-A", Value: "new"}}}, nil, http.Header{"Server": {"s"}, "X-A": {"old"}}, "GET", "X-A: new", "Server"},
		{"no Origin, no CORS", distribution.ResponseHeaders{CORS: cors}, nil, nil, "GET", "", "Access-Control-Allow-Origin"},
		{"origin", distribution.ResponseHeaders{CORS: cors}, http.Header{"Origin": {"https://a.example.com"}}, nil, "GET", "Access-Control-Allow-Origin: https://a.example.com|Access-Control-Expose-Headers: X-B|Vary: Origin", "Access-Control-Allow-Methods"},
		{"other origin", distribution.ResponseHeaders{CORS: cors}, http.Header{"Origin": {"https://example.org"}}, nil, "GET", "", "Access-Control-Allow-Origin"},
		{"preflight", distribution.ResponseHeaders{CORS: cors}, http.Header{"Origin": {"https://a.example.com"}, "Access-Control-Request-Method": {"GET"}}, nil, "OPTIONS", "Access-Control-Allow-Methods: GET|Access-Control-Allow-Headers: X-A|Access-Control-Max-Age: 600", "Access-Control-Expose-Headers"},
		{"the origin answers for itself", distribution.ResponseHeaders{CORS: cors}, http.Header{"Origin": {"https://a.example.com"}}, http.Header{"Access-Control-Allow-Origin": {"*"}}, "GET", "Access-Control-Allow-Origin: *", ""},
		{"or is overridden", distribution.ResponseHeaders{CORS: &override}, http.Header{"Origin": {"https://a.example.com"}}, http.Header{"Access-Control-Allow-Origin": {"*"}}, "GET", "Access-Control-Allow-Origin: https://a.example.com", ""},
	} {
		h := c.sent.Clone()
		if h == nil {
			h = http.Header{}
		}
		Compile(&distribution.Behaviour{ResponseHeaders: &c.policy}).Respond(h, &Request{Method: c.method, Header: c.request})
		for want := range strings.SplitSeq(c.want, "|") {
			if name, value, ok := strings.Cut(want, ": "); ok && h.Get(name) != value {
				t.Errorf("%s: %s is %q", c.name, name, h.Get(name))
			}
		}
		if c.absent != "" && h.Get(c.absent) != "" {
			t.Errorf("%s: %s is %q", c.name, c.absent, h.Get(c.absent))
		}
	}
}

// No two different requests may have one key, whatever they hold.
func FuzzKeysDoNotCollide(f *testing.F) {
	f.Add("/a", "x=1", "a=1", "de", "/b", "y=2", "b=2", "fr")
	f.Add("/a", "", "a=1; b=2", "", "/a", "", "a=1;b=2", "")
	p := Compile(&distribution.Behaviour{Key: distribution.Selection{Headers: only("accept-language"), Query: everything}})
	f.Fuzz(func(t *testing.T, path1, query1, cookie1, language1, path2, query2, cookie2, language2 string) {
		one := &Request{Method: "GET", Path: path1, Query: query1, Header: http.Header{"Cookie": {cookie1}, "Accept-Language": {language1}}}
		two := &Request{Method: "GET", Path: path2, Query: query2, Header: http.Header{"Cookie": {cookie2}, "Accept-Language": {language2}}}
		same := path1 == path2 && query1 == query2 && language1 == language2
		if got := string(p.AppendKey(nil, one)) == string(p.AppendKey(nil, two)); got != same {
			t.Errorf("the keys are equal: %v, the requests: %v", got, same)
		}
	})
}
