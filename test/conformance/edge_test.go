package conformance_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/test/harness"
)

// example is the distribution of one of the examples.
type example struct {
	t      *testing.T
	server *harness.Server
	domain string
}

var domainOutput = regexp.MustCompile(`DomainName = (\S+)`)

// deployExample deploys one of the examples in demo/edge, as its reader would.
func deployExample(t *testing.T, s *harness.Server, name string) *example {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run("deploy", filepath.Join(root, "demo/edge", name, "template.yaml"))
	m := domainOutput.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return &example{t, s, string(m[1])}
}

// get asks for a path, and follows no redirect.
func (x *example) get(path string, header ...string) (*http.Response, string) {
	x.t.Helper()
	r, err := http.NewRequestWithContext(x.t.Context(), http.MethodGet, x.server.URL()+path, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	return x.do(r, header)
}

func (x *example) do(r *http.Request, header []string) (*http.Response, string) {
	x.t.Helper()
	r.Host = x.domain
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		x.t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	if err := res.Write(&b); err != nil {
		x.t.Fatal(err)
	}
	return res, b.String()
}

// want checks the status, where an answer came from, and what is in it.
func (x *example) want(path string, status int, from string, text string, header ...string) *http.Response {
	x.t.Helper()
	res, body := x.get(path, header...)
	if res.StatusCode != status || res.Header.Get("X-Cache") != from+" from cloudfront" || !strings.Contains(body, text) {
		x.t.Errorf("%s %q: %d, %s; want %d, %s, with %q\n%s", path, header, res.StatusCode, res.Header.Get("X-Cache"), status, from, text, body)
	}
	return res
}

// browser is a Chromium with a profile of its own, which is one visitor.
type browser struct {
	t    *testing.T
	dir  string
	args []string
}

func newBrowser(t *testing.T, s *harness.Server, args ...string) *browser {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Fatal("chromium is not installed: run scripts/setup conformance")
	}
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, t.TempDir(), append(args, "--host-resolver-rules=MAP *.cloudfront.net "+net.JoinHostPort(u.Hostname(), u.Port()))}
}

// open visits an address and returns the page as it is when its scripts have run.
func (b *browser) open(address string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "chromium", append(b.args,
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir="+b.dir, "--virtual-time-budget=10000", "--dump-dom", address)...)
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("chromium %s: %v", address, err)
	}
	return string(out)
}

// find returns what an expression finds in a page.
func (b *browser) find(address, expression string) string {
	b.t.Helper()
	page := b.open(address)
	m := regexp.MustCompile(expression).FindStringSubmatch(page)
	if m == nil {
		b.t.Fatalf("%s has no %s:\n%s", address, expression, page)
	}
	return m[1]
}

