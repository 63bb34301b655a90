package guest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// loop is a shell script that says how it takes SIGTERM.
func loop(trap string) proto.Start {
	return proto.Start{Command: []string{"/bin/sh", "-c", "trap '" + trap + "' TERM; echo up; while :; do sleep 0.01; done"}, Dir: "/"}
}

func TestShutdownWithAnExtensionSendsTermThenKillsAtTheDeadline(t *testing.T) {
	for name, trap := range map[string]string{"obeys": "echo got TERM; exit 0", "ignores": "echo got TERM"} {
		t.Run(name, func(t *testing.T) {
			s := startSandbox(t, optWith(t, map[string]string{"ext": "extension"}))
			go s.Start(t.Context(), loop(trap))
			s.waitLog(t, "up")
			if err := s.Shutdown(t.Context(), proto.ReasonSpindown); err != nil {
				t.Fatal(err)
			}
			if got := s.logs.all(); !slices.Contains(got, "got TERM") {
				t.Errorf("logs %q", got)
			}
			if err := s.cmd.Wait(); err != nil {
				t.Errorf("process 1: %v", err)
			}
		})
	}
}

func TestShutdownWithoutAnExtensionKillsAtOnce(t *testing.T) {
	s := startSandbox(t, "")
	go s.Start(t.Context(), loop("echo got TERM"))
	s.waitLog(t, "up")
	if err := s.Shutdown(t.Context(), proto.ReasonSpindown); err != nil {
		t.Fatal(err)
	}
	if got := s.logs.all(); slices.Contains(got, "got TERM") {
		t.Errorf("logs %q", got)
	}
}

// hang invokes until the function says that it runs, and gives up then.
func (s *sandbox) hang(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("late")
	done := make(chan error, 1)
	go func() {
		_, err := s.Invoke(ctx, invocation(), []byte("{}"), new(reply))
		done <- err
	}()
	s.waitLog(t, "running")
	cancel(late)
	if err := <-done; err != late {
		t.Fatal(err)
	}
}

func TestResetMakesRoomForAnotherRuntime(t *testing.T) {
	s := startSandbox(t, "")
	// A runtime that leaves a process behind, in a session of its own.
	first := role("hang-ready")
	first.Command = []string{"/bin/sh", "-c", "setsid sh -c 'sleep 600 & wait' & exec " + first.Command[0]}
	if res, err := s.Start(t.Context(), first); err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	s.hang(t)
	for n := range 3 {
		if err := s.Reset(t.Context(), proto.ReasonTimeout); err != nil {
			t.Fatal(n, err)
		}
		if exit := s.Exited(); exit != nil {
			t.Errorf("%d: the runtime that was not started has exited: %+v", n, exit)
		}
		if res, err := s.Start(t.Context(), role("echo")); err != nil || res.Err != nil {
			t.Fatal(n, err, res.Err)
		}
		if r, out := s.invoke(t, `"again"`); string(r.body) != `"again"` || out.Exit != nil {
			t.Errorf("%d: got %q %+v", n, r.body, out)
		}
	}
}

func TestResetAfterAnExit(t *testing.T) {
	s := startSandbox(t, "")
	for _, runtime := range []string{"exit-3", "init-error", "exit-3"} {
		res, err := s.Start(t.Context(), role(runtime))
		if err != nil || res.Err == nil {
			t.Fatal(err, res)
		}
		if err := s.Reset(t.Context(), proto.ReasonFailure); err != nil {
			t.Fatal(err)
		}
	}
	if res, err := s.Start(t.Context(), role("echo")); err != nil || res.Err != nil {
		t.Fatal(err, res.Err)
	}
	if err := s.Shutdown(t.Context(), proto.ReasonSpindown); err != nil {
		t.Fatal(err)
	}
}

func TestResetTellsExtensionsWhy(t *testing.T) {
	s := startSandbox(t, optWith(t, map[string]string{"ext": "extension"}))
	for _, reason := range []string{proto.ReasonTimeout, proto.ReasonFailure} {
		if res, err := s.Start(t.Context(), role("hang-ready")); err != nil || res.Err != nil {
			t.Fatal(err, res.Err)
		}
		s.hang(t)
		if err := s.Reset(t.Context(), reason); err != nil {
			t.Fatal(err)
		}
		if got := s.logs.all(); !slices.Contains(got, "ext SHUTDOWN "+reason) {
			t.Errorf("logs %q", got)
		}
	}
	if n := strings.Count(strings.Join(s.logs.all(), "\n"), "ext registered"); n != 2 {
		t.Errorf("the extension was started %d times", n)
	}
}
