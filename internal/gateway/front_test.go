package gateway

import (
	"archive/zip"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	sdklambda "github.com/aws/aws-sdk-go-v2/service/lambda"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/events"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/service/lambda"
	"lapwing.dev/lapwing/internal/state"
)

// echo is a data plane that answers with the event.
type echo struct{}

func (echo) Invoke(_ context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error) {
	if req.After != nil {
		req.After(func() {})
	}
	_, err := w.Write(req.Payload)
	return &invoke.Result{ContentType: "application/json"}, err
}

func (echo) Retire(string, string)                                {}
func (echo) Configure(string, invoke.Limits)                      {}
func (echo) Allocation(*function.Version) invoke.AllocationStatus { return invoke.AllocationStatus{} }
func (echo) Accept(context.Context, *events.Event) error          { return nil }

// newEcho returns the Lambda service with a function of the name echo.
func newEcho(t testing.TB, account string) *lambda.Service {
	t.Helper()
	dir := t.TempDir()
	store, err := state.Open(t.Context(), state.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	images, err := image.Open(filepath.Join(dir, "images"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	records, err := distribution.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	s, err := lambda.New(t.Context(), lambda.Options{
		AccountID: account, Region: region, Store: store, Images: images, Invoker: echo{}, Events: echo{}, Replicas: records.Replicas,
		RuntimeVersion: func(region, id string) (string, error) { return "arn:aws:lambda:" + region + "::runtime:" + id, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var code bytes.Buffer
	w := zip.NewWriter(&code)
	if _, err := w.Create("index.js"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := aws.WithRequest(t.Context(), &aws.Request{Region: region, AccountID: account})
	_, err = s.CreateFunction(ctx, &api.CreateFunctionInput{
		FunctionName: aws.Ptr("echo"), Role: aws.Ptr("arn:aws:iam::" + account + ":role/lambda"), Runtime: "nodejs22.x", Handler: aws.Ptr("index.handler"),
		Code: &api.FunctionCode{ZipFile: code.Bytes()},
	})
	if err != nil {
		t.Fatal(err)
	}
	for {
		c, err := s.GetFunctionConfiguration(ctx, &api.GetFunctionConfigurationInput{FunctionName: aws.Ptr("echo")})
		if err != nil {
			t.Fatal(err)
		}
		if c.State == api.StateActive {
			return s
		}
		time.Sleep(time.Millisecond)
	}
}

// newFront returns a server in front of the echo function, and a request to invoke
// it with 1 KB as an AWS SDK sends it.
func newFront(t testing.TB) (*Server, []byte) {
	t.Helper()
	b := newBed(t, slog.LevelInfo, func(o *Options) {
		o.Services[0] = api.NewService(newEcho(t, o.AccountID))
		o.FunctionURLs, o.Registry = noURLs{}, http.NotFoundHandler()
	})
	var sent []byte
	client := sdklambda.NewFromConfig(b.root(), func(o *sdklambda.Options) {
		o.HTTPClient = roundTrip(func(r *http.Request) (*http.Response, error) {
			var err error
			if sent, err = httputil.DumpRequestOut(r, true); err != nil {
				return nil, err
			}
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})
	})
	payload := []byte(`{"text":"` + strings.Repeat("x", 1024-11) + `"}`)
	if _, err := client.Invoke(t.Context(), &sdklambda.InvokeInput{FunctionName: sdkaws.String("echo"), Payload: payload}); err != nil {
		t.Fatal(err)
	}
	server := NewServer(ServerOptions{Handler: b.gateway, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server, sent
}

type noURLs struct{}

func (noURLs) ServeURL(w http.ResponseWriter, r *http.Request, _, _ string) { http.NotFound(w, r) }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) Do(r *http.Request) (*http.Response, error) { return f(r) }

// repeating is a connection on which a request comes as often as next says, each
// when the one before is answered, and that costs next to nothing.
type repeating struct {
	net.Conn // of which nothing is used
	next     func() bool
	request  []byte
	left     []byte // of the present request
	answer   []byte // the last one
	writes   int
}

func (r *repeating) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		if !r.next() {
			return 0, io.EOF
		}
		r.left = r.request
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

func (r *repeating) Write(p []byte) (int, error) {
	r.answer = append(r.answer[:0], p...)
	r.writes++
	return len(p), nil
}

func (r *repeating) Close() error        { return nil }
func (r *repeating) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9000} }
func (r *repeating) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9001}
}
func (r *repeating) SetDeadline(time.Time) error      { return nil }
func (r *repeating) SetReadDeadline(time.Time) error  { return nil }
func (r *repeating) SetWriteDeadline(time.Time) error { return nil }

func TestAnAnswerLeavesInOneWrite(t *testing.T) {
	server, request := newFront(t)
	n := 0
	c := &repeating{request: request, next: func() bool { n++; return n <= 10 }}
	server.http1.ServeConn(t.Context(), c)
	if c.writes != 10 || !bytes.HasPrefix(c.answer, []byte("HTTP/1.1 200 OK\r\n")) || !bytes.HasSuffix(c.answer, []byte(`xx"}`)) {
		t.Errorf("%d writes for 10 answers:\n%s", c.writes, c.answer)
	}
}

// BenchmarkFrontDoor is an invocation without what runs it and without the system
// calls.
func BenchmarkFrontDoor(b *testing.B) {
	server, request := newFront(b)
	b.ReportAllocs()
	c := &repeating{request: request, next: b.Loop}
	server.http1.ServeConn(b.Context(), c)
	if !bytes.HasPrefix(c.answer, []byte("HTTP/1.1 200 OK\r\n")) {
		b.Fatalf("%s", c.answer)
	}
}

// BenchmarkFrontDoorTCP is the same over TCP, with the client's part of it.
func BenchmarkFrontDoorTCP(b *testing.B) {
	server, request := newFront(b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(l, nil); err != nil {
			b.Error(err)
		}
	})
	defer wg.Wait()
	defer server.Shutdown(context.Background()) // where it fails, Serve does
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	answer := make([]byte, 8<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		n, err := c.Read(answer)
		if err != nil || !bytes.HasSuffix(answer[:n], []byte(`xx"}`)) {
			b.Fatalf("%s: %v", answer[:n], err)
		}
	}
}
