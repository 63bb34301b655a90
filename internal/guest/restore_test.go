package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
)

// restoreNext calls restore/next and returns the status and what differs.
func restoreNext(unfit string) (int, map[string]string) {
	req, _ := http.NewRequest("GET", runtimeAPI+"/runtime/restore/next", nil)
	if unfit != "" {
		req.Header.Set(unfitHeader, unfit)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	var body struct {
		Env     map[string]string
		Entropy []byte
	}
	if json.NewDecoder(resp.Body).Decode(&body); resp.StatusCode == 200 && len(body.Entropy) != entropyBytes {
		panic(fmt.Sprint("entropy of ", len(body.Entropy), " bytes"))
	}
	return resp.StatusCode, body.Env
}

// credentials asks for the credentials as an AWS SDK does.
func credentials(token string) (int, string) {
	url := os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	if url == "" {
		url = "http://" + Address + credentialsPath
	}
	req, _ := http.NewRequest("GET", url, nil)
	req.Header.Set("Authorization", token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(b))
}

// restored prints what it finds before and after it is restored, and echoes.
func restored() {
	say := func() {
		status, body := credentials(os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN"))
		fmt.Println(status, body)
	}
	fmt.Printf("%s=%s\n", proto.RestorableVariable, os.Getenv(proto.RestorableVariable))
	say()
	if os.Getenv("CHILD") != "" {
		if err := exec.Command("/bin/sleep", "600").Start(); err != nil {
			panic(err)
		}
	}
	_, env := restoreNext(os.Getenv("UNFIT"))
	fmt.Println("restored", env["AWS_LAMBDA_LOG_STREAM_NAME"])
	say()
	rawEcho()
}

// restoreCalls makes calls out of order and prints the answers.
func restoreCalls() {
	say := func(status int, body string) { fmt.Printf("%d %s\n", status, strings.TrimSpace(body)) }
	sayGet := func(path string) {
		resp, body := get(path)
		say(resp.StatusCode, string(body))
	}
	const failed = "/2018-06-01/runtime/restore/error"
	say(post(failed, "Runtime.X", "{}"))
	say(post("/2018-06-01/runtime/restore/next", "", ""))
	sayGet("/runtime/restore/nothing")
	first := make(chan int)
	go func() {
		status, _ := restoreNext("")
		first <- status
	}()
	for { // until that call waits
		resp, _ := get("/runtime/restore/error")
		if resp.StatusCode != 405 {
			panic(resp.Status)
		}
		if status, body := post(failed, "", ""); strings.Contains(body, "from RestoreReady") {
			say(status, body)
			break
		}
	}
	sayGet("/runtime/restore/next")
	sayGet("/runtime/invocation/next")
	say(post("/2018-06-01/runtime/init/error", "Runtime.X", "{}"))
	say(credentials("not it"))
	fmt.Println("first", <-first)
	sayGet("/runtime/restore/next")
	id, _ := nextID()
	sayGet("/runtime/restore/next")
	say(post(failed, "Runtime.X", "{}"))
	say(post("/2018-06-01/runtime/invocation/"+id+"/response", "", `"done"`))
	nextID()
}

func restoreError(path string) {
	restoreNext("")
	if status, _ := post(path, "Runtime.AfterRestoreError", strings.Repeat("x", 10<<20)); status != 413 {
		panic(status)
	}
	if status, _ := post(path, "Runtime.AfterRestoreError", `{"errorMessage":"no"}`); status != 202 {
		panic(status)
	}
	if status, body := post(path, "Runtime.AfterRestoreError", `{}`); status != 403 {
		panic(body)
	}
	os.Exit(65)
}

// restoreDie ends while it waits to be restored.
func restoreDie() {
	go restoreNext("")
	for {
		if _, body := post("/2018-06-01/runtime/restore/error", "", ""); strings.Contains(body, "from RestoreReady") {
			os.Exit(3)
		}
	}
}

func restorable(name string, env ...string) proto.Start {
	s := role(name)
	s.Restorable = true
	for i := 0; i < len(env); i += 2 {
		s.Env[env[i]] = env[i+1]
	}
	return s
}

// park starts a runtime and waits until it waits to be restored.
func (s *sandbox) park(t testing.TB, start proto.Start) host.InitResult {
	t.Helper()
	res, err := s.Start(t.Context(), start)
	if err != nil || res.Err != nil || !res.Restorable {
		t.Fatalf("start: %v, %+v", err, res)
	}
	return res
}

func TestRuntimeWaitsToBeRestoredAndGoesOn(t *testing.T) {
	s := startSandbox(t, "")
	s.park(t, restorable("restore"))
	if got, want := s.logs.all(), []string{proto.RestorableVariable + "=1", "404 cannot get credentials for the provided token"}; !slices.Equal(got, want) {
		t.Errorf("logs %q at the time of the snapshot, want %q", got, want)
	}
	early := make(chan string)
	go func() {
		r, _ := s.invoke(t, `"early"`)
		early <- string(r.body)
	}()
	res, err := s.Restore(t.Context(), proto.Restore{Env: map[string]string{"AWS_LAMBDA_LOG_STREAM_NAME": "mine"}})
	if err != nil || res.Err != nil || res.Restorable {
		t.Fatalf("restore: %v, %+v", err, res)
	}
	if got := <-early; got != `"early"` {
		t.Errorf("response %s", got)
	}
	s.waitLog(t, "restored mine")
	if r, out := s.invoke(t, `1`); string(r.body) != `1` || out.Exit != nil {
		t.Errorf("got %q %+v", r.body, out)
	}
	if _, err := s.Restore(t.Context(), proto.Restore{}); err == nil {
		t.Error("restored twice")
	}
	if len(s.logs.done) != 4 || s.logs.done[0].RequestID+s.logs.done[1].RequestID != "" { // initialised, restored, invocations
		t.Errorf("the runtime was done: %+v", s.logs.done)
	}
}

// relay stands between a guest and the host connections that it has one after
// the other, as it would after it was restored.
type relay struct {
	guest net.Conn
	mu    sync.Mutex
	host  net.Conn
}

func (r *relay) attach() net.Conn {
	a, b := net.Pipe()
	r.mu.Lock()
	r.host = b
	r.mu.Unlock()
	go func() {
		io.Copy(r.guest, b)
	}()
	return a
}

func (r *relay) run() {
	buf := make([]byte, 64*1024)
	for {
		n, err := r.guest.Read(buf)
		r.mu.Lock()
		host := r.host
		r.mu.Unlock()
		if err != nil {
			host.Close()
			return
		}
		host.Write(buf[:n])
	}
}

func TestRestoredGuestGoesOnWithANewHostConnection(t *testing.T) {
	s, conn := bootSandbox(t, "")
	r := &relay{guest: conn}
	s.Conn = host.New(r.attach(), s.logs)
	go r.run()
	s.park(t, restorable("restore"))
	s.Conn.Close()
	s.logs = new(logs)
	s.Conn = host.Resume(r.attach(), s.logs)
	<-s.Ready()
	go s.Restore(t.Context(), proto.Restore{Env: map[string]string{"AWS_LAMBDA_LOG_STREAM_NAME": "of the clone"}})
	if r, out := s.invoke(t, `1`); string(r.body) != `1` || out.Exit != nil {
		t.Errorf("got %q %+v", r.body, out)
	}
	s.waitLog(t, "restored of the clone")
}

func TestRestoreCallsOutOfPlace(t *testing.T) {
	s := startSandbox(t, "")
	s.park(t, restorable("restore-calls"))
	s.waitLog(t, "404 cannot get credentials for the provided token")
	if res, err := s.Restore(t.Context(), proto.Restore{}); err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	s.invoke(t, `{}`)
	refused := func(from, to string) string {
		return `403 {"errorMessage":"State transition from ` + from + ` to ` + to + ` failed for runtime. Error: State transition is not allowed","errorType":"InvalidStateTransition"}`
	}
	want := []string{
		refused("Started", "RuntimeRestoreErrorState"),
		`405`,
		`404 404 page not found`,
		refused("RestoreReady", "RuntimeRestoreErrorState"),
		refused("RestoreReady", "Ready"),
		refused("RestoreReady", "Ready"),
		refused("RestoreReady", "InitError"),
		`404 cannot get credentials for the provided token`,
		`first 200`,
		refused("Restoring", "Ready"),
		refused("Running", "Ready"),
		refused("Running", "RuntimeRestoreErrorState"),
		`202 {"status":"OK"}`,
	}
	for i, got := range s.logs.all() {
		if strings.TrimSpace(got) != want[i] {
			t.Errorf("call %d: got %q, want %q", i, got, want[i])
		}
	}
}

func TestRestoreIsOfferedOnlyWhereItWasAskedFor(t *testing.T) {
	s := startSandbox(t, "")
	res, err := s.Start(t.Context(), role("restore"))
	if err != nil || res.Err != nil || res.Restorable {
		t.Fatalf("%v, %+v", err, res)
	}
	s.invoke(t, `1`)
	want := []string{proto.RestorableVariable + "=", "404 cannot get credentials for the provided token", "restored "}
	if got := s.logs.all(); !slices.Equal(got[:3], want) {
		t.Errorf("got %q", got)
	}
}

func TestRuntimeMayAskForAnEventWithoutBeingRestored(t *testing.T) {
	s := startSandbox(t, "")
	res, err := s.Start(t.Context(), restorable("echo"))
	if err != nil || res.Err != nil || res.Restorable {
		t.Fatalf("%v, %+v", err, res)
	}
	if _, err := s.Restore(t.Context(), proto.Restore{}); err == nil {
		t.Error("restored")
	}
	if r, _ := s.invoke(t, `1`); string(r.body) != `1` {
		t.Errorf("got %q", r.body)
	}
}

func TestFailuresOfRestore(t *testing.T) {
	for _, c := range []struct {
		role, errorType, body string
		exit                  bool
	}{
		{"restore-error", "Runtime.AfterRestoreError", `{"errorMessage":"no"}`, false},
		{"restore-init-error", "Runtime.AfterRestoreError", `{"errorMessage":"no"}`, false},
		{"restore-exit", "Runtime.ExitError", "", true},
	} {
		t.Run(c.role, func(t *testing.T) {
			s := startSandbox(t, "")
			s.park(t, restorable(c.role))
			res, err := s.Restore(t.Context(), proto.Restore{})
			if err != nil || res.Err == nil || res.Err.Type != c.errorType || string(res.Err.Body) != c.body || (res.Err.Exit != nil) != c.exit {
				t.Errorf("%v, %+v", err, res.Err)
			}
			if err := s.Reset(t.Context(), proto.ReasonFailure); err != nil {
				t.Fatal(err)
			}
			if res, err := s.Start(t.Context(), role("echo")); err != nil || res.Err != nil {
				t.Fatal(err, res.Err)
			}
			if r, _ := s.invoke(t, `1`); string(r.body) != `1` {
				t.Errorf("after a reset: %q", r.body)
			}
		})
	}
}

func TestRuntimeThatEndsWhileItWaitsToBeRestored(t *testing.T) {
	s := startSandbox(t, "")
	res, err := s.Start(t.Context(), restorable("restore-die"))
	if err != nil {
		t.Fatal(err)
	}
	if res.Err == nil { // the wait came first
		for s.Exited() == nil {
			time.Sleep(time.Millisecond)
		}
		res, err = s.Restore(t.Context(), proto.Restore{})
	}
	if err != nil || res.Err == nil || res.Err.Exit == nil || res.Err.Exit.Reason != "with error: exit status 3" {
		t.Errorf("%v, %+v", err, res.Err)
	}
}

func TestEndWhileTheRuntimeWaitsToBeRestored(t *testing.T) {
	s := startSandbox(t, "")
	s.park(t, restorable("restore"))
	if err := s.Reset(t.Context(), proto.ReasonFailure); err != nil {
		t.Fatal(err)
	}
	s.park(t, restorable("restore"))
	if err := s.Shutdown(t.Context(), proto.ReasonSpindown); err != nil {
		t.Fatal(err)
	}
}

func TestReasonsAgainstASnapshot(t *testing.T) {
	for _, c := range []struct{ name, given, initType, want string }{
		{"given", "it draws", "on-demand", "it draws"},
		{"none", "", "on-demand", ""},
		{"not of SnapStart", "it draws", "snap-start", ""},
		{"not printable", "caf\xe9", "on-demand", "its initialisation says so"},
		{"too long", strings.Repeat("x", 2000), "on-demand", strings.Repeat("x", proto.MaxUnfit)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startSandbox(t, "")
			if res := s.park(t, restorable("restore", "UNFIT", c.given, initTypeVariable, c.initType)); res.Unfit != c.want {
				t.Errorf("got %q, want %q", res.Unfit, c.want)
			}
			if told := s.logs.all()[0] == proto.RestorableVariable+"=1"; told == (c.initType == snapStart) {
				t.Errorf("logs %q", s.logs.all())
			}
		})
	}
}

func TestProcessesThatRunOnAreNotCloned(t *testing.T) {
	s := startSandbox(t, "")
	if res := s.park(t, restorable("restore", "CHILD", "1")); !strings.Contains(res.Unfit, "processes") {
		t.Errorf("unfit: %q", res.Unfit)
	}
}

func TestExternalExtensionsAreNotCloned(t *testing.T) {
	s := startSandbox(t, optWith(t, map[string]string{"ext": "extension"}))
	res := s.park(t, restorable("restore"))
	if !strings.Contains(res.Unfit, "extensions") {
		t.Errorf("unfit: %q", res.Unfit)
	}
	if len(s.logs.extensions) != 1 || s.logs.extensions[0].State != "Ready" {
		t.Errorf("extensions %+v", s.logs.extensions)
	}
	if res, err := s.Restore(t.Context(), proto.Restore{}); err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	s.invoke(t, `1`)
	if len(s.logs.extensions) != 1 {
		t.Errorf("extensions were told of again: %+v", s.logs.extensions)
	}
}

func TestCredentialsAreServedAndReplacedByRestore(t *testing.T) {
	s := startSandbox(t, "")
	start := restorable("restore", initTypeVariable, snapStart)
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	start.Credentials = &proto.Credentials{AccessKeyID: "A", SecretAccessKey: "S", SessionToken: "T", Expiration: expires}
	s.park(t, start)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if res, err := s.Restore(ctx, proto.Restore{Credentials: &proto.Credentials{AccessKeyID: "B", Expiration: expires}}); err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	s.waitLog(t, `200 {"AccessKeyId":"A","SecretAccessKey":"S","Token":"T","Expiration":"2030-01-02T03:04:05Z"}`)
	s.waitLog(t, `200 {"AccessKeyId":"B","SecretAccessKey":"","Token":"","Expiration":"2030-01-02T03:04:05Z"}`)
}
