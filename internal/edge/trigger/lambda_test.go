package trigger

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/state"
)

// fakeInvoker answers invocations.
type fakeInvoker struct {
	answer func(*invoke.Request, io.Writer) (*invoke.Result, error)

	mu      sync.Mutex
	retired []string
}

func (f *fakeInvoker) Invoke(_ context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error) {
	return f.answer(req, w)
}

func (f *fakeInvoker) Retire(arn, version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = append(f.retired, arn+":"+version)
}

// fakeLogs keeps what it is given.
type fakeLogs struct {
	mu  sync.Mutex
	all []string
}

func (f *fakeLogs) Append(group, _ string, events []logstore.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		f.all = append(f.all, group+" "+e.Message)
	}
	return nil
}

// fakePackages is code packages by digest.
type fakePackages map[string][]byte

func (f fakePackages) OpenPackage(_ context.Context, digest string) (Package, int64, error) {
	b, ok := f[digest]
	if !ok {
		return nil, 0, errors.New("no such package")
	}
	return struct {
		io.ReaderAt
		io.Closer
	}{bytes.NewReader(b), io.NopCloser(nil)}, int64(len(b)), nil
}

func zipOf(t *testing.T, content string) (b []byte, digest string) {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	w, err := z.Create("index.js")
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(buf.Bytes())
	return buf.Bytes(), hex.EncodeToString(sum[:])
}

type fixture struct {
	*Lambda
	records *distribution.Records
	images  *image.Store
	invoker *fakeInvoker
	logs    *fakeLogs
	zips    fakePackages
}

const replicaARN = "arn:aws:lambda:us-east-1:123456789012:function:hello:3"

