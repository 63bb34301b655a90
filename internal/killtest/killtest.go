// Package killtest is for tests of what survives a kill: the test binary starts
// itself as a process that works on a directory and prints what it did, and the
// test kills that process with SIGKILL at a moment of its choice, reads what it
// had printed until then, and compares it with what the directory holds.
package killtest

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// variable holds the directory, in the process that is to be killed.
const variable = "LAPWING_KILLTEST_DIR"

// Main is a TestMain: it runs the tests, or, in a process that was started to be
// killed, work on the directory.
func Main(m *testing.M, work func(dir string) error) {
	if dir := Dir(); dir != "" {
		fmt.Fprintln(os.Stderr, work(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Dir returns the directory to work on in the process that is to be killed, and
// an empty string elsewhere.
func Dir() string { return os.Getenv(variable) }

// Process is the process that is to be killed.
type Process struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    *bufio.Reader
	killed bool
}

// Start starts the process on dir: this test binary, with arguments if any.
func Start(t *testing.T, dir string, arguments ...string) *Process {
	t.Helper()
	cmd := exec.Command(os.Args[0], arguments...)
	cmd.Env = append(os.Environ(), variable+"="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Process{t: t, cmd: cmd, out: bufio.NewReader(out)}
	t.Cleanup(p.Kill) // where the test ended early
	return p
}

// Lines returns what the process prints, until it has ended. A line that the
// kill cut short is left out. That the process ends by itself fails the test.
func (p *Process) Lines() iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			line, err := p.out.ReadString('\n')
			if err != nil {
				if !p.killed {
					_ = p.cmd.Wait()
					p.t.Fatalf("the process ended by itself: %v", p.cmd.ProcessState)
				}
				return
			}
			if !yield(strings.TrimSuffix(line, "\n")) {
				return
			}
		}
	}
}

// Kill kills the process, once; Lines goes on with what it had printed.
func (p *Process) Kill() {
	p.t.Helper()
	if p.killed {
		return
	}
	p.killed = true
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
}

// Wait waits until the process is gone, which Kill or its own end brings about.
func (p *Process) Wait() {
	_, _ = io.Copy(io.Discard, p.out)
	_ = p.cmd.Wait() // it was killed
}
