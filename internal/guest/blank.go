package guest

import (
	"fmt"
	"strings"

	"lapwing.dev/lapwing/internal/guest/http1"
	"lapwing.dev/lapwing/internal/guest/proto"
)

// A runtime may have been started, in the sandbox that this one is a clone of, before
// anybody knew for what (proto.Start.Blank): it waits in a call of restore/next, and
// takes the place of the one that a start would start. If it ends before that, it is
// as if it had not been there.

// framedLogsFile is the descriptor of a runtime that takes framed logs.
const framedLogsFile = 3

// framedLogs is the variable that names it.
func framedLogs() string { return fmt.Sprintf("_LAMBDA_TELEMETRY_LOG_FD=%d", framedLogsFile) }

// fillBlank tells the runtime that waits for it, if one does, what it is to be. The
// error is that of starting one in its place.
func (g *guest) fillBlank() (filled bool, err error) {
	g.mu.Lock()
	blank := g.restoring.blank
	g.mu.Unlock()
	if !blank {
		return false, nil
	}
	if err := g.checkDir(); err != nil {
		return false, err
	}
	env := g.runtimeEnv()
	if g.start.FramedLogs {
		env = append(env, framedLogs())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.restoring.blank {
		return false, nil // it has ended just now
	}
	g.restoring.answer(blankResponse(env, g.start.Dir))
	g.stepOver(proto.StepBlank)
	g.steps.Store(false) // it has booted
	return true, nil
}

// blankResponse tells a runtime what it is to be.
func blankResponse(env []string, dir string) http1.Response {
	pairs := make([][2]string, len(env))
	for i, e := range env {
		pairs[i][0], pairs[i][1], _ = strings.Cut(e, "=")
	}
	return jsonResponse(200, struct {
		Env     [][2]string `json:"env"` // all of it, in its order
		Dir     string      `json:"dir"` // the working directory
		Entropy []byte      `json:"entropy"`
	}{pairs, dir, newEntropy()})
}
