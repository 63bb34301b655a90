package compress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func text(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "line %d of a text that repeats itself\n", i)
	}
	return b.Bytes()[:n]
}

func decode(t *testing.T, c Coding, b []byte) []byte {
	t.Helper()
	var r io.Reader
	var err error
	switch c {
	case Brotli:
		r = brotli.NewReader(bytes.NewReader(b))
	case Gzip:
		r, err = gzip.NewReader(bytes.NewReader(b))
	case Zstd:
		r, err = zstd.NewReader(bytes.NewReader(b))
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBodiesAreCompressedAndComeBack(t *testing.T) {
	for _, c := range []Coding{Brotli, Gzip, Zstd} {
		for _, n := range []int{0, 1, minSize, 100_000, 3_000_000} {
			for range 2 { // with an encoder that was used before
				z := NewReader(c, io.NopCloser(bytes.NewReader(text(n))))
				got, err := io.ReadAll(z)
				if err != nil {
					t.Fatal(err)
				}
				z.Close()
				if !bytes.Equal(decode(t, c, got), text(n)) {
					t.Errorf("%s: %d bytes differ", c, n)
				}
				if n > minSize && len(got) > n/3 {
					t.Errorf("%s: %d bytes became %d", c, n, len(got))
				}
			}
		}
	}
}

func TestBodyThatBreaksOffStaysBroken(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []Coding{Brotli, Gzip, Zstd} {
		z := NewReader(c, io.NopCloser(io.MultiReader(bytes.NewReader(text(50_000)), iotest.ErrReader(boom))))
		if _, err := io.ReadAll(z); !errors.Is(err, boom) {
			t.Errorf("%s: %v", c, err)
		}
		z.Close()
		if _, err := z.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: a closed body is read", c)
		}
	}
}

func TestWhatIsCompressed(t *testing.T) {
	for _, c := range []struct {
		status int
		header string
		want   bool
	}{
		{200, "Content-Type: text/html", true},
		{200, "Content-Type: Text/HTML; charset=utf-8", true},
		{200, "Content-Type: image/svg+xml", true},
		{200, "Content-Type: application/wasm", true},
		{403, "Content-Type: text/plain", true},
		{404, "Content-Type: application/json", true},
		{200, "", false},
		{200, "Content-Type: image/png", false},
		{200, "Content-Type: application/octet-stream", false},
		{500, "Content-Type: text/html", false},
		{206, "Content-Type: text/html", false},
		{301, "Content-Type: text/html", false},
		{200, "Content-Type: text/html\nContent-Length: 999", false},
		{200, "Content-Type: text/html\nContent-Length: 1000", true},
		{200, "Content-Type: text/html\nContent-Length: 10000000", true},
		{200, "Content-Type: text/html\nContent-Length: 10000001", false},
		{200, "Content-Type: text/html\nContent-Length: none", false},
		{200, "Content-Type: text/html\nContent-Encoding: identity", false},
		{200, "Content-Type: text/html\nCache-Control: max-age=1, No-Transform", false},
	} {
		h := http.Header{}
		for line := range strings.Lines(c.header) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			h.Set(name, value)
		}
		if h.Get("Content-Length") == "" {
			h.Set("Content-Length", "5000")
		} else if h.Get("Content-Length") == "none" {
			h.Del("Content-Length")
		}
		if got := Applies(c.status, h); got != c.want {
			t.Errorf("%d %q: %v", c.status, c.header, got)
		}
	}
}

func TestHeaderOfACompressedAnswer(t *testing.T) {
	for tag, want := range map[string]string{`"a"`: `W/"a"`, `W/"a"`: `W/"a"`, `a`: "", "": ""} {
		h := http.Header{"Content-Length": {"5"}, "Vary": {"Cookie"}, "Accept-Ranges": {"bytes"}}
		if tag != "" {
			h.Set("Etag", tag)
		}
		Header(h, Gzip)
		if got := h.Get("Etag"); got != want {
			t.Errorf("tag %s became %s", tag, got)
		}
		if h.Get("Content-Encoding") != "gzip" || len(h["Content-Length"]) > 0 || fmt.Sprint(h["Vary"]) != "[Cookie Accept-Encoding]" {
			t.Errorf("%v", h)
		}
	}
	h := http.Header{"Vary": {"accept-encoding, Cookie"}}
	if Header(h, Brotli); len(h["Vary"]) != 1 {
		t.Errorf("%v", h)
	}
}
