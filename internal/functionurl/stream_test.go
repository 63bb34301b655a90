package functionurl

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/invoke"
)

const nuls = "\x00\x00\x00\x00\x00\x00\x00\x00"

func TestStreamedResponses(t *testing.T) {
	const document = `{"statusCode":201,"headers":{"content-type":"text/html","x-a":"b"},"cookies":["c=d"]}`
	for _, c := range []struct {
		name   string
		answer func(io.Writer) (*invoke.Result, error)
		status int
		body   string
		header string // Content-Type, X-A and Set-Cookie
	}{
		{"plain", streams("text/event-stream", "a", "b"), 200, "ab", "text/event-stream,,"},
		{"of no type", streams("", "a"), 200, "a", "application/octet-stream,,"},
		{"of no bytes", streams("text/plain"), 200, "", "text/plain,,"},
		{"with a head", streams(integrated, document+nuls+"body"), 201, "body", "text/html,b,c=d"},
		{"with a head and no body", streams(integrated, document+nuls), 201, "", "text/html,b,c=d"},
		{"with a head of its own pieces", streams(integrated, document[:9], document[9:], nuls[:3], nuls[3:]+"bo", "dy"), 201, "body", "text/html,b,c=d"},
		{"with NULs in the body", streams(integrated, document+nuls, nuls+"x"), 201, nuls + "x", "text/html,b,c=d"},
		{"with a head that says little", streams(integrated, "{}"+nuls+"x"), 200, "x", "application/octet-stream,,"},
		{"with a head that is none", streams(integrated, "[]"+nuls+"x"), 502, "Internal Server Error", "application/json,,"},
		{"with a head without an end", streams(integrated, document), 502, "Internal Server Error", "application/json,,"},
		{"with a head that is too long", streams(integrated, strings.Repeat(" ", maxHead), "{} ", nuls), 502, "Internal Server Error", "application/json,,"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := public()
			u.Streaming = true
			f := &fakeFunctions{url: u, answer: c.answer}
			res := f.serve(t, request("GET", "/", ""), "")
			header := res.Header.Get("Content-Type") + "," + res.Header.Get("X-A") + "," + res.Header.Get("Set-Cookie")
			if got := body(t, res); res.StatusCode != c.status || got != c.body || header != c.header {
				t.Errorf("%d %q %q", res.StatusCode, got, header)
			}
			if c.status < 500 && res.Header.Get("Content-Length") != "" {
				t.Error("a stream of known length")
			}
		})
	}
}

func TestAStreamThatBreaksOffIsNoWholeResponse(t *testing.T) {
	for name, end := range map[string]func() (*invoke.Result, error){
		"an error of the function": func() (*invoke.Result, error) { return &invoke.Result{ErrorType: "Sandbox.Timedout"}, nil },
		"a fault of ours":          func() (*invoke.Result, error) { return nil, errors.New("gone") },
	} {
		t.Run(name, func(t *testing.T) {
			u := public()
			u.Streaming = true
			f := &fakeFunctions{url: u, answer: func(w io.Writer) (*invoke.Result, error) {
				streams("text/plain", "part")(w)
				return end()
			}}
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				New(Options{Functions: f}).ServeURL(w, r, testID, "")
			}))
			defer s.Close()
			res, err := http.Get(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); string(b) != "part" || err == nil {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

func TestFirstBytesComeBeforeTheFunctionEnds(t *testing.T) {
	u := public()
	u.Streaming = true
	read := make(chan struct{})
	f := &fakeFunctions{url: u, answer: func(w io.Writer) (*invoke.Result, error) {
		w.(invoke.Beginner).Begin("text/plain")
		io.WriteString(w, "first")
		<-read // as the client does, or the test hangs
		io.WriteString(w, " second")
		return &invoke.Result{}, nil
	}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		New(Options{Functions: f}).ServeURL(w, r, testID, "")
	}))
	defer s.Close()
	res, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("%q, %v", first, err)
	}
	close(read)
	if rest, err := io.ReadAll(res.Body); string(rest) != " second" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestBufferedURLOfAStreamingFunction(t *testing.T) {
	for _, c := range []struct{ contentType, payload, want string }{
		{integrated, `{"statusCode":201}` + nuls + "body", "201 body application/octet-stream"},
		{integrated, `{"statusCode":201}`, "502 Internal Server Error application/json"},
		{"text/html", "<p>", "200 <p> text/html"},
	} {
		f := &fakeFunctions{url: public(), answer: func(w io.Writer) (*invoke.Result, error) {
			io.WriteString(w, c.payload)
			return &invoke.Result{ContentType: c.contentType}, nil
		}}
		res := f.serve(t, request("GET", "/", ""), "")
		got := strings.Join([]string{res.Status[:3], body(t, res), res.Header.Get("Content-Type")}, " ")
		if got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
