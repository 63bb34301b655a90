package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/test/harness"
)

// The sizes of the objects, and the connections that ask for them.
var sizes = []int{1 << 10, 64 << 10}

const (
	connections = 64
	h2Clients   = 16
	h2Streams   = 8
)

// load is what one load of a server came to.
type load struct {
	PerSecond float64       `json:"perSecond"`
	P99       time.Duration `json:"p99,omitempty"`
	CPU       time.Duration `json:"cpu"` // a request
}

// http1 measures hits over HTTP/1.1 in clear text with wrk.
func (b *bench) http1(ctx context.Context) error {
	return b.loads(ctx, "HTTP/1.1", func(s *server) bool { return s.plain > 0 }, b.wrk)
}

// http2 measures hits over HTTP/2 with TLS with h2load.
func (b *bench) http2(ctx context.Context) error {
	return b.loads(ctx, "HTTP/2, TLS", func(s *server) bool { return s.tls > 0 }, b.h2load)
}

type generator func(ctx context.Context, s *server, path string) (perSecond float64, p99 time.Duration, requests float64, err error)

func (b *bench) loads(ctx context.Context, protocol string, can func(*server) bool, generate generator) error {
	for _, size := range sizes {
		results := map[string][]load{}
		path := fmt.Sprintf("/size/%d/hit", size)
		for round := range b.rounds + 1 {
			for i := range b.servers {
				s := b.servers[(i+round)%len(b.servers)]
				if !can(s) {
					continue
				}
				before, err := cpu(s.pid)
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				perSecond, p99, requests, err := generate(ctx, s, path)
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				after, err := cpu(s.pid)
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				if round > 0 { // the first warms up
					results[s.name] = append(results[s.name], load{perSecond, p99, time.Duration(float64(after-before) / requests)})
				}
			}
		}
		b.report.hits(protocol, size, results)
	}
	return nil
}

var errGenerator = errors.New("not installed (scripts/setup bench)")

func (b *bench) wrk(ctx context.Context, s *server, path string) (float64, time.Duration, float64, error) {
	l, err := harness.Wrk(ctx, s.url(path), "-t", "2", "-c", strconv.Itoa(connections), "-d", b.duration.String(), "-H", "Host: "+s.host)
	return l.PerSecond, l.P99, l.Requests, err
}

var (
	h2Rate     = regexp.MustCompile(`finished in [\d.]+s, ([\d.]+) req/s`)
	h2Requests = regexp.MustCompile(`(\d+) succeeded, (\d+) failed`)
)

func (b *bench) h2load(ctx context.Context, s *server, path string) (float64, time.Duration, float64, error) {
	if _, err := exec.LookPath("h2load"); err != nil {
		return 0, 0, 0, fmt.Errorf("h2load: %w", errGenerator)
	}
	log := filepath.Join(b.dir, "h2load.log")
	defer os.Remove(log)
	seconds := strconv.Itoa(max(int(b.duration.Seconds()), 1))
	out, err := exec.CommandContext(ctx, "h2load", "-t", "2", "-c", strconv.Itoa(h2Clients), "-m", strconv.Itoa(h2Streams), "-D", seconds,
		"--log-file", log, "--connect-to", "127.0.0.1:"+strconv.Itoa(s.tls), fmt.Sprintf("https://%s:%d%s", s.host, s.tls, path)).CombinedOutput()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("h2load: %w: %s", err, out)
	}
	m := h2Requests.FindSubmatch(out)
	rate, err := number(h2Rate, out)
	if err != nil || m == nil {
		return 0, 0, 0, fmt.Errorf("h2load says %s", out)
	}
	requests, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil || requests == 0 {
		return 0, 0, 0, fmt.Errorf("h2load says %s", out)
	}
	p99, err := h2Percentile(log)
	return rate, p99, requests, err
}

// h2Percentile reads h2load's log: start in µs, status, and duration in µs.
func h2Percentile(path string) (time.Duration, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var times []int
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		if fields[1] != "200" {
			return 0, fmt.Errorf("h2load got status %s", fields[1])
		}
		n, err := strconv.Atoi(fields[2])
		if err != nil {
			return 0, err
		}
		times = append(times, n)
	}
	if len(times) == 0 {
		return 0, errors.New("h2load's log is empty")
	}
	slices.Sort(times)
	return time.Duration(times[len(times)*99/100]) * time.Microsecond, nil
}

func number(r *regexp.Regexp, out []byte) (float64, error) {
	m := r.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("no %v", r)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// clockTick is the unit of the CPU times that the kernel tells (USER_HZ).
const clockTick = 10 * time.Millisecond

// cpu returns the CPU time of a process and its descendants so far.
func cpu(pid int) (time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	type process struct {
		parent int
		ticks  int64
	}
	all := map[int]process{}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		id, rest, ok := strings.Cut(string(text), " (")
		_, rest, ok2 := cutLast(rest, ") ")
		f := strings.Fields(rest)
		if !ok || !ok2 || len(f) < 13 {
			continue
		}
		n, err1 := strconv.Atoi(id)
		parent, err2 := strconv.Atoi(f[1])
		user, err3 := strconv.ParseInt(f[11], 10, 64)
		system, err4 := strconv.ParseInt(f[12], 10, 64)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return 0, err
		}
		all[n] = process{parent, user + system}
	}
	if _, ok := all[pid]; !ok {
		return 0, errors.New("the server has ended")
	}
	ticks := int64(0)
	for id := range all {
		for p := id; p > 1; p = all[p].parent {
			if p == pid {
				ticks += all[id].ticks
				break
			}
		}
	}
	return time.Duration(ticks) * clockTick, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
