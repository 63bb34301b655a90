package functionurl

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"golang.org/x/net/http/httpguts"

	"lapwing.dev/lapwing/internal/invoke"
)

// checkHead fails if a head could not be sent as it stands.
func checkHead(t *testing.T, h *head) {
	t.Helper()
	if h.status < 200 || h.status > 599 {
		t.Errorf("status %d", h.status)
	}
	for name, value := range h.headers {
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			t.Errorf("header %q: %q", name, value)
		}
	}
	for _, c := range h.cookies {
		if !httpguts.ValidHeaderFieldValue(c) {
			t.Errorf("cookie %q", c)
		}
	}
}

func FuzzInterpret(f *testing.F) {
	for _, s := range []string{
		`{"statusCode":200,"headers":{"a":"b"},"cookies":["c"],"body":"x","isBase64Encoded":false}`, `"x"`, ` [1]`, `{"statusCode":"200","body":{}}`, `null`, "{}" + nuls,
	} {
		f.Add([]byte(s), "application/json")
		f.Add([]byte(s), integrated)
		f.Add([]byte(s), "text/plain")
	}
	f.Fuzz(func(t *testing.T, payload []byte, contentType string) {
		if !httpguts.ValidHeaderFieldValue(contentType) {
			return // the Runtime API's server refuses it
		}
		if res, err := interpret(payload, contentType); err == nil {
			checkHead(t, &res.head)
		}
	})
}

// FuzzStreamHead checks that a head reads the same in whatever pieces it comes.
func FuzzStreamHead(f *testing.F) {
	f.Add([]byte(`{"statusCode":201,"headers":{"a":"b"}}`+nuls+"body"), 5)
	f.Add([]byte("{}"+nuls+nuls), 9)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		cut = max(0, min(cut, len(data)))
		serve := func(chunks ...string) (int, string, http.Header) {
			u := public()
			u.Streaming = true
			fake := &fakeFunctions{url: u, answer: streams(integrated, chunks...)}
			res := fake.serve(t, request("GET", "/", ""), "")
			return res.StatusCode, body(t, res), res.Header
		}
		status, whole, header := serve(string(data))
		status2, parts, header2 := serve(string(data[:cut]), string(data[cut:]))
		if status != status2 || whole != parts || len(header) != len(header2) {
			t.Errorf("whole: %d %q, in two: %d %q", status, whole, status2, parts)
		}
	})
}

// FuzzEvent checks that every request makes a JSON document.
func FuzzEvent(f *testing.F) {
	f.Add("/a%20b", "x=1&x=%zz&&=", "a=b; c", "text/plain", []byte("body"))
	f.Add("//", "a+b=%C3%28", ";;", "application/json", []byte{0xff})
	f.Fuzz(func(t *testing.T, path, query, cookie, contentType string, content []byte) {
		fake := &fakeFunctions{url: public(), answer: func(w io.Writer) (*invoke.Result, error) { return returns("{}")(w) }}
		r := request("POST", "/", string(content), "Cookie", cookie, "Content-Type", contentType)
		r.URL.Path, r.URL.RawPath, r.URL.RawQuery = path, "", query
		fake.serve(t, r, "")
		if len(content) < 1<<20 && (!json.Valid(fake.event) || bytes.ContainsRune(fake.event, '\n')) {
			t.Errorf("event %q", fake.event)
		}
	})
}
