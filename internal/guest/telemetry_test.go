package guest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
)

func init() {
	functions["listens-http"] = func() { listen("HTTP", "/2022-07-01/telemetry", "2022-12-13") }
	functions["listens-tcp"] = func() { listen("TCP", "/2022-07-01/telemetry", "2022-07-01") }
	functions["listens-logs"] = func() { listen("HTTP", "/2020-08-15/logs", "") }
	functions["listens-never"] = listenNever
	functions["registers-late"] = registerLate
	functions["subscribes-late"] = subscribeLate
	functions["exits-after-next"] = func() { e := register("INVOKE"); e.next(); os.Exit(5) }
}

// registration is an extension that has registered.
type registration struct{ id string }

func register(events ...string) registration {
	b, _ := json.Marshal(map[string]any{"events": events})
	req, _ := http.NewRequest("POST", "http://"+Address+"/2020-01-01/extension/register", strings.NewReader(string(b)))
	req.Header.Set("Lambda-Extension-Name", os.Getenv("NAME"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != 200 {
		panic(fmt.Sprint(err, resp))
	}
	return registration{resp.Header.Get(identifierHeader)}
}

// next returns the type of the next event.
func (r registration) next() string {
	req, _ := http.NewRequest("GET", "http://"+Address+"/2020-01-01/extension/event/next", nil)
	req.Header.Set(identifierHeader, r.id)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	var ev struct{ EventType string }
	if err := json.NewDecoder(resp.Body).Decode(&ev); err != nil {
		panic(err)
	}
	return ev.EventType
}

// subscribe subscribes to the platform's events and the function's lines.
func (r registration) subscribe(path, schema, protocol string, port int) string {
	destination := map[string]any{"protocol": protocol, "port": port}
	if protocol == "HTTP" {
		destination = map[string]any{"protocol": protocol, "URI": fmt.Sprintf("http://sandbox.localdomain:%d/x", port)}
	}
	body := map[string]any{
		"types": []string{"platform", "function"}, "destination": destination,
		"buffering": map[string]any{"timeoutMs": 25},
	}
	if schema != "" {
		body["schemaVersion"] = schema
	}
	b, _ := json.Marshal(body)
	req, _ := http.NewRequest("PUT", "http://"+Address+path, strings.NewReader(string(b)))
	req.Header.Set(identifierHeader, r.id)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	b, _ = io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(b)))
}

// listen is an extension that prints the telemetry that it gets. As those of
// observability vendors, it is done with an invocation when it has been told
// that the runtime is.
func listen(protocol, path, schema string) {
	r := register("INVOKE", "SHUTDOWN")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	runtimeDone := make(chan struct{}, 100)
	got := func(b []byte) {
		var e struct {
			Type   string
			Record json.RawMessage
		}
		if err := json.Unmarshal(b, &e); err != nil {
			panic(err)
		}
		fmt.Println("got", e.Type, string(e.Record))
		if e.Type == "platform.runtimeDone" {
			runtimeDone <- struct{}{}
		}
	}
	if protocol == "HTTP" {
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var batch []json.RawMessage
			if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
				panic(err)
			}
			for _, e := range batch {
				got(e)
			}
		}))
	} else {
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					got(lines.Bytes())
				}
			}
		}()
	}
	fmt.Println("subscribed", r.subscribe(path, schema, protocol, l.Addr().(*net.TCPAddr).Port))
	for r.next() == "INVOKE" {
		if schema != "" {
			<-runtimeDone
		}
	}
	fmt.Println("leaving")
}

// listenNever is an extension whose listener takes connections, no more.
func listenNever() {
	r := register("INVOKE")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	r.subscribe("/2022-07-01/telemetry", "2022-07-01", "HTTP", l.Addr().(*net.TCPAddr).Port)
	for {
		r.next()
	}
}

func registerLate() {
	time.Sleep(300 * time.Millisecond)
	fmt.Println("registering")
	for r := register(); ; {
		r.next()
	}
}

func subscribeLate() {
	r := register("INVOKE")
	r.next()
	fmt.Println(r.subscribe("/2022-07-01/telemetry", "2022-07-01", "HTTP", 8080))
	fmt.Println(r.subscribe("/2020-08-15/logs", "", "HTTP", 8080))
	r.next()
}

// event gives the guest a platform event, as the worker does.
func (s *sandbox) event(name, record string) {
	s.Event(time.Now(), "platform."+name, []byte(record))
}

