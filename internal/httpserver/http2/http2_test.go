package http2

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// start serves a server over TLS until the end of the test, and returns its address.
func start(t testing.TB, s *Server) string {
	t.Helper()
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"h2"}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				c := tls.Server(NewLink(raw), config)
				if c.HandshakeContext(context.Background()) == nil {
					s.ServeConn(t.Context(), c)
				}
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// certificate makes one for localhost, which signs itself.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// client is net/http's, which speaks HTTP/2 only.
func client(t testing.TB) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: protocols, ExpectContinueTimeout: 5 * time.Second} //nolint:gosec
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// serve serves a handler and returns its URL and a client.
func serve(t testing.TB, h http.HandlerFunc) (string, *http.Client) {
	t.Helper()
	return "https://" + start(t, &Server{Handler: h}), client(t)
}

func TestRequestsAreAnsweredAsTheHandlerSays(t *testing.T) {
	url, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.Header().Set("X-Line", "a\r\nb: c")
		switch r.URL.Path {
		case "/empty":
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/large":
			w.Write(bytes.Repeat([]byte("x"), 300_000))
		case "/long-head":
			w.Header().Set("X-Long", strings.Repeat("Ωl", 20_000))
		default:
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s %s %d %s", r.Method, r.Host, r.RequestURI, r.Header["Cookie"], r.ContentLength, body)
		}
	})
	for _, test := range []struct {
		method, path, body, want string
		status                   int
		lengthless               bool
	}{
		{"GET", "/a?b=c%20d", "", "GET h /a?b=c%20d [a=1; b=2; c=3] 0 ", 200, false},
		{"POST", "/a", "text", "POST h /a [a=1; b=2; c=3] 4 text", 200, false},
		{"HEAD", "/a", "", "", 200, true},
		{"GET", "/empty", "", "", 200, false},
		{"GET", "/none", "", "", 204, false},
		{"GET", "/large", "", strings.Repeat("x", 300_000), 200, true},
		{"GET", "/long-head", "", "", 200, false},
	} {
		r, err := http.NewRequestWithContext(t.Context(), test.method, url+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "h"
		r.Header["Cookie"] = []string{"a=1; b=2", "c=3"}
		answer, err := c.Do(r)
		if err != nil {
			t.Errorf("%s: %v", test.path, err)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || string(body) != test.want || answer.StatusCode != test.status || (answer.ContentLength != int64(len(body))) != test.lengthless {
			t.Errorf("%s %s: %d %q, length %d, %v", test.method, test.path, answer.StatusCode, body[:min(len(body), 100)], answer.ContentLength, err)
		}
		if answer.Header.Get("X-Line") != "a  b: c" || answer.Header["Date"] == nil || answer.Header["Connection"] != nil {
			t.Errorf("%v", answer.Header)
		}
	}
}

func TestBodiesPassBothWaysAtOnce(t *testing.T) {
	url, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		b := make([]byte, 10_000)
		for {
			n, err := r.Body.Read(b)
			if n > 0 {
				_, _ = w.Write(b[:n])
				_ = http.NewResponseController(w).Flush()
			}
			if err != nil {
				return
			}
		}
	})
	in, out := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", url, in)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	// One piece after the other: neither side waits for the end.
	got := make([]byte, 5)
	for i := range 3 {
		fmt.Fprintf(out, "ping%d", i)
		if _, err := io.ReadFull(answer.Body, got); err != nil || string(got) != fmt.Sprintf("ping%d", i) {
			t.Fatalf("%q %v", got, err)
		}
	}
	// More than all windows.
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	go func() {
		_, _ = out.Write(data)
		_ = out.Close()
	}()
	if back, err := io.ReadAll(answer.Body); err != nil || !bytes.Equal(back, data) {
		t.Errorf("%d bytes, %v", len(back), err)
	}
}

func TestManyRequestsAtOnce(t *testing.T) {
	url, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		w.Write(bytes.Repeat([]byte{byte(n)}, n*1000))
	})
	var g sync.WaitGroup
	for n := range 200 {
		g.Go(func() {
			answer, err := c.Get(url + "/" + strconv.Itoa(n))
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			if b, err := io.ReadAll(answer.Body); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(n)}, n*1000)) {
				t.Errorf("%d: %d bytes, %v", n, len(b), err)
			}
		})
	}
	g.Wait()
}

func TestTrailersPassBothWays(t *testing.T) {
	url, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Declared")
		if r.URL.Path == "/body" {
			io.Copy(w, r.Body)
		} else {
			io.Copy(io.Discard, r.Body)
		}
		w.Header().Set("X-Declared", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Late", "late")
	})
	for _, path := range []string{"/body", "/none"} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", url+path, io.MultiReader(strings.NewReader("text")))
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"X-Sum": {"123"}}
		answer, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			t.Error(err)
		}
		_ = answer.Body.Close()
		if answer.Trailer.Get("X-Declared") != "123" || answer.Trailer.Get("X-Late") != "late" || answer.Header["X-Declared"] != nil {
			t.Errorf("%s: %v %v", path, answer.Header, answer.Trailer)
		}
	}
}

