package guest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/http1"
	"lapwing.dev/lapwing/internal/guest/proto"
)

func init() {
	functions["chatty"] = chatty
	functions["long-line"] = longLine
	functions["framed"] = framed
	functions["truncate"] = truncate
	functions["bad-mode"] = badMode
	functions["slow-stream"] = slowStream
	functions["endless-log"] = endlessLog
	functions["many-conns"] = manyConns
	functions["local-socket"] = localSocket
}

// chatty writes much more than a pipe holds before each response.
func chatty() {
	line := strings.Repeat("c", 99) + "\n"
	for {
		id, _ := nextID()
		for range 20_000 {
			os.Stdout.WriteString(line)
		}
		post("/2018-06-01/runtime/invocation/"+id+"/response", "", "{}")
	}
}

// localSocket echoes one event over the Unix socket.
func localSocket() {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", Socket)
	}}}
	const invocation = "http://" + Address + "/2018-06-01/runtime/invocation/"
	event, err := client.Get(invocation + "next")
	if err != nil {
		panic(err)
	}
	_, err = client.Post(invocation+event.Header.Get("Lambda-Runtime-Aws-Request-Id")+"/response", "", event.Body)
	if err != nil {
		panic(err)
	}
	client.Get(invocation + "next")
}

func longLine() {
	id, _ := nextID()
	os.Stdout.WriteString("\n" + strings.Repeat("l", proto.MaxLogLine+10) + "\nend\n")
	post("/2018-06-01/runtime/invocation/"+id+"/response", "", "{}")
	nextID()
}

func framed() {
	fd, err := strconv.Atoi(os.Getenv("_LAMBDA_TELEMETRY_LOG_FD"))
	if err != nil {
		panic(err)
	}
	f := os.NewFile(uintptr(fd), "log")
	frame := func(kind uint32, msg string) []byte {
		b := make([]byte, logFrameHeader)
		putFrameHeader(b, kind, len(msg), 1_700_000_000_000_000)
		return append(b, msg...)
	}
	all := slices.Concat(
		frame(0xa55a0003|0x0c, "two\nlines"),
		frame(0xa55a0002|0x14, `{"a":1}`),
		frame(0xa55a0003, strings.Repeat("f", proto.MaxLogLine+1)),
		frame(0xa55a0003, ""),
	)
	id, _ := nextID()
	for len(all) > 0 { // in awkward pieces
		n := min(7919, len(all))
		f.Write(all[:n])
		all = all[n:]
	}
	fmt.Fprintln(f, "not a frame, but longer than the header of one")
	post("/2018-06-01/runtime/invocation/"+id+"/response", "", "{}")
	nextID()
}

// truncate announces more than it sends.
func truncate() {
	id, _ := nextID()
	c, err := net.Dial("tcp", Address)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(c, "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", id)
	c.(*net.TCPConn).CloseWrite()
	resp, _ := io.ReadAll(c)
	fmt.Println(strings.ReplaceAll(string(resp), "\r\n", " "))
	nextID()
}

func badMode() {
	id, _ := nextID()
	c, err := net.Dial("tcp", Address)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(c, "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nLambda-Runtime-Function-Response-Mode: buffered\r\n\r\n{}", id)
	line, _ := bufio.NewReader(c).ReadString('\n')
	fmt.Println(strings.TrimSpace(line))
	nextID()
}

// slowStream streams three parts, the next one when a line has been logged.
func slowStream() {
	for {
		id, _ := nextID()
		c, err := net.Dial("tcp", Address)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(c, "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nContent-Type: text/event-stream\r\n\r\n", id)
		for range 3 {
			fmt.Fprint(c, "4\r\npart\r\n")
			time.Sleep(30 * time.Millisecond)
		}
		fmt.Fprint(c, "0\r\n\r\n")
		bufio.NewReader(c).ReadString('\n')
		c.Close()
	}
}