// The four examples of Lambda@Edge are deployed, each by one command, and do what
// they say, as HTTP clients and a browser see it.
func TestEdgeExamplesInABrowser_Conformance(t *testing.T) {
	needs(t, "Debian's chromium")
	dir := t.TempDir()
	places := filepath.Join(dir, "places")
	if err := os.WriteFile(places, []byte("127.0.0.0/8 CH\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if err := harness.AddRuntimes(data, nodeRuntime); err != nil {
		t.Fatal(err)
	}
	s, err := harness.Start(data, "--geo-database", places)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("personalise", func(t *testing.T) {
		x := deployExample(t, s, "personalise")
		x.want("/", 200, "Miss", "Bienvenue", "Accept-Language", "fr-CH, fr;q=0.9, en;q=0.8")
		x.want("/", 200, "Hit", "Bienvenue", "Accept-Language", "fr-FR")
		x.want("/", 200, "Miss", "Willkommen", "Accept-Language", "it, de;q=0.5")
		x.want("/offer.json", 200, "Miss", "CHF 7")
		x.want("/offer.json", 200, "Hit", "CHF 7", "CloudFront-Viewer-Country", "DE")
		b := newBrowser(t, s, "--accept-lang=de-CH")
		if got := b.find("http://"+x.domain+"/", `(?s)(<h1>.*?</h1>.*id="offer">.*?)</strong>`); !strings.Contains(got, "Willkommen") || !strings.Contains(got, "CHF 7") {
			t.Errorf("the browser shows %s", got)
		}
	})
	t.Run("ab-test", func(t *testing.T) {
		x := deployExample(t, s, "ab-test")
		for _, colour := range []string{"red", "blue"} {
			x.want("/images/bag.svg", 200, "Miss", "The "+colour+" bag", "Cookie", "sid=7; bag="+colour)
			res := x.want("/images/bag.svg", 200, "Hit", "The "+colour+" bag", "Cookie", "bag="+colour)
			if c := res.Header.Get("Set-Cookie"); c != "" {
				t.Errorf("who has a colour is given %s", c)
			}
		}
		seen := map[string]bool{}
		for range 64 {
			res, body := x.get("/images/bag.svg")
			colour := strings.TrimPrefix(strings.Split(res.Header.Get("Set-Cookie"), ";")[0], "bag=")
			if res.Header.Get("X-Cache") != "Hit from cloudfront" || !strings.Contains(body, "The "+colour+" bag") {
				t.Fatalf("%s, cookie %s: %s", res.Header.Get("X-Cache"), colour, body)
			}
			seen[colour] = true
		}
		if !seen["red"] || !seen["blue"] {
			t.Errorf("64 visitors saw %v", seen)
		}
		for range 2 {
			b := newBrowser(t, s)
			first := b.find("http://"+x.domain+"/", `id="colour">(red|blue)<`)
			for range 2 {
				if again := b.find("http://"+x.domain+"/", `id="colour">(red|blue)<`); again != first {
					t.Errorf("the visitor saw the %s bag, and then the %s one", first, again)
				}
			}
		}
	})
	t.Run("access-control", func(t *testing.T) {
		x := deployExample(t, s, "access-control")
		res := x.want("/members/", 302, "LambdaGeneratedResponse", "")
		if got := res.Header.Get("Location"); got != "/login?back=%2Fmembers%2F" {
			t.Errorf("redirected to %s", got)
		}
		form := url.Values{"name": {"Ada"}, "back": {"/members/"}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/login", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		res, _ = x.do(r, []string{"Content-Type", "application/x-www-form-urlencoded"})
		token, _, _ := strings.Cut(res.Header.Get("Set-Cookie"), ";")
		x.want("/members/", 200, "Miss", "The members' room", "Cookie", token)
		x.want("/members/", 200, "Hit", "The members' room", "Cookie", token)
		x.want("/members/", 302, "LambdaGeneratedResponse", "")
		x.want("/members/", 302, "LambdaGeneratedResponse", "", "Cookie", token+"x")

		b := newBrowser(t, s)
		if got := b.find("http://"+x.domain+"/members/", `<h1>(.*)</h1>`); got != "Sign in" {
			t.Errorf("a stranger sees %s", got)
		}
		page := filepath.Join(t.TempDir(), "form.html")
		text := fmt.Sprintf(`<form method="post" action="http://%s/login"><input name="name" value="Ada"><input name="back" value="/members/"></form><script>document.forms[0].submit()</script>`, x.domain)
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, address := range []string{"file://" + page, "http://" + x.domain + "/members/"} {
			if got := b.find(address, `<h1>(.*)</h1>`); got != "The members' room" {
				t.Errorf("who signed in sees %s at %s", got, address)
			}
		}
	})
	t.Run("seo", func(t *testing.T) {
		x := deployExample(t, s, "seo")
		for _, from := range []string{"Miss", "Hit"} {
			res := x.want("/shoes/red-runner-42", 200, from, "<h1>Red Runner</h1>")
			if got := res.Header.Get("Link"); got != `</shoes/red-runner-42>; rel="canonical"` || res.Header.Get("Strict-Transport-Security") == "" {
				t.Errorf("header is %v", res.Header)
			}
		}
		for _, from := range []string{"LambdaGeneratedResponse", "Hit"} {
			if res := x.want("/product/42", 301, from, ""); res.Header.Get("Location") != "/shoes/red-runner-42" {
				t.Errorf("redirected to %s", res.Header.Get("Location"))
			}
		}
		b := newBrowser(t, s)
		if got := b.find("http://"+x.domain+"/product/7", `<h1>(.*)</h1>`); got != "Blue Hiker" {
			t.Errorf("the browser shows %s", got)
		}
	})
}