func TestLengthsAndTrailersAreSaidOnceAndWhereTheyMayBe(t *testing.T) {
	p := dial(t, start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Trailer"] = []string{"X-Sum, Content-Length", "X-Sum"}
		switch r.URL.Path {
		case "/none":
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusNoContent)
		case "/wrong":
			w.Header()["Content-Length"] = []string{"many", "3"}
			_, _ = io.WriteString(w, "four")
		case "/twice":
			w.Header()["Content-Length"] = []string{"4", "4"}
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "four")
		}
		w.Header().Set("X-Sum", "1")
	})}))
	for i, want := range []struct {
		path   string
		length []string
	}{{"/none", nil}, {"/wrong", []string{"4"}}, {"/twice", []string{"4"}}} {
		id := uint32(2*i + 1)
		p.request(id, true, ":path", want.path)
		var lengths, sums []string
		for ended := false; !ended; {
			f := p.next("HEADERS")
			if f.stream != id {
				continue
			}
			for _, field := range f.fields {
				switch field.Name {
				case "content-length":
					lengths = append(lengths, field.Value)
				case "x-sum":
					sums = append(sums, field.Value)
				}
			}
			ended = f.end
		}
		if !slices.Equal(lengths, want.length) || len(sums) != 1 {
			t.Errorf("%s: lengths %q, trailers %q", want.path, lengths, sums)
		}
	}
}

func TestInterimAnswers(t *testing.T) {
	url, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	})
	var got []string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, h.Get("Link")))
			return nil
		},
		Got100Continue: func() { got = append(got, "go on") },
	})
	r, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader("text"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Expect", "100-continue")
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted || strings.Join(got, ", ") != "103</a.css>, 100, go on" {
		t.Errorf("%d after %q", answer.StatusCode, got)
	}
}

func TestAnswersThatAreNotWholeAreBrokenOff(t *testing.T) {
	url, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "short")
		_ = http.NewResponseController(w).Flush()
		switch r.URL.Path {
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/panic":
			panic("oops")
		}
	})
	for _, path := range []string{"/", "/abort", "/panic"} {
		answer, err := c.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(answer.Body); err == nil {
			t.Errorf("%q was taken as whole", b)
		}
		_ = answer.Body.Close()
	}
}

func TestPanicIsAnsweredWith500(t *testing.T) {
	url, c := serve(t, func(w http.ResponseWriter, r *http.Request) { panic("oops") })
	answer, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != 500 {
		t.Error(answer.Status)
	}
}

func TestAnUploadThatNobodyReadsEndsWithTheAnswer(t *testing.T) {
	url, c := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) })
	for range 5 { // the connection's window is given back each time
		answer, err := c.Post(url, "", io.LimitReader(zeros{}, 10<<20))
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusForbidden {
			t.Error(answer.Status)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestHandlerNoticesThatTheViewerHasGone(t *testing.T) {
	began, gone := make(chan struct{}), make(chan error, 1)
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		_, err := r.Body.Read(make([]byte, 1))
		<-r.Context().Done()
		gone <- err
	})})
	for name, end := range map[string]func(*peer){
		"RST_STREAM": func(p *peer) { p.check(p.WriteRSTStream(1, 8)) },
		"the end":    func(p *peer) { _ = p.conn.Close() },
	} {
		p := dial(t, addr)
		p.request(1, false, ":method", "POST", ":path", "/")
		<-began
		end(p)
		if err := <-gone; err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: the body ends with %v", name, err)
		}
	}
}

func TestReadDeadlinesOfUploads(t *testing.T) {
	got := make(chan error, 1)
	s := &Server{BodyTimeout: 100 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/own":
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		case "/later":
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		}
		b, err := io.ReadAll(r.Body)
		if string(b) != "some" {
			err = fmt.Errorf("%q, %w", b, err)
		}
		got <- err
		w.WriteHeader(http.StatusRequestTimeout)
	})}
	addr := start(t, s)
	for _, path := range []string{"/", "/own", "/later"} {
		p := dial(t, addr)
		p.request(1, false, ":method", "POST", ":path", path)
		p.check(p.WriteData(1, false, []byte("some")))
		if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", path, err)
		}
		if answer := p.answer(1); answer.status != "408" || answer.reset != "NO_ERROR" {
			t.Errorf("%s: %+v", path, answer)
		}
	}
}

func TestWriteDeadlineOfAHandler(t *testing.T) {
	got := make(chan error, 1)
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := w.Write(make([]byte, 1<<20))
		got <- err
	})})
	p := dial(t, addr)
	p.request(1, true)
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if answer := p.answer(1); answer.reset != "CANCEL" {
		t.Errorf("%+v", answer)
	}
}

func TestShutdownLetsRequestsEnd(t *testing.T) {
	began, answer := make(chan struct{}, 2), make(chan struct{})
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-answer
		io.WriteString(w, "done")
	})}
	addr := start(t, s)
	idle, busy := dial(t, addr), dial(t, addr)
	busy.request(1, true)
	<-began
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(t.Context()) }()
	// The viewer hears of it, and has sent another request before.
	if f := busy.next("GOAWAY"); f.text != "last 2147483647, NO_ERROR" {
		t.Errorf("%+v", f)
	}
	busy.request(3, true)
	<-began
	busy.pong()
	if f := busy.next("GOAWAY"); f.text != "last 3, NO_ERROR" {
		t.Errorf("%+v", f)
	}
	busy.request(5, true) // nobody answers it
	close(answer)
	for _, id := range []uint32{1, 3} {
		if a := busy.answer(id); a.body != "done" {
			t.Errorf("%d: %+v", id, a)
		}
	}
	busy.end()
	idle.end() // after a moment, in which it does not answer the PING
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestShutdownBreaksOffWhatTakesTooLong(t *testing.T) {
	began := make(chan struct{})
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
	})}
	p := dial(t, start(t, s))
	p.request(1, true)
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	p.end()
}