var behaviour = &distribution.Behaviour{Functions: map[distribution.EventType]distribution.LambdaAssociation{
	distribution.ViewerRequest: {ARN: replicaARN},
}}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	store, err := state.Open(t.Context(), state.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	f := &fixture{invoker: &fakeInvoker{}, logs: &fakeLogs{}, zips: fakePackages{}}
	if f.records, err = distribution.Open(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if f.images, err = image.Open(t.TempDir(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	f.Lambda = NewLambda(Options{
		Account: "123456789012", Region: "eu-central-1", Location: "FRA56-P1", Replicas: f.records.Replicas,
		Invoker: f.invoker, Images: f.images, Packages: f.zips, Logs: f.logs, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	t.Cleanup(f.Close)
	return f
}

// replicate writes the record of a replica and waits until it is ready.
func (f *fixture) replicate(t *testing.T, content, revision string) distribution.LambdaReplica {
	t.Helper()
	b, digest := zipOf(t, content)
	f.zips[digest] = b
	rec := distribution.LambdaReplica{
		Format: distribution.Format, ARN: replicaARN, Name: "hello", Version: "3", Revision: revision, Runtime: "nodejs22.x",
		Handler: "index.handler", Role: "arn:aws:iam::123456789012:role/edge", MemoryMB: 128, Timeout: 5 * time.Second, EphemeralMB: 512,
		Code: digest, Size: int64(len(b)), LogFormat: "Text",
	}
	item, err := f.records.Replicas.Put(t.Context(), rec.ARN, rec)
	if err != nil {
		t.Fatal(err)
	}
	f.await(t, item.Revision)
	return rec
}

func (f *fixture) await(t *testing.T, revision uint64) {
	t.Helper()
	for f.Applied() < revision {
		select {
		case <-t.Context().Done():
			t.Fatal("the replica does not become ready")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestReplicaRunsUnderItsRegionsName(t *testing.T) {
	f := newFixture(t)
	rec := f.replicate(t, "1", "a")
	var got *invoke.Request
	f.invoker.answer = func(r *invoke.Request, w io.Writer) (*invoke.Result, error) {
		got = r
		io.WriteString(w, `{"status":"302","headers":{}}`)
		return &invoke.Result{}, nil
	}
	x := viewerRequest()
	if err := f.Run(t.Context(), testDistribution, behaviour, distribution.ViewerRequest, x); err != nil {
		t.Fatal(err)
	}
	if x.Response == nil || x.Response.Status != 302 {
		t.Errorf("response is %+v", x.Response)
	}
	v := got.Version
	if v.Name != "us-east-1.hello" || v.Region != "eu-central-1" || v.Logging.Group != "/aws/lambda/us-east-1.hello" || v.Revision != "a" {
		t.Errorf("version is %+v", v)
	}
	if want := "arn:aws:lambda:eu-central-1:123456789012:function:us-east-1.hello:3"; got.InvokedARN != want {
		t.Errorf("invoked as %s, want %s", got.InvokedARN, want)
	}
	if !f.images.Has(rec.Code) || v.Code != f.images.Path(rec.Code) {
		t.Error("the image of its code is not there")
	}
	if !strings.Contains(string(got.Payload), `"eventType":"viewer-request"`) {
		t.Errorf("event is %s", got.Payload)
	}
}

func TestEventWithoutFunctionRunsNothing(t *testing.T) {
	f := newFixture(t)
	if err := f.Run(t.Context(), testDistribution, behaviour, distribution.OriginRequest, viewerRequest()); err != nil {
		t.Fatal(err)
	}
}

func TestFailuresOfFunctionsHaveAWSsClasses(t *testing.T) {
	f := newFixture(t)
	f.replicate(t, "1", "a")
	for _, c := range []struct {
		name   string
		answer func(*invoke.Request, io.Writer) (*invoke.Result, error)
		class  Class
		status int
		text   string
		logged int
	}{
		{"exception", func(_ *invoke.Request, w io.Writer) (*invoke.Result, error) {
			io.WriteString(w, `{"errorType":"Error"}`)
			return &invoke.Result{FunctionError: "Unhandled"}, nil
		}, LambdaExecution, 503, textExecution, 0},
		{"throttle", func(*invoke.Request, io.Writer) (*invoke.Result, error) {
			return nil, &aws.Error{Code: "TooManyRequestsException", Status: 429}
		}, LambdaLimit, 503, textLimit, 0},
		{"no capacity", func(*invoke.Request, io.Writer) (*invoke.Result, error) {
			return nil, &aws.Error{Code: "ServiceException", Status: 500}
		}, LambdaExecution, 503, textExecution, 0},
		{"no result", func(_ *invoke.Request, w io.Writer) (*invoke.Result, error) {
			io.WriteString(w, `null`)
			return &invoke.Result{}, nil
		}, LambdaValidation, 502, reasonObject, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.invoker.answer = c.answer
			before := len(f.logs.all)
			err := f.Run(t.Context(), testDistribution, behaviour, distribution.ViewerRequest, viewerRequest())
			failed, ok := errors.AsType[*Error](err)
			if !ok || failed.Class != c.class || failed.Status() != c.status || failed.Text != c.text {
				t.Errorf("got %v", err)
			}
			if n := len(f.logs.all) - before; n != c.logged {
				t.Errorf("%d lines logged, want %d", n, c.logged)
			}
		})
	}
	if line := f.logs.all[0]; !strings.HasPrefix(line, "/aws/cloudfront/LambdaEdge/E1LAPWING00001 ") || !strings.Contains(line, "Validation error: ") || !strings.Contains(line, "Zx3==") {
		t.Errorf("log has %q", line)
	}
}

func TestVersionThatIsNotThereIsAnExecutionError(t *testing.T) {
	f := newFixture(t)
	err := f.Run(t.Context(), testDistribution, behaviour, distribution.ViewerRequest, viewerRequest())
	if failed, ok := errors.AsType[*Error](err); !ok || failed.Class != LambdaExecution {
		t.Errorf("got %v", err)
	}
}

func TestReplicaThatIsGivenUpLeavesNothing(t *testing.T) {
	f := newFixture(t)
	rec := f.replicate(t, "1", "a")
	item, _ := f.records.Replicas.Get(replicaARN)
	if err := f.records.Replicas.Delete(t.Context(), replicaARN, item.Revision); err != nil {
		t.Fatal(err)
	}
	f.await(t, item.Revision+1)
	if f.replicas.get(replicaARN) != nil || f.images.Has(rec.Code) {
		t.Error("the replica or its image is still there")
	}
	if want := "arn:aws:lambda:eu-central-1:123456789012:function:us-east-1.hello:3"; len(f.invoker.retired) != 1 || f.invoker.retired[0] != want {
		t.Errorf("retired %q, want %s", f.invoker.retired, want)
	}
}

func TestDamagedPackageDoesNotRun(t *testing.T) {
	f := newFixture(t)
	b, _ := zipOf(t, "other")
	_, digest := zipOf(t, "expected")
	f.zips[digest] = b
	if err := f.replicas.ensure(t.Context(), digest); err == nil || f.images.Has(digest) {
		t.Errorf("got %v", err)
	}
}
