package gateway

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
)

// start serves a handler on a new port.
func start(t *testing.T, h http.Handler, tlsConfig *tls.Config) (*Server, string) {
	t.Helper()
	s := NewServer(ServerOptions{Handler: h, Logger: slog.New(slog.DiscardHandler)})
	addr := serveOn(t, s, tlsConfig)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return s, addr
}

func serveOn(t *testing.T, s *Server, tlsConfig *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := s.Serve(l, tlsConfig); err != nil {
			t.Error(err)
		}
	}()
	return l.Addr().String()
}

// client speaks exactly one protocol.
func client(t *testing.T, set func(*http.Protocols), tlsConfig *tls.Config) *http.Client {
	p := new(http.Protocols)
	set(p)
	transport := &http.Transport{Protocols: p, TLSClientConfig: tlsConfig}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(t *testing.T, c *http.Client, url string) (proto, body string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.Proto, string(b)
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") })

func TestServerSpeaksHTTP1AndHTTP2OnOnePort(t *testing.T) {
	a, err := OpenAuthority(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	trust := &tls.Config{RootCAs: trustOf(t, a)}
	s, plain := start(t, hello, nil)
	secure := serveOn(t, s, a.TLS()) // several listeners, one server
	tests := map[string]struct {
		set  func(*http.Protocols)
		url  string
		want string
	}{
		"HTTP/1.1":                 {func(p *http.Protocols) { p.SetHTTP1(true) }, "http://" + plain, "HTTP/1.1"},
		"HTTP/2, prior knowledge":  {func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, "http://" + plain, "HTTP/2.0"},
		"HTTP/1.1 over TLS":        {func(p *http.Protocols) { p.SetHTTP1(true) }, "https://" + secure, "HTTP/1.1"},
		"HTTP/2 negotiated in TLS": {func(p *http.Protocols) { p.SetHTTP2(true) }, "https://" + secure, "HTTP/2.0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			proto, body := get(t, client(t, tt.set, trust), tt.url)
			if proto != tt.want || body != "hello" {
				t.Errorf("got %s, %q", proto, body)
			}
		})
	}
}

func TestAClientThatIsStillSendingReadsWhyItIsRefused(t *testing.T) {
	_, addr := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	}), nil)
	for range 5 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		const size = 8 << 20
		if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size); err != nil {
			t.Fatal(err)
		}
		piece := make([]byte, size/64)
		for range 64 {
			if _, err := c.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusRequestEntityTooLarge || !res.Close {
			t.Error(res.Status, "and another request may follow:", !res.Close)
		}
	}
}

func TestShutdownWaitsForRequestsUnderWay(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s, addr := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "done")
	}), nil)
	answer := make(chan string, 1)
	go func() {
		res, err := http.Get("http://" + addr)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		answer <- string(b)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	// Once the listener is closed, the shutdown waits for nothing but the request.
	for {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-stopped:
		t.Fatalf("shut down with a request under way: %v", err)
	default:
	}
	close(release)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if got := <-answer; got != "done" {
		t.Errorf("the request got %q", got)
	}
}

func TestShutdownTakesNoRequestsOnAnyProtocolWhileOneIsUnderWay(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s, addr := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			close(entered)
			<-release
		}
	}), nil)
	c := client(t, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, nil)
	if proto, _ := get(t, c, "http://"+addr); proto != "HTTP/2.0" {
		t.Fatal(proto)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if res, err := http.Get("http://" + addr); err == nil {
			res.Body.Close()
		}
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		res, err := c.Get("http://" + addr)
		if err != nil {
			break
		}
		res.Body.Close()
		if time.Now().After(limit) {
			t.Error("requests are taken on HTTP/2 while one on HTTP/1.1 is under way")
			break
		}
	}
	close(release)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	<-answered
}

func TestShutdownBreaksOffWhatDoesNotEnd(t *testing.T) {
	entered, left := make(chan struct{}), make(chan struct{})
	s, addr := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(left)
	}), nil)
	go func() {
		if res, err := http.Get("http://" + addr); err == nil {
			res.Body.Close()
		}
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	<-left
}

func TestServerLimitsHeaders(t *testing.T) {
	_, addr := start(t, hello, nil)
	r, err := http.NewRequest("GET", "http://"+addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Big", strings.Repeat("a", maxHeaderBytes+8<<10))
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestServerLetsGoOfClientsThatKeepItWaiting(t *testing.T) {
	read := make(chan error, 1)
	s := NewServer(ServerOptions{Logger: slog.New(slog.DiscardHandler), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := new(exchange)
		x.response.init(w, r, time.Hour)
		x.body.init(r.Body, &x.response)
		_, err := io.ReadAll(&x.body)
		read <- err
	})})
	for _, limit := range []*time.Duration{&s.http1.HeaderTimeout, &s.http1.FirstTimeout, &s.http1.BodyTimeout} {
		if *limit == 0 || *limit > time.Minute {
			t.Errorf("a client may take %v", *limit)
		}
		*limit = 20 * time.Millisecond
	}
	addr := serveOn(t, s, nil)
	for name, send := range map[string]string{
		"nothing":         "",
		"half a header":   "GET / HTTP/1.1\r\nHost: a\r\nX-A: ",
		"half a body":     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
		"half of a chunk": "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, send); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil { // until the server closes it
			t.Errorf("%s: %v", name, err)
		}
		if strings.HasPrefix(send, "POST") {
			if e, ok := errors.AsType[*aws.Error](<-read); !ok || e.Code != "RequestTimeout" {
				t.Errorf("%s: the body ended with %v", name, e)
			}
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func hashHex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
