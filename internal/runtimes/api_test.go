package runtimes

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// testAPI is a Runtime API for one runtime process: it hands out events in
// order and records what the runtime posts.
type testAPI struct {
	*httptest.Server
	events chan testEvent
	posts  chan post
	// parked gets what the runtime gives against a snapshot when it calls
	// restore/next, which answers with what comes on restore.
	parked  chan string
	restore chan string
	// refuse, where it is set, decides the status of a post.
	refuse func(path string, body []byte) int
}

type testEvent struct {
	id     string
	body   string
	header map[string]string
}

// post is what the runtime posted.
type post struct {
	kind      string // response, error, init-error or restore-error
	id        string
	body      string
	header    http.Header
	errorType string // of an error, or in a trailer of a response
	errorBody string // in a trailer
	chunks    []string
}

func newTestAPI(t testing.TB) *testAPI {
	a := &testAPI{events: make(chan testEvent, 100), posts: make(chan post, 100), parked: make(chan string), restore: make(chan string, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", a.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/{kind}", func(w http.ResponseWriter, r *http.Request) {
		a.post(w, r, r.PathValue("kind"))
	})
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", func(w http.ResponseWriter, r *http.Request) {
		a.post(w, r, "init-error")
	})
	mux.HandleFunc("POST /2018-06-01/runtime/restore/error", func(w http.ResponseWriter, r *http.Request) {
		a.post(w, r, "restore-error")
	})
	mux.HandleFunc("GET /2018-06-01/runtime/restore/next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case a.parked <- r.Header.Get("Lapwing-Unfit"):
			select {
			case answer := <-a.restore:
				io.WriteString(w, answer)
			case <-r.Context().Done():
			}
		case <-r.Context().Done():
		}
	})
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Server.Close)
	return a
}

func (a *testAPI) next(w http.ResponseWriter, r *http.Request) {
	select {
	case e := <-a.events:
		h := w.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", e.id)
		h.Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(3*time.Second).UnixMilli()))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:123456789012:function:fn")
		h.Set("Content-Type", "application/json")
		for key, value := range e.header {
			h.Set(key, value)
		}
		io.WriteString(w, e.body)
	case <-r.Context().Done():
	}
}

func (a *testAPI) post(w http.ResponseWriter, r *http.Request, kind string) {
	p := post{kind: kind, id: r.PathValue("id"), header: r.Header.Clone(), errorType: r.Header.Get("Lambda-Runtime-Function-Error-Type")}
	var body bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			p.chunks = append(p.chunks, string(buf[:n]))
			body.Write(buf[:n])
		}
		if err != nil {
			break
		}
	}
	p.body = body.String()
	if t := r.Trailer.Get("Lambda-Runtime-Function-Error-Type"); t != "" {
		p.errorType = t
		text, _ := base64.StdEncoding.DecodeString(r.Trailer.Get("Lambda-Runtime-Function-Error-Body"))
		p.errorBody = string(text)
	}
	a.posts <- p
	if a.refuse != nil {
		if status := a.refuse(r.URL.Path, body.Bytes()); status != 0 {
			w.Header().Set("Connection", "close")
			http.Error(w, `{"errorMessage":"refused","errorType":"Test"}`, status)
			return
		}
	}
	w.WriteHeader(http.StatusAccepted)
	io.WriteString(w, `{"status":"OK"}`)
}

// process is a running runtime.
type process struct {
	t    testing.TB
	api  *testAPI
	cmd  *exec.Cmd
	exit chan error

	mu  sync.Mutex
	out bytes.Buffer
}

// Write collects output.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

