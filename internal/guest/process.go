package guest

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/guest/system"
)

// process is a process that the guest started.
type process struct {
	system.Process
	exited chan struct{}
}

// startProcesses starts the external extensions and, when all of them have
// registered, the runtime (Lambda developer guide, "Understanding the Lambda
// execution environment lifecycle": extension init comes before runtime init).
func (g *guest) startProcesses() {
	if errorType, err := g.startExtensions(); err != nil {
		g.startFailed(errorType, err)
		return
	}
	g.mu.Lock()
	g.oneRegistered() // startExtensions itself
	g.mu.Unlock()
	select {
	case <-g.registered:
		g.mu.Lock()
		if len(g.extensions) > 0 {
			g.stepOver(proto.StepExtensions)
		}
		g.mu.Unlock()
		g.startRuntime()
	case <-g.stop:
	}
}

// oneRegistered notes that the runtime's start waits for one thing less. g.mu
// is held.
func (g *guest) oneRegistered() {
	if g.starting--; g.starting == 0 {
		close(g.registered)
	}
}

// startFailed reports that a process cannot be started.
func (g *guest) startFailed(errorType string, err error) {
	g.reportExit(proto.RuntimeExit{ErrorType: errorType, Reason: err.Error(), Exhausted: exhausted(err)})
}

// startRuntime starts the runtime, and reports where that cannot be.
func (g *guest) startRuntime() {
	fail := g.startFailed
	if filled, err := g.fillBlank(); filled || err != nil {
		if err != nil {
			fail("Runtime.InvalidWorkingDir", err)
		}
		return
	}
	out, err := g.newLogPipe("function", false)
	if err != nil {
		fail("Runtime.Unknown", err)
		return
	}
	defer out.w.Close()
	logs := []*logPipe{out}
	files := []io.Closer{out.w, out.w}
	env := g.runtimeEnv()
	if g.start.FramedLogs {
		framed, err := g.newLogPipe("function", true)
		if err != nil {
			fail("Runtime.Unknown", err)
			return
		}
		defer framed.w.Close()
		logs = append(logs, framed)
		files = append(files, framed.w) // as framedLogsFile
		env = append(env, framedLogs())
	}
	g.mu.Lock()
	g.logs = append(g.logs, logs...)
	g.mu.Unlock()

	if err := g.checkDir(); err != nil {
		fail("Runtime.InvalidWorkingDir", err)
		return
	}
	argv, err := g.command()
	if err != nil {
		fail("Runtime.InvalidEntrypoint", err)
		return
	}
	p, err := g.spawn(argv, env, files, nil)
	if err != nil {
		fail("Runtime.InvalidEntrypoint", err)
		return
	}
	g.mu.Lock()
	g.runtime = p
	g.stepOver(proto.StepProcess)
	g.mu.Unlock()
}

// checkDir tells what is wrong with the working directory.
func (g *guest) checkDir() error {
	mode, err := g.sys.Stat(g.start.Dir)
	if err == nil && !mode.IsDir() {
		err = fmt.Errorf("chdir %s: %w", g.start.Dir, syscall.ENOTDIR)
	}
	return err
}

// exhausted tells whether err is for lack of something that a new sandbox has.
func exhausted(err error) bool {
	return errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EAGAIN) ||
		errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// command returns the command of the runtime.
func (g *guest) command() ([]string, error) {
	if len(g.start.Command) > 0 {
		program, err := g.lookPath(g.start.Command[0])
		return append([]string{program}, g.start.Command[1:]...), err
	}
	if len(g.start.Candidates) == 0 {
		return nil, errors.New("the image has neither an entry point nor a command")
	}
	for _, c := range g.start.Candidates {
		if mode, err := g.sys.Stat(c); err == nil && !mode.IsDir() {
			return []string{c}, nil
		}
	}
	//lint:ignore ST1005 Lambda's words
	return nil, fmt.Errorf("Couldn't find valid bootstrap(s): %v", g.start.Candidates)
}

// lookPath finds a program as a shell would, but for what is relative: that is
// below the function's working directory. Lambda's words are Go's.
func (g *guest) lookPath(program string) (string, error) {
	if strings.Contains(program, "/") {
		if !filepath.IsAbs(program) {
			program = filepath.Join(g.start.Dir, program)
		}
		return program, nil // whether it can be run is seen when it is
	}
	for _, dir := range filepath.SplitList(g.start.Env["PATH"]) {
		path := filepath.Join(g.start.Dir, dir, program)
		if filepath.IsAbs(dir) {
			path = filepath.Join(dir, program)
		}
		if mode, err := g.sys.Stat(path); err == nil && !mode.IsDir() && mode&0o111 != 0 {
			return path, nil
		}
	}
	return program, fmt.Errorf("exec: %q: executable file not found in $PATH", program)
}

// runtimeEnv returns the environment of the runtime.
func (g *guest) runtimeEnv() []string {
	env := make([]string, 0, len(g.start.Env)+2)
	for k, v := range g.start.Env {
		if k != "AWS_LAMBDA_RUNTIME_API" {
			env = append(env, k+"="+v)
		}
	}
	env = append(env, g.restoring.variables(g.start)...)
	slices.Sort(env)
	return append(env, "AWS_LAMBDA_RUNTIME_API="+Address)
}