// endlessLog goes on writing in a child that outlives the invocation.
func endlessLog() {
	if os.Getenv("CHILD") != "" {
		for {
			os.Stdout.WriteString(strings.Repeat("e", 1023) + "\n")
		}
	}
	os.Setenv("CHILD", "1")
	if _, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}}); err != nil {
		panic(err)
	}
	rawEcho()
}

// manyConns opens more connections than are served.
func manyConns() {
	var conns []net.Conn
	for range http1.MaxConns {
		c, err := net.Dial("tcp", Address)
		if err != nil {
			panic(err)
		}
		conns = append(conns, c)
	}
	c, err := net.Dial("tcp", Address)
	if err != nil {
		panic(err)
	}
	line, _ := bufio.NewReader(c).ReadString('\n')
	fmt.Println(strings.TrimSpace(line))
	for _, c := range conns {
		c.Close()
	}
	for refused := true; refused; { // until the server has seen them go
		c, err := net.Dial("tcp", Address)
		if err != nil {
			panic(err)
		}
		fmt.Fprint(c, "GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		refused = !strings.Contains(line, "200 OK")
		c.Close()
	}
	rawEcho()
}

func TestLogsBeyondThePipeDoNotBlockTheResponse(t *testing.T) {
	s := run(t, "chatty")
	s.invoke(t, "{}")
	if n := len(s.logs.all()); n != 20_000 {
		t.Errorf("%d lines before the end of the invocation", n)
	}
}

func TestEndlessLogDoesNotHoldUpInvocations(t *testing.T) {
	s := run(t, "endless-log")
	for range 3 {
		if r, _ := s.invoke(t, `"x"`); string(r.body) != `"x"` {
			t.Errorf("got %q", r.body)
		}
	}
}

func TestTheRuntimeAPIIsOnAUnixSocketToo(t *testing.T) {
	s := run(t, "local-socket")
	if r, _ := s.invoke(t, `"echo"`); string(r.body) != `"echo"` || r.err != nil {
		t.Errorf("answer %q, %+v", r.body, r.err)
	}
}

func TestLongLinesAreSplit(t *testing.T) {
	s := run(t, "long-line")
	s.invoke(t, "{}")
	got := s.logs.all()
	if len(got) != 4 || got[0] != "" || len(got[1]) != proto.MaxLogLine || got[2] != strings.Repeat("l", 10) || got[3] != "end" {
		t.Errorf("%d messages: %.40q", len(got), got)
	}
}

func TestFramedLogs(t *testing.T) {
	s := startSandbox(t, "")
	start := role("framed")
	start.FramedLogs = true
	if res, err := s.Start(t.Context(), start); err != nil || res.Err != nil {
		t.Fatal(err, res)
	}
	s.invoke(t, "{}")
	got, meta := s.logs.all(), s.logs.meta
	want := []string{"two\nlines", `{"a":1}`, strings.Repeat("f", proto.MaxLogLine), "f", "", "not a frame, but longer than the header of one"}
	if !slices.Equal(got, want) {
		t.Fatalf("%d messages: %.60q", len(got), got)
	}
	if meta[0] != (proto.Log{TimeUs: 1_700_000_000_000_000, Source: "function", Level: "INFO"}) ||
		meta[1] != (proto.Log{TimeUs: 1_700_000_000_000_000, Source: "function", Level: "ERROR", JSON: true}) {
		t.Errorf("meta %+v", meta[:2])
	}
}

func TestTruncatedResponse(t *testing.T) {
	s := run(t, "truncate")
	r, out := s.invoke(t, "{}")
	if out.Error == nil || out.Error.Type != "Runtime.TruncatedResponse" || string(r.body) != "half" {
		t.Errorf("got %q %+v", r.body, out.Error)
	}
	contains(t, strings.Join(s.logs.all(), ""), `400 Bad Request`)
	contains(t, strings.Join(s.logs.all(), ""), `"errorType":"TruncatedHTTPRequest"`)
}

func TestUnknownResponseModeFailsTheInvocation(t *testing.T) {
	s := run(t, "bad-mode")
	_, out := s.invoke(t, "{}")
	if out.Error == nil || out.Error.Type != "Runtime.InvalidResponseModeHeader" {
		t.Errorf("got %+v", out.Error)
	}
	contains(t, strings.Join(s.logs.all(), ""), "400 Bad Request")
}

func TestStreamedPartsArriveOneByOne(t *testing.T) {
	s := run(t, "slow-stream")
	var sizes []int
	r := &reply{write: func(p []byte) { sizes = append(sizes, len(p)) }}
	inv := invocation()
	inv.Streaming = true
	if _, err := s.Invoke(t.Context(), inv, nil, r); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(sizes, []int{4, 4, 4}) || !r.start.Streaming || r.start.ContentType != "text/event-stream" {
		t.Errorf("parts %v, %+v", sizes, r.start)
	}
}

func TestSlowReaderHoldsBackTheResponseButNotLogs(t *testing.T) {
	s := run(t, "big")
	inv := invocation()
	inv.Streaming = true
	release := make(chan struct{})
	first := true
	r := &reply{write: func([]byte) {
		if first {
			first = false
			<-release
		}
	}}
	done := make(chan error, 1)
	go func() {
		_, err := s.Invoke(t.Context(), inv, []byte("20000000"), r)
		done <- err
	}()
	select {
	case <-done:
		t.Fatal("the invocation ended with its response unread")
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if err := <-done; err != nil || len(r.body) != 20_000_000 {
		t.Errorf("%d bytes, %v", len(r.body), err)
	}
}

func TestTooManyConnectionsAreRefused(t *testing.T) {
	s := run(t, "many-conns")
	if r, _ := s.invoke(t, `1`); string(r.body) != `1` {
		t.Errorf("got %q", r.body)
	}
	contains(t, strings.Join(s.logs.all(), ""), "503 Service Unavailable")
}

func TestExitWhileIdleRefusesTheNextInvocation(t *testing.T) {
	s := startSandbox(t, "")
	start := role("echo")
	enough := filepath.Join(t.TempDir(), "enough")
	start.Command = []string{"/bin/sh", "-c", start.Command[0] + " & p=$!; until [ -e " + enough + " ]; do sleep 0.01; done; kill -9 $p; wait $p"}
	if res, err := s.Start(t.Context(), start); err != nil || res.Err != nil {
		t.Fatal(err, res)
	}
	if err := os.WriteFile(enough, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for s.Exited() == nil {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Invoke(t.Context(), invocation(), nil, new(reply)); err != host.ErrExited {
		t.Errorf("got %v", err)
	}
}

func TestRuntimeRunsUnprivileged(t *testing.T) {
	s := startSandbox(t, "")
	res, err := s.Start(t.Context(), proto.Start{
		Command: []string{"/bin/sh", "-c", "id -u; id -g; id -G; pwd; ulimit -n; grep -E 'CapEff|CapPrm|CapAmb|NoNewPrivs' /proc/self/status | tr -d '\\t'; env | sort"},
		Dir:     "/usr", UID: 993, GID: 990, MaxFiles: 512, Env: map[string]string{"A": "b"},
	})
	if err != nil || res.Err == nil {
		t.Fatal(err, res)
	}
	got := strings.Join(s.logs.all(), "\n")
	want := "993\n990\n990\n/usr\n512\nCapPrm:0000000000000000\nCapEff:0000000000000000\nCapAmb:0000000000000000\nNoNewPrivs:1\nA=b\nAWS_LAMBDA_RUNTIME_API=127.0.0.1:9001\nPWD=/usr"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEndOfHostConnectionEndsEverything(t *testing.T) {
	s := run(t, "hang-ready")
	s.Close()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("process 1: %v", err)
	}
}

func TestOneInvocationAtATime(t *testing.T) {
	s := run(t, "hang-ready")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Invoke(ctx, invocation(), []byte("{}"), new(reply))
	}()
	s.waitLog(t, "running")
	cancel()
	<-done
	if _, err := s.Invoke(t.Context(), invocation(), nil, new(reply)); err != host.ErrBusy {
		t.Errorf("got %v", err)
	}
}

func TestExternalExtensionsSeeTheLifeCycle(t *testing.T) {
	s := startSandbox(t, optWith(t, map[string]string{"ext-a": "extension", "ext-b": "extension"}))
	if res, err := s.Start(t.Context(), role("echo")); err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	for range 2 {
		if r, out := s.invoke(t, `1`); string(r.body) != `1` || out.Exit != nil {
			t.Fatalf("got %q %+v", r.body, out)
		}
	}
	if err := s.Shutdown(t.Context(), "spindown"); err != nil {
		t.Fatal(err)
	}
	got := s.logs.all()
	slices.Sort(got)
	var want []string
	for _, name := range []string{"ext-a", "ext-b"} {
		want = append(want, name+` INVOKE `+requestID, name+` INVOKE `+requestID, name+` SHUTDOWN spindown`,
			name+` registered {"functionName":"f","functionVersion":"$LATEST","handler":"h","accountId":"123456789012"}`)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestExtensionFailuresEndTheEnvironment(t *testing.T) {
	for _, c := range []struct{ script, errorType, reason string }{
		{"#!/bin/sh\nexit 0\n", "Extension.Crash", "exit code 0"},
		{"#!/bin/sh\nexit 4\n", "Extension.Crash", "exit status 4"},
		{"extension-init-error", "Extension.InitError", "exit status 1"},
	} {
		s := startSandbox(t, optWith(t, map[string]string{"x": c.script}))
		res, err := s.Start(t.Context(), role("echo"))
		if err != nil || res.Err == nil || res.Err.Type != c.errorType || res.Err.Exit.Reason != c.reason {
			t.Errorf("%s: got %+v %v", c.errorType, res.Err, err)
		}
	}
}

func TestExtensionsAPIRefusals(t *testing.T) {
	s := startSandbox(t, "")
	if _, err := s.Start(t.Context(), role("extension-calls")); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"403 Extension.InvalidExtensionName Empty extension name",
		"403 InvalidRequestFormat unexpected end of JSON input",
		"403 InvalidRequestFormat configurationKeys are deprecated; use environment variables instead",
		"403 Extension.InvalidEventType OTHER: ErrorInvalidEventType",
		"403 Extension.InvalidEventType SHUTDOWN: ShutdownEventNotSupportedForInternalExtension",
		"403 Extension.MissingExtensionIdentifier Missing Lambda-Extension-Identifier header",
		"403 Extension.InvalidExtensionIdentifier Invalid Lambda-Extension-Identifier",
		"403 Extension.UnknownExtensionIdentifier Unknown extension " + requestID,
		"200  ",
		"403 Extension.InvalidExtensionState Extension with this name already registered",
		"403 Extension.MissingHeader Lambda-Extension-Function-Error-Type not found",
		"403 Extension.InvalidExtensionState State transition from Registered to ExitError failed for extension ",
		"400 Telemetry.ValidationError schemaVersion is not provided; destination is not provided; types should not be empty",
		"400 Logs.ValidationError destination is not provided; types should not be empty",
		"405  ",
		"404  ",
	}
	for range maxExtensions - 1 {
		want = append(want, "200  ")
	}
	want = append(want, "403 Extension.TooManyExtensions Extension limit (10) reached")
	got := s.logs.all()
	if len(got) != len(want) {
		t.Fatalf("%d calls, want %d: %q", len(got), len(want), got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("call %d: got %q, want %q", i, got[i], want[i])
		}
	}
}

// optWith makes a directory for /opt with extensions: name to script, or to a
// role of this binary.
func optWith(t *testing.T, extensions map[string]string) string {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "extensions"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range extensions {
		if !strings.HasPrefix(script, "#!") {
			script = fmt.Sprintf("#!/bin/sh\n%s=%s NAME=%s exec %s\n", roleEnv, script, name, role("x").Command[0])
		}
		if err := os.WriteFile(filepath.Join(dir, "extensions", name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
