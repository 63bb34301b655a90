package gateway

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
)

func TestFunctionURLHost(t *testing.T) {
	const id = "abcdefghijklmnopqrstuvwxyz234567"
	domains := []string{"localhost", "lapwing.example"}
	for host, want := range map[string]string{
		id + ".lambda-url.eu-west-1.localhost:4566":          id,
		id + ".lambda-url.eu-west-1.lapwing.example":         id,
		id + ".lambda-url.eu-west-1.on.aws":                  id,
		"ABC.Lambda-URL.eu-west-1.LOCALHOST.":                "abc",
		id + ".lambda-url.us-east-1.localhost":               "", // another Region
		id + ".lambda-url.eu-west-1.elsewhere.test":          "",
		id + ".lambda-url.eu-west-1":                         "",
		"a.b.lambda-url.eu-west-1.localhost":                 "",
		".lambda-url.eu-west-1.localhost":                    "",
		"localhost:4566":                                     "",
		"lambda-url.eu-west-1.localhost":                     "",
		"bucket.s3.localhost":                                "",
		id + ".lambda-url.eu-west-1.notlocalhost":            "",
		id + ".lambda-url.eu-west-1.sub.lapwing.example:443": "",
	} {
		if got := functionURLHost(host, "eu-west-1", domains); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}

func FuzzFunctionURLHost(f *testing.F) {
	f.Add("id.lambda-url.eu-west-1.localhost:4566")
	f.Add("[::1].lambda-url.")
	f.Fuzz(func(t *testing.T, host string) { functionURLHost(host, "eu-west-1", []string{"localhost"}) })
}

type urlRecorder struct{ got []string }

func (u *urlRecorder) ServeURL(w http.ResponseWriter, r *http.Request, id, prefix string) {
	request := aws.RequestFrom(r.Context())
	u.got = append(u.got, fmt.Sprintf("%s %q %s %s %t", id, prefix, r.URL.EscapedPath(), request.Region, request.ID == w.Header().Get("X-Amzn-Requestid")))
}

func TestFunctionURLsAreServedByHostAndByPath(t *testing.T) {
	urls := &urlRecorder{}
	g := newBed(t, slog.LevelWarn, func(o *Options) { o.FunctionURLs = urls }).gateway
	for _, target := range []string{
		"http://id.lambda-url." + region + ".localhost/_lapwing/url/x/y", "http://127.0.0.1/_lapwing/url/id/a%2Fb", "http://127.0.0.1/_lapwing/url/id",
		"http://127.0.0.1/_lapwing/health",
	} {
		g.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", target, nil))
	}
	want := []string{
		`id "" /_lapwing/url/x/y ` + region + ` true`,
		`id "/_lapwing/url/id" /_lapwing/url/id/a%2Fb ` + region + ` true`,
		`id "/_lapwing/url/id" /_lapwing/url/id ` + region + ` true`,
	}
	if fmt.Sprint(urls.got) != fmt.Sprint(want) {
		t.Errorf("got %q\nwant %q", urls.got, want)
	}
}
