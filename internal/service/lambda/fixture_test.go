package lambda

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/erofs/go-erofs"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/events"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/image"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/state"
)

const (
	testAccount = "123456789012"
	testRegion  = "eu-central-1"
	testRole    = "arn:aws:iam::" + testAccount + ":role/service-role/lambda"
	arnPrefix   = "arn:aws:lambda:" + testRegion + ":" + testAccount + ":function:"
)

// fixture is a service on a data directory that can be reopened.
type fixture struct {
	*Service
	t       testing.TB
	dir     string
	opts    Options
	store   *state.Store
	invoker *fakeInvoker
	objects *fakeObjects
	events  *fakeEvents
	clock   *clock
}

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fakeInvoker answers with the event, or as reply says.
type fakeInvoker struct {
	mu      sync.Mutex
	reply   func(ctx context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error)
	last    *invoke.Request
	retired []string
	limits  map[string]invoke.Limits
	states  map[string]invoke.AllocationStatus // by version ARN
}

func (f *fakeInvoker) Invoke(ctx context.Context, req *invoke.Request, w io.Writer) (*invoke.Result, error) {
	f.mu.Lock()
	f.last = req
	reply := f.reply
	f.mu.Unlock()
	if reply != nil {
		return reply(ctx, req, w)
	}
	_, err := w.Write(req.Payload)
	return &invoke.Result{ContentType: "application/json"}, err
}

func (f *fakeInvoker) Retire(arn, version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = append(f.retired, arn+" "+version)
}

func (f *fakeInvoker) Configure(arn string, l invoke.Limits) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.limits == nil {
		f.limits = map[string]invoke.Limits{}
	}
	f.limits[arn] = l
}

func (f *fakeInvoker) Allocation(v *function.Version) invoke.AllocationStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.states[v.ARN()]
}

func (f *fakeInvoker) request() *invoke.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// fakeEvents keeps what was queued.
type fakeEvents struct {
	mu   sync.Mutex
	all  []*events.Event
	fail error
}

func (f *fakeEvents) Accept(_ context.Context, e *events.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		f.all = append(f.all, e)
	}
	return f.fail
}

// fakeObjects is S3 with objects by "bucket/key".
type fakeObjects struct{ objects map[string][]byte }

func (f *fakeObjects) OpenObject(_ context.Context, bucket, key, version string) (io.ReadCloser, int64, string, string, error) {
	if bucket != "bucket" {
		return nil, 0, "", "", &aws.Error{Code: "NoSuchBucket", Status: 404, Message: "The specified bucket does not exist"}
	}
	b, ok := f.objects[bucket+"/"+key+version]
	if !ok {
		return nil, 0, "", "", &aws.Error{Code: "NoSuchKey", Status: 404, Message: "The specified key does not exist."}
	}
	return io.NopCloser(bytes.NewReader(b)), int64(len(b)), version, "etag", nil
}

func newFixture(t testing.TB, change ...func(*Options)) *fixture {
	t.Helper()
	return newFixtureIn(t, t.TempDir(), change...)
}