// log returns what the runtime has written so far.
func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// waitForLog waits until the runtime has written words.
func (p *process) waitForLog(words string) {
	p.t.Helper()
	for range 2000 {
		if strings.Contains(p.log(), words) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	p.t.Fatalf("%q is not in the log", words)
}

// lines waits until the runtime has written n lines and returns its log.
func (p *process) lines(n int) string {
	p.t.Helper()
	for range 2000 {
		if log := p.log(); strings.Count(log, "\n") >= n {
			return log
		}
		time.Sleep(5 * time.Millisecond)
	}
	p.t.Fatalf("the log has fewer than %d lines", n)
	return ""
}

// startRuntime starts a runtime on this host, outside of a sandbox, with the
// function's files in a task directory of its own.
func startRuntime(t testing.TB, id, handler string, files map[string]string, env ...string) *process {
	t.Helper()
	return startRuntimeWith(t, id, handler, files, nil, env...)
}

// startRuntimeWith is startRuntime with further files from descriptor 3 on.
func startRuntimeWith(t testing.TB, id, handler string, files map[string]string, extra []*os.File, env ...string) *process {
	t.Helper()
	task := t.TempDir()
	for name, text := range files {
		path := filepath.Join(task, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := &process{t: t, api: newTestAPI(t), exit: make(chan error, 1)}
	p.cmd = nativeCommand(t, id)
	p.cmd.Dir = task
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = p, p, extra
	p.cmd.Env = append(p.cmd.Env,
		"AWS_LAMBDA_RUNTIME_API="+p.api.Listener.Addr().String(),
		"AWS_LAMBDA_FUNCTION_NAME=fn", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/fn", "AWS_LAMBDA_LOG_STREAM_NAME=2026/11/24/[$LATEST]0123456789abcdef",
		"AWS_EXECUTION_ENV=AWS_Lambda_"+id, "LAMBDA_TASK_ROOT="+task, "_HANDLER="+handler, "TZ=:UTC")
	p.cmd.Env = append(p.cmd.Env, env...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exit <- p.cmd.Wait() }()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		select {
		case <-p.exit:
		default:
		}
		if t.Failed() {
			t.Logf("%s wrote:\n%s", id, p.log())
		}
	})
	return p
}

// invoke sends an event and returns what the runtime posts.
func (p *process) invoke(body string, header ...string) post {
	p.t.Helper()
	e := testEvent{id: "8476a536-e9f4-11e8-9739-2dfe598c3fcd", body: body, header: map[string]string{}}
	for i := 0; i < len(header); i += 2 {
		e.header[header[i]] = header[i+1]
	}
	p.api.events <- e
	return p.posted()
}

// posted returns the runtime's next post.
func (p *process) posted() post {
	p.t.Helper()
	select {
	case got := <-p.api.posts:
		return got
	case <-time.After(20 * time.Second):
		p.t.Fatalf("the runtime posted nothing; it wrote:\n%s", p.log())
		return post{}
	}
}

// exitCode waits for the runtime to exit.
func (p *process) exitCode() int {
	p.t.Helper()
	select {
	case <-p.exit:
		p.exit <- nil
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		p.t.Fatalf("the runtime does not exit; it wrote:\n%s", p.log())
		return 0
	}
}

var testRegistry struct {
	sync.Mutex
	*Registry
}

// sharedRegistry returns a registry that keeps what it added between test
// runs: interpreters are large.
func sharedRegistry(t testing.TB) *Registry {
	t.Helper()
	testRegistry.Lock()
	defer testRegistry.Unlock()
	if testRegistry.Registry == nil {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(filepath.Join(cache, "lapwing-test", "runtimes"))
		if err != nil {
			t.Fatal(err)
		}
		testRegistry.Registry = r
	}
	return testRegistry.Registry
}

// provide makes sure that a runtime resolves. What a registry has is added and
// used even where this host has an interpreter, so that the tests run with the
// same ones everywhere.
func provide(t testing.TB, id string) interpreter {
	t.Helper()
	r := sharedRegistry(t)
	testRegistry.Lock()
	defer testRegistry.Unlock()
	s, _ := lookup(id)
	src, _ := r.sourceOf(s)
	if _, err := r.findAdded(s); errors.Is(err, fs.ErrNotExist) && src != nil {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := r.Add(ctx, id, nil); err != nil {
			t.Fatal(err)
		}
	}
	in, err := r.find(s)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// nativeCommand returns the command that starts a runtime's bootstrap on this
// host, with the interpreter that the runtime resolves to.
func nativeCommand(t testing.TB, id string) *exec.Cmd {
	t.Helper()
	in := provide(t, id)
	s, _ := lookup(id)
	boot, _, err := s.language.bootstrap(sharedRegistry(t), s, in)
	if err != nil {
		t.Fatal(err)
	}
	args := (&Runtime{language: s.language, Command: s.language.command(s)}).CommandFor(128, nil)[1:]
	for i := range args {
		args[i] = strings.Replace(args[i], runtimeDir, boot, 1)
	}
	cmd, err := in.native(context.Background(), s, args...)
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

// matchJSON reports whether got is the JSON that want describes: "*" stands
// for any value, a string that ends in "*" for any string that begins so, and
// "..." at the end of a list for any further elements.
func matchJSON(t testing.TB, want, got string) {
	t.Helper()
	var w, g any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("want: %v in %s", err, want)
	}
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("got: %v in %s", err, got)
	}
	if !matchValue(w, g) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func matchValue(want, got any) bool {
	switch w := want.(type) {
	case string:
		g, ok := got.(string)
		return w == "*" || ok && (w == g || strings.HasSuffix(w, "*") && strings.HasPrefix(g, strings.TrimSuffix(w, "*")))
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for key := range w {
			if _, ok := g[key]; !ok || !matchValue(w[key], g[key]) {
				return false
			}
		}
		return true
	case []any:
		g, ok := got.([]any)
		if !ok {
			return false
		}
		if n := len(w); n > 0 && w[n-1] == "..." {
			w = w[:n-1]
			g = g[:min(len(g), n-1)]
		}
		if len(g) != len(w) {
			return false
		}
		for i := range w {
			if !matchValue(w[i], g[i]) {
				return false
			}
		}
		return true
	}
	return want == got
}
