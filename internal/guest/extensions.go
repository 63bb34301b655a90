package guest

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"lapwing.dev/lapwing/internal/guest/http1"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/guest/telemetry"
)

const (
	maxExtensions    = 10
	maxRegisterBody  = 64 * 1024
	identifierHeader = "Lambda-Extension-Identifier"
	extErrorHeader   = "Lambda-Extension-Function-Error-Type"
)

// extensionState is the state of an extension, by the names that Lambda's
// supervisor puts into its messages.
type extensionState string

const (
	extStarted     extensionState = "Started"
	extLaunchError extensionState = "LaunchError"
	extRegistered  extensionState = "Registered"
	extReady       extensionState = "Ready"
	extRunning     extensionState = "Running"
	extInitError   extensionState = "InitError"
	extExitError   extensionState = "ExitError"
	extExited      extensionState = "Exited"
)

// extension is one extension: external ones are processes of their own,
// internal ones live in the runtime's. guest.mu guards it.
type extension struct {
	name      string
	id        string
	external  bool
	errorType string   // that it reported
	proc      *process // of an external one that has been started
	state     extensionState
	events    []string
	waiting   chan []byte    // of event/next; nil: none waits
	req       *http1.Request // that waiting is for
	shutdown  []byte         // the event SHUTDOWN, once it is due
}

// subscribed tells whether the extension wants events of that type.
func (e *extension) subscribed(event string) bool { return slices.Contains(e.events, event) }

// startExtensions starts the external extensions, all at once: every file in
// /opt/extensions. On error it returns the error type too.
func (g *guest) startExtensions() (string, error) {
	if _, err := g.sys.Stat(disableExtensions); err == nil {
		g.mu.Lock()
		g.closed = true
		g.mu.Unlock()
		return "", nil
	}
	names, err := g.sys.Files(extensionsDir)
	if err != nil || len(names) == 0 {
		return "", nil // no directory, as a rule
	}
	slices.Sort(names)
	if len(names) > maxExtensions {
		// In Lambda's words, which begin as linters would not have an error begin.
		return "Extension.TooManyExtensions", fmt.Errorf("%s limit (%d) reached", "Extension", maxExtensions)
	}
	out, err := g.newLogPipe(telemetry.Extension, false)
	if err != nil {
		return "Extension.LaunchError", err
	}
	defer out.w.Close()
	g.mu.Lock()
	g.logs = append(g.logs, out)
	// All of them before any runs, so that each is known when it registers.
	for _, name := range names {
		g.extensions = append(g.extensions, &extension{name: name, id: newID(), external: true, state: extStarted})
	}
	g.starting += len(names)
	extensions := slices.Clone(g.extensions)
	g.mu.Unlock()
	env := g.extensionEnv()
	for _, ext := range extensions {
		p, err := g.spawn([]string{filepath.Join(extensionsDir, ext.name)}, env, []io.Closer{out.w, out.w}, ext)
		g.mu.Lock()
		if ext.proc = p; err != nil {
			ext.state = extLaunchError
		}
		g.mu.Unlock()
		if err != nil {
			return "Extension.LaunchError", fmt.Errorf("%s: %w", ext.name, err)
		}
	}
	return "", nil
}

// reportExtensions tells the host, once, what has become of the extensions.
// g.mu is held.
func (g *guest) reportExtensions() {
	if g.reported {
		return
	}
	g.reported = true
	for _, e := range g.extensions {
		t := proto.Extension{Name: limited(e.name), External: e.external, State: string(e.state), Events: e.events, ErrorType: limited(e.errorType)}
		switch e.state {
		case extLaunchError:
			t.ErrorType = "Extension.LaunchError"
		case extExited:
			t.ErrorType = cmp.Or(t.ErrorType, "Extension.Crash")
		}
		g.link.send(proto.TypeExtension, t)
	}
}

// extensionEnv returns the environment of external extensions: the runtime's
// without what concerns the runtime alone.
func (g *guest) extensionEnv() []string {
	return slices.DeleteFunc(g.runtimeEnv(), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		switch k {
		case "AWS_XRAY_CONTEXT_MISSING", "AWS_EXECUTION_ENV", "AWS_LAMBDA_LOG_GROUP_NAME",
			"AWS_LAMBDA_LOG_STREAM_NAME", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR":
			return true
		}
		return strings.HasPrefix(k, "_")
	})
}

// serveExtensionAPIs routes what is not the Runtime API.
func (g *guest) serveExtensionAPIs(r *http1.Request) http1.Response {
	switch r.Path {
	case "/2020-01-01/extension/register":
		return only(r, "POST", g.register)
	case "/2020-01-01/extension/event/next":
		return only(r, "GET", g.nextExtensionEvent)
	case "/2020-01-01/extension/init/error":
		return only(r, "POST", func(r *http1.Request) http1.Response {
			return g.extensionError(r, "Extension.InitError", extInitError, extRegistered)
		})
	case "/2020-01-01/extension/exit/error":
		return only(r, "POST", func(r *http1.Request) http1.Response {
			return g.extensionError(r, "Extension.ExitError", extExitError, extReady, extRunning)
		})
	case "/2022-07-01/telemetry", "/2022-07-01/telemetry/":
		return only(r, "PUT", func(r *http1.Request) http1.Response { return g.subscribe(r, telemetry.Telemetry) })
	case "/2020-08-15/logs", "/2020-08-15/logs/":
		return only(r, "PUT", func(r *http1.Request) http1.Response { return g.subscribe(r, telemetry.Logs) })
	}
	return notFound()
}

