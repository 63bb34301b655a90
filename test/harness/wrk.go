package harness

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// ErrNoWrk is returned where wrk is not installed.
var ErrNoWrk = errors.New("wrk: not installed (scripts/setup bench)")

// WrkLoad is what a run of wrk came to.
type WrkLoad struct {
	Requests  float64
	PerSecond float64
	P99       time.Duration
}

var (
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkP99      = regexp.MustCompile(`99%\s+([\d.]+(?:us|ms|s))`)
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkErrors   = regexp.MustCompile(`(?m)^\s*(Non-2xx.*|Socket errors.*)$`)
)

// Wrk drives a URL with wrk, whose flags args are. An answer other than 2xx is an
// error.
func Wrk(ctx context.Context, url string, args ...string) (WrkLoad, error) {
	if _, err := exec.LookPath("wrk"); err != nil {
		return WrkLoad{}, ErrNoWrk
	}
	out, err := exec.CommandContext(ctx, "wrk", append(append([]string{"--latency"}, args...), url)...).CombinedOutput()
	if err != nil {
		return WrkLoad{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	if m := wrkErrors.FindSubmatch(out); m != nil {
		return WrkLoad{}, fmt.Errorf("wrk: %s", m[1])
	}
	rate, requests, p99 := wrkRate.FindSubmatch(out), wrkRequests.FindSubmatch(out), wrkP99.FindSubmatch(out)
	if rate == nil || requests == nil || p99 == nil {
		return WrkLoad{}, fmt.Errorf("wrk says %s", out)
	}
	var l WrkLoad
	var err1, err2, err3 error
	l.PerSecond, err1 = strconv.ParseFloat(string(rate[1]), 64)
	l.Requests, err2 = strconv.ParseFloat(string(requests[1]), 64)
	l.P99, err3 = time.ParseDuration(string(p99[1]))
	return l, errors.Join(err1, err2, err3)
}