func TestExtensionsGetTelemetry(t *testing.T) {
	for role_, want := range map[string][]string{
		"listens-http": {`got platform.initStart {"i":1}`, `got function {"timestamp":`, `got platform.runtimeDone {"d":1}`, `got platform.report {"r":1}`},
		"listens-tcp":  {`got platform.initStart {"i":1}`, `got function "one"`, `got function "three without an end"`, `got platform.runtimeDone {"d":1}`, `got platform.report {"r":1}`},
		"listens-logs": {`got platform.end {"e":1}`, `got function "one"`, `got platform.report {"r":1}`},
	} {
		t.Run(role_, func(t *testing.T) {
			s := startSandbox(t, optWith(t, map[string]string{"x": role_}))
			s.logs.mu.Lock()
			s.logs.runtimeDone = func(d host.RuntimeDone) {
				if d.RequestID != "" {
					s.event("runtimeDone", `{"d":1}`)
				}
			}
			s.logs.mu.Unlock()
			s.event("initStart", `{"i":1}`)
			start := role("sdk")
			start.JSONLogs = true
			if res, err := s.Start(t.Context(), start); err != nil || res.Err != nil {
				t.Fatal(err, res.Err)
			}
			s.waitLog(t, `subscribed 200 "OK"`)
			if _, out := s.invoke(t, `{"do":"log"}`); out.Error != nil || out.Exit != nil {
				t.Fatalf("got %+v", out)
			}
			s.event("end", `{"e":1}`)
			s.event("report", `{"r":1}`)
			if role_ == "listens-tcp" { // which tells nobody when the extension has read it
				s.waitLog(t, `got platform.report {"r":1}`)
			}
			if err := s.Shutdown(t.Context(), proto.ReasonSpindown); err != nil {
				t.Fatal(err)
			}
			got := s.logs.all()
			for _, w := range want {
				if !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, w) }) {
					t.Errorf("no %q in\n%s", w, strings.Join(got, "\n"))
				}
			}
			for _, l := range got {
				if role_ == "listens-logs" && strings.HasPrefix(l, "got platform.initStart") || role_ != "listens-logs" && strings.HasPrefix(l, "got platform.end") {
					t.Errorf("got %q by this API", l)
				}
			}
			if !slices.Contains(got, "leaving") {
				t.Error("the extension was killed before it could leave")
			}
		})
	}
}

func TestTheHostHearsOfExtensionsAndSubscriptions(t *testing.T) {
	s := startSandbox(t, optWith(t, map[string]string{"x": "listens-http"}))
	if res, err := s.Start(t.Context(), role("echo")); err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	s.logs.mu.Lock()
	defer s.logs.mu.Unlock()
	if got, want := fmt.Sprint(s.logs.subscribed), "[{x Telemetry [platform function]}]"; got != want {
		t.Errorf("subscriptions %s, want %s", got, want)
	}
	if got, want := fmt.Sprintf("%+v", s.logs.extensions), "[{Name:x External:true State:Ready Events:[INVOKE SHUTDOWN] ErrorType:}]"; got != want {
		t.Errorf("extensions %s, want %s", got, want)
	}
	if got := s.logs.done; len(got) != 1 || got[0].RequestID != "" {
		t.Errorf("runtime done %+v", got)
	}
}

func TestSubscriptionsEndWithInit(t *testing.T) {
	s := startSandbox(t, optWith(t, map[string]string{"x": "subscribes-late"}))
	if res, err := s.Start(t.Context(), role("echo")); err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	s.invoke(t, `1`)
	s.waitLog(t, `403 {"errorMessage":"Telemetry API subscription is closed already","errorType":"Telemetry.SubscriptionClosed"}`)
	s.waitLog(t, `403 {"errorMessage":"Logs API subscription is closed already","errorType":"Logs.SubscriptionClosed"}`)
}

func TestASubscriberThatHangsHoldsNothingUp(t *testing.T) {
	s := startSandbox(t, optWith(t, map[string]string{"x": "listens-never"}))
	if res, err := s.Start(t.Context(), role("sdk")); err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	for range 5 {
		for range 100 {
			s.event("report", `"`+strings.Repeat("x", 8000)+`"`)
		}
		if _, out := s.invoke(t, `{"do":"log"}`); out.Error != nil || out.Exit != nil {
			t.Fatalf("got %+v", out)
		}
	}
}

func TestTheRuntimeStartsWhenExtensionsHaveRegistered(t *testing.T) {
	s := startSandbox(t, optWith(t, map[string]string{"x": "registers-late", "y": "extension"}))
	go s.Start(t.Context(), loop("exit 0"))
	s.waitLog(t, "up")
	got := s.logs.all()
	if slices.Index(got, "registering") > slices.Index(got, "up") || !slices.Contains(got, "registering") {
		t.Errorf("logs %q", got)
	}
}

func TestTooManyExtensionsFailInit(t *testing.T) {
	many := map[string]string{}
	for i := range maxExtensions + 1 {
		many[fmt.Sprint("x", i)] = "extension"
	}
	s := startSandbox(t, optWith(t, many))
	res, err := s.Start(t.Context(), role("echo"))
	if err != nil || res.Err == nil || res.Err.Type != "Extension.TooManyExtensions" || res.Err.Exit.Reason != "Extension limit (10) reached" {
		t.Errorf("got %+v %v", res.Err, err)
	}
}

func TestAnExtensionThatCannotBeStartedFailsInit(t *testing.T) {
	s := startSandbox(t, optWith(t, map[string]string{"x": "#!/no/such/interpreter\n"}))
	res, err := s.Start(t.Context(), role("echo"))
	if err != nil || res.Err == nil || res.Err.Type != "Extension.LaunchError" {
		t.Fatalf("got %+v %v", res.Err, err)
	}
	s.logs.mu.Lock()
	defer s.logs.mu.Unlock()
	if got := s.logs.extensions; len(got) != 1 || got[0].State != "LaunchError" || got[0].ErrorType != "Extension.LaunchError" {
		t.Errorf("extensions %+v", got)
	}
}

func TestAnExtensionThatCrashesEndsTheInvocation(t *testing.T) {
	s := startSandbox(t, optWith(t, map[string]string{"x": "exits-after-next"}))
	if res, err := s.Start(t.Context(), role("echo")); err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	_, out := s.invoke(t, `1`)
	if out.Exit == nil || out.Exit.ErrorType != "Extension.Crash" || out.Exit.Reason != "exit status 5" {
		t.Errorf("got %+v", out.Exit)
	}
}