// spawn starts a process as the function's user.
func (g *guest) spawn(argv, env []string, files []io.Closer, ext *extension) (*process, error) {
	// Held until the process is known, so that exited finds it.
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ending {
		return nil, errEnding
	}
	p := &process{exited: make(chan struct{})}
	var err error
	p.Process, err = g.sys.Start(&system.Command{
		Path: argv[0], Args: argv, Env: env, Dir: g.start.Dir, Files: files,
		UID: g.start.UID, GID: g.start.GID, MaxFiles: g.start.MaxFiles, MaxProcs: g.start.MaxProcs,
	}, func(ws syscall.WaitStatus) { g.exited(p, ext, ws) })
	if err != nil {
		return nil, err
	}
	return p, nil
}

// exited acts on the end of the process of an extension or, where that is nil, of
// the runtime.
func (g *guest) exited(p *process, ext *extension, ws syscall.WaitStatus) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(p.exited)
	switch {
	case g.ending: // else tasks may have been waited for already
	case ext != nil:
		g.tasks.Go(func() { g.extensionExited(ext, ws) })
	case g.restoring.blank:
		g.restoring.giveUp()
		g.runtime = nil
	default:
		g.tasks.Go(func() { g.runtimeExited(ws) })
	}
}

// runtimeExited reports the end of the runtime, after all that it had sent.
func (g *guest) runtimeExited(ws syscall.WaitStatus) {
	g.mu.Lock()
	alone := len(g.extensions) == 0
	g.mu.Unlock()
	// What a dead process wrote is still in its sockets and pipes. With no
	// process left these come to their ends; extensions go on for a while.
	limit := 50 * time.Millisecond
	if alone {
		g.sys.KillAll(0)
		limit = time.Second
	}
	g.wakeWaiters()
	g.srv.Idle(limit)
	g.endLogs(limit)
	exit := proto.RuntimeExit{Reason: exitReason(ws)}
	g.mu.Lock()
	if g.fatal != "" {
		exit.ErrorType, exit.Reason = g.fatal, "Runtime exited "+exit.Reason
	}
	g.mu.Unlock()
	g.reportExit(exit)
}

// wakeWaiters gives up the runtime's waiting calls of next.
func (g *guest) wakeWaiters() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.waiters {
		w.answer(nil)
	}
	g.waiters = nil
	g.restoring.giveUp()
}

// endLogs waits for the ends of the log pipes, and passes on what is there.
func (g *guest) endLogs(limit time.Duration) {
	g.drainLogs()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	g.mu.Lock()
	logs := g.logs
	g.mu.Unlock()
	for _, p := range logs {
		select {
		case <-p.done:
		case <-timer.C:
			return
		}
	}
}

// reportExit tells the host that the environment is of no more use.
func (g *guest) reportExit(e proto.RuntimeExit) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead || g.ending {
		return
	}
	g.dead = true
	g.flushLogs()
	g.reportExtensions()
	if g.event != nil && g.event.delivered {
		e.RequestID = g.event.inv.RequestID
	}
	g.link.send(proto.TypeRuntimeExit, e)
}

// exitReason returns Lambda's words for the end of a process.
func exitReason(ws syscall.WaitStatus) string {
	if ws.Exited() && ws.ExitStatus() == 0 {
		return "without providing a reason"
	}
	return "with error: " + statusText(ws)
}

func statusText(ws syscall.WaitStatus) string {
	if ws.Exited() {
		return fmt.Sprintf("exit status %d", ws.ExitStatus())
	}
	s := "signal: " + ws.Signal().String()
	if ws.CoreDump() {
		s += " (core dumped)"
	}
	return s
}

// end ends the life of the runtime: its Shutdown phase, and then everything
// that still runs. Nothing of it is left when it returns, and nothing more is
// sent to the host.
func (g *guest) end(reason string) {
	g.mu.Lock()
	g.ending = true
	close(g.stop)
	g.window.Broadcast()
	g.mu.Unlock()
	g.shutdown(reason)
	for !g.sys.KillAll(killAgain) {
	}
	g.mu.Lock()
	g.killed = true
	g.mu.Unlock()
	g.closeListeners()
	g.wakeWaiters()
	g.wakeExtensions()
	g.tasks.Wait()
	g.srv.Idle(time.Second)
	g.endLogs(time.Second)
	g.telemetry.Close()
	g.link.end()
}

// Budgets of the Shutdown phase (Lambda developer guide, "Shutdown phase").
// Without an extension there is none: the runtime is killed at once.
const (
	externalBudget = proto.ShutdownBudget
	internalBudget = 500 * time.Millisecond
	// flushLimit is how much of it telemetry may take.
	flushLimit = 300 * time.Millisecond
)

// shutdown is the Shutdown phase of an environment with extensions: the runtime
// gets SIGTERM and, after 30 % of the budget, as on Lambda, SIGKILL; then the
// extensions are told and have the rest.
func (g *guest) shutdown(reason string) {
	g.mu.Lock()
	runtime := g.runtime
	extensions := slices.Clone(g.extensions)
	g.mu.Unlock()
	if len(extensions) == 0 {
		return
	}
	budget := internalBudget
	if slices.ContainsFunc(extensions, func(e *extension) bool { return e.external }) {
		budget = externalBudget
	}
	began := time.Now()
	if runtime != nil {
		runtime.Signal(syscall.SIGTERM, false)
		waitUntil(runtime.exited, began.Add(budget*3/10))
		runtime.Signal(syscall.SIGKILL, true)
	}
	g.drainLogs()
	// Before the extensions hear of the end, where their listeners keep up.
	g.telemetry.Flush(min(flushLimit, time.Until(began.Add(budget))))
	g.shutdownExtensions(extensions, reason, began.Add(budget))
}

// killAgain is how soon processes that do not end are killed once more: one may
// have been forking.
const killAgain = 10 * time.Millisecond

func waitUntil(ch <-chan struct{}, deadline time.Time) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-ch:
	case <-timer.C:
	}
}