// newFixtureIn opens a service on a directory.
func newFixtureIn(t testing.TB, dir string, change ...func(*Options)) *fixture {
	t.Helper()
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
	f := &fixture{
		t: t, dir: dir,
		invoker: &fakeInvoker{},
		objects: &fakeObjects{objects: map[string][]byte{}},
		events:  &fakeEvents{},
		clock:   &clock{now: time.Date(2026, 11, 24, 1, 2, 3, 456e6, time.UTC)},
	}
	f.opts = Options{
		AccountID: testAccount, Region: testRegion, Architecture: "x86_64",
		Invoker: f.invoker, Objects: f.objects, Events: f.events, Now: f.clock.Now,
		RuntimeVersion: func(region, id string) (string, error) {
			if !strings.HasPrefix(id, "nodejs2") && !strings.HasPrefix(id, "provided") && !strings.HasPrefix(id, "python3.1") {
				return "", errors.New("nothing serves it; run: lapwing runtimes add " + id)
			}
			return "arn:aws:lambda:" + region + "::runtime:" + id, nil
		},
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, c := range change {
		c(&f.opts)
	}
	f.open()
	t.Cleanup(f.close)
	return f
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (f *fixture) open() {
	f.t.Helper()
	var err error
	if f.store, err = state.Open(f.t.Context(), state.Options{Dir: f.dir}); err != nil {
		f.t.Fatal(err)
	}
	if f.opts.Images, err = image.Open(filepath.Join(f.dir, "images"), slog.New(slog.DiscardHandler)); err != nil {
		f.t.Fatal(err)
	}
	f.opts.Store = f.store
	records, err := distribution.Open(f.t.Context(), f.store)
	if err != nil {
		f.t.Fatal(err)
	}
	f.opts.Replicas = records.Replicas
	if f.Service, err = New(f.t.Context(), f.opts); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) close() {
	if f.Service == nil {
		return
	}
	f.Service.Close()
	if err := f.store.Close(); err != nil {
		f.t.Error(err)
	}
	f.Service = nil
}

func (f *fixture) reopen() {
	f.t.Helper()
	f.close()
	f.open()
}

func (f *fixture) ctx() context.Context {
	return aws.WithRequest(f.t.Context(), &aws.Request{ID: "11111111-2222-3333-4444-555555555555", Region: testRegion, AccountID: testAccount, BaseURL: "http://127.0.0.1:4566"})
}

// pkg is a package of files given as name, content, name, content…
func pkg(t testing.TB, files ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for i := 0; i < len(files); i += 2 {
		fw, err := w.Create(files[i])
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(fw, files[i+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// declaring is a package with a file that says it has this size.
func declaring(t testing.TB, size uint64) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	fw, err := w.CreateRaw(&zip.FileHeader{Name: "big", Method: zip.Deflate, CompressedSize64: size / 1000, UncompressedSize64: size})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fw.Write(make([]byte, size/1000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// input is the least that a function needs.
func (f *fixture) input(name string) *api.CreateFunctionInput {
	return &api.CreateFunctionInput{
		FunctionName: aws.Ptr(name), Role: aws.Ptr(testRole), Runtime: "nodejs22.x", Handler: aws.Ptr("index.handler"),
		Code: &api.FunctionCode{ZipFile: pkg(f.t, "index.js", "// "+name)},
	}
}

// create makes a function and waits until it is Active.
func (f *fixture) create(name string, change ...func(*api.CreateFunctionInput)) {
	f.t.Helper()
	in := f.input(name)
	for _, c := range change {
		c(in)
	}
	if _, err := f.CreateFunction(f.ctx(), in); err != nil {
		f.t.Fatal(err)
	}
	f.settled(name)
}

// settled waits until nothing is under way and returns the configuration.
func (f *fixture) settled(name string) *api.FunctionConfiguration {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		c := f.get(name, "")
		if c.State != api.StatePending && c.LastUpdateStatus != api.LastUpdateStatusInProgress {
			return c
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s is still %s, %s", name, c.State, c.LastUpdateStatus)
		}
	}
}

func (f *fixture) get(name, qualifier string) *api.FunctionConfiguration {
	f.t.Helper()
	out, err := f.GetFunctionConfiguration(f.ctx(), &api.GetFunctionConfigurationInput{FunctionName: &name, Qualifier: optional(qualifier)})
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

func (f *fixture) publish(name string) string {
	f.t.Helper()
	out, err := f.PublishVersion(f.ctx(), &api.PublishVersionInput{FunctionName: &name})
	if err != nil {
		f.t.Fatal(err)
	}
	return *out.Version
}

// change updates the description, so that the next version differs.
func (f *fixture) change(name, description string) {
	f.t.Helper()
	_, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: &name, Description: &description})
	if err != nil {
		f.t.Fatal(err)
	}
	f.settled(name)
}

// readImage reads a file in an image.
func (f *fixture) readImage(image, name string) ([]byte, error) {
	file, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	tree, err := erofs.Open(file)
	if err != nil {
		return nil, err
	}
	return fs.ReadFile(tree, name)
}

// stored lists the blobs and images on disk.
func (f *fixture) stored() (digests []string) {
	f.t.Helper()
	for _, pattern := range []string{"images/*.erofs", "blobs/lambda-code/??/*"} {
		paths, err := filepath.Glob(filepath.Join(f.dir, pattern))
		if err != nil {
			f.t.Fatal(err)
		}
		for _, p := range paths {
			digests = append(digests, strings.Split(pattern, "/")[0]+" "+filepath.Base(p)[:8])
		}
	}
	slices.Sort(digests)
	return digests
}

// wantError checks an error's code and message.
func wantError(t testing.TB, err error, code, message string) {
	t.Helper()
	e, ok := errors.AsType[*aws.Error](err)
	if !ok {
		t.Errorf("got %v, want %s: %s", err, code, message)
		return
	}
	if e.Code != code || !strings.Contains(e.Message, message) {
		t.Errorf("got %s: %s\nwant %s: %s", e.Code, e.Message, code, message)
	}
}

const (
	codeInvalid   = "InvalidParameterValueException"
	codeNotFound  = "ResourceNotFoundException"
	codeConflict  = "ResourceConflictException"
	codeStale     = "PreconditionFailedException"
	codeMalformed = "ValidationException"
)