// register registers an extension.
func (g *guest) register(r *http1.Request) http1.Response {
	name := r.Header.Get("Lambda-Extension-Name")
	if name == "" {
		return failure(403, "Extension.InvalidExtensionName", "Empty extension name")
	}
	events, err := registeredEvents(r.Body)
	if err != nil {
		return failure(403, "InvalidRequestFormat", "%s", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.extensions, func(e *extension) bool { return e.name == name })
	external := i >= 0 && g.extensions[i].external
	for _, ev := range events {
		switch {
		case ev != "INVOKE" && ev != "SHUTDOWN":
			return failure(403, "Extension.InvalidEventType", "%s: ErrorInvalidEventType", ev)
		case ev == "SHUTDOWN" && !external:
			return failure(403, "Extension.InvalidEventType", "%s: ShutdownEventNotSupportedForInternalExtension", ev)
		}
	}
	var e *extension
	switch {
	case external:
		e = g.extensions[i]
		if e.state != extStarted {
			return badExtensionTransition(e.state, extRegistered, e.name)
		}
	case g.closed:
		return failure(403, "Extension.RegistrationClosed", "Extension registration closed already")
	case i >= 0:
		return failure(403, "Extension.InvalidExtensionState", "Extension with this name already registered")
	case len(g.extensions) >= maxExtensions:
		return failure(403, "Extension.TooManyExtensions", "Extension limit (%d) reached", maxExtensions)
	default:
		e = &extension{name: name, id: newID()}
		g.extensions = append(g.extensions, e)
	}
	e.state = extRegistered
	for _, ev := range events {
		if !e.subscribed(ev) {
			e.events = append(e.events, ev)
		}
	}
	if external {
		g.oneRegistered()
	}

	answer := struct {
		Name    string `json:"functionName"`
		Version string `json:"functionVersion"`
		Handler string `json:"handler"`
		Account string `json:"accountId,omitempty"`
	}{Name: g.start.FunctionName, Version: g.start.FunctionVersion, Handler: g.start.Handler}
	for f := range strings.SplitSeq(r.Header.Get("Lambda-Extension-Accept-Feature"), ",") {
		if strings.TrimSpace(f) == "accountId" {
			answer.Account = g.start.AccountID
		}
	}
	resp := jsonResponse(200, answer)
	resp.Header = append(resp.Header, http1.Field{Name: identifierHeader, Value: e.id})
	return resp
}

// registeredEvents reads the body of a registration.
func registeredEvents(body io.Reader) ([]string, error) {
	b, err := io.ReadAll(io.LimitReader(body, maxRegisterBody+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxRegisterBody {
		return nil, fmt.Errorf("request body exceeds %d bytes", maxRegisterBody)
	}
	var req struct {
		Events            []string `json:"events"`
		ConfigurationKeys []string `json:"configurationKeys"`
	}
	if err := json.Unmarshal(b, &req); err != nil {
		return nil, err
	}
	if len(req.ConfigurationKeys) > 0 {
		return nil, fmt.Errorf("configurationKeys are deprecated; use environment variables instead")
	}
	return req.Events, nil
}

// identify finds the extension that a request comes from. g.mu is held.
func (g *guest) identify(r *http1.Request) (*extension, *http1.Response) {
	refuse := func(errorType, format string, args ...any) (*extension, *http1.Response) {
		resp := failure(403, errorType, format, args...)
		return nil, &resp
	}
	id := r.Header.Get(identifierHeader)
	if id == "" {
		return refuse("Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header")
	}
	if !isID(id) {
		return refuse("Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier")
	}
	for _, e := range g.extensions {
		if e.id == strings.ToLower(id) && e.state != extStarted {
			return e, nil
		}
	}
	return refuse("Extension.UnknownExtensionIdentifier", "Unknown extension %s", id)
}

// nextExtensionEvent answers with the extension's next event, and waits until
// there is one.
func (g *guest) nextExtensionEvent(r *http1.Request) http1.Response {
	g.mu.Lock()
	e, refusal := g.identify(r)
	if refusal != nil {
		g.mu.Unlock()
		return *refusal
	}
	switch e.state {
	case extRegistered, extRunning:
	case extReady: // a repeated call takes the place of the first
		if e.waiting != nil {
			close(e.waiting)
			e.waiting = nil
		}
	default:
		defer g.mu.Unlock()
		return badExtensionTransition(e.state, extReady, e.id)
	}
	e.state = extReady
	ch := make(chan []byte, 1)
	e.waiting, e.req = ch, r
	switch {
	case e.shutdown != nil:
		e.send(e.shutdown)
	case g.gone:
		close(ch)
	default:
		g.settle()
	}
	g.mu.Unlock()

	return extensionEvent(ch)
}

// extensionEvent answers a call of event/next when there is an event.
func extensionEvent(ch <-chan []byte) http1.Response {
	body, ok := <-ch
	if !ok {
		return failure(500, "InternalServerError", "Internal Server Error")
	}
	return http1.Response{
		Status: 200,
		Header: http1.Fields{
			{Name: "Content-Type", Value: "application/json"},
			{Name: "Lambda-Extension-Event-Identifier", Value: newID()},
		},
		Body: body,
	}
}

// send gives the extension an event that it waits for. g.mu is held.
func (e *extension) send(body []byte) {
	e.state = extRunning
	e.waiting <- body
	e.waiting = nil
}

// wakeExtensions gives up the calls of event/next that wait, or are still to be
// read, once every process is gone.
func (g *guest) wakeExtensions() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone = true
	for _, e := range g.extensions {
		if e.waiting != nil {
			close(e.waiting)
			e.waiting = nil
		}
	}
}

// extensionsReady tells whether every extension has asked for its next event.
// g.mu is held.
func (g *guest) extensionsReady() bool {
	for _, e := range g.extensions {
		if e.state != extReady {
			return false
		}
	}
	return true
}

// invokeExtensions gives the INVOKE event to those who want it. g.mu is held.
func (g *guest) invokeExtensions(ev *event) {
	type tracing struct {
		Type  string `json:"type"`
		Value string `json:"value"`
	}
	var body []byte
	for _, e := range g.extensions {
		if !e.subscribed("INVOKE") || e.waiting == nil {
			continue
		}
		if body == nil {
			msg := struct {
				EventType  string   `json:"eventType"`
				DeadlineMs int64    `json:"deadlineMs"`
				RequestID  string   `json:"requestId"`
				ARN        string   `json:"invokedFunctionArn"`
				Tracing    *tracing `json:"tracing,omitempty"`
			}{"INVOKE", ev.inv.DeadlineMs, ev.inv.RequestID, ev.inv.InvokedFunctionARN, nil}
			if ev.inv.TraceID != "" {
				msg.Tracing = &tracing{"X-Amzn-Trace-Id", ev.inv.TraceID}
			}
			body, _ = json.Marshal(msg) // strings and numbers only
		}
		e.send(body)
	}
}

// extensionError takes a fatal error that an extension reports of itself.
func (g *guest) extensionError(r *http1.Request, fatal string, to extensionState, from ...extensionState) http1.Response {
	g.mu.Lock()
	defer g.mu.Unlock()
	e, refusal := g.identify(r)
	if refusal != nil {
		return *refusal
	}
	if r.Header.Get(extErrorHeader) == "" {
		return failure(403, "Extension.MissingHeader", "%s not found", extErrorHeader)
	}
	if e.state != to && !slices.Contains(from, e.state) {
		return badExtensionTransition(e.state, to, e.id)
	}
	e.state = to
	e.errorType = r.Header.Get(extErrorHeader)
	if g.fatal == "" {
		g.fatal = fatal
	}
	return accepted()
}

// extensionExited reports the end of an extension, which ends the environment.
func (g *guest) extensionExited(e *extension, ws syscall.WaitStatus) {
	g.mu.Lock()
	e.state = extExited
	if g.fatal == "" {
		g.fatal = "Extension.Crash"
	}
	fatal := g.fatal
	g.mu.Unlock()
	reason := "exit code 0"
	if !ws.Exited() || ws.ExitStatus() != 0 {
		reason = statusText(ws)
	}
	g.drainLogs()
	g.reportExit(proto.RuntimeExit{ErrorType: fatal, Reason: reason})
}

// shutdownExtensions tells the extensions of the end and gives them until the
// deadline; those that have not asked to be told end at once. One that is still
// busy is told when it asks for its next event.
func (g *guest) shutdownExtensions(extensions []*extension, reason string, deadline time.Time) {
	body, _ := json.Marshal(struct {
		EventType  string `json:"eventType"`
		Reason     string `json:"shutdownReason"`
		DeadlineMs int64  `json:"deadlineMs"`
	}{"SHUTDOWN", reason, deadline.UnixMilli()}) // strings and numbers only
	var told []*process
	g.mu.Lock()
	for _, e := range extensions {
		switch {
		case e.proc == nil:
		case e.subscribed("SHUTDOWN"):
			if e.shutdown = body; e.waiting != nil {
				e.send(body)
			}
			told = append(told, e.proc)
		default:
			e.proc.Signal(syscall.SIGKILL, true)
		}
	}
	g.mu.Unlock()
	for _, p := range told {
		waitUntil(p.exited, deadline)
	}
}

func badExtensionTransition(from, to extensionState, who string) http1.Response {
	return failure(403, "Extension.InvalidExtensionState",
		"State transition from %s to %s failed for extension %s. Error: %s", from, to, who, notAllowed)
}

// newID returns a random UUID.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// isID tells whether s has the form of a UUID.
func isID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') {
			return false
		} else if !dash && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}
