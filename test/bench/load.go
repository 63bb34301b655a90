package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// payload is 1 KB of JSON.
var payload = fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", 1024-11))

// rounds is how many parts a load is measured in.
const rounds = 4

// load is the result of driving one URL.
type load struct {
	latencies []time.Duration // sorted
	elapsed   time.Duration
}

func (l *load) percentile(p float64) time.Duration {
	return l.latencies[min(int(p*float64(len(l.latencies))), len(l.latencies)-1)]
}

// add returns both loads as one; l may be nil.
func (l *load) add(other *load) *load {
	if l == nil {
		return other
	}
	all := append(l.latencies, other.latencies...)
	slices.Sort(all)
	return &load{latencies: all, elapsed: l.elapsed + other.elapsed}
}

func (l *load) throughput() float64 { return float64(len(l.latencies)) / l.elapsed.Seconds() }

// drive sends requests with so many in flight, for a while; at least one each.
func drive(ctx context.Context, cfg aws.Config, url string, concurrency int, duration time.Duration) (*load, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: concurrency, DisableCompression: true}}
	defer client.CloseIdleConnections()
	creds, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	signer, sum := v4.NewSigner(), sha256.Sum256(payload)
	hash := hex.EncodeToString(sum[:])
	var mu sync.Mutex
	var all []time.Duration
	var firstErr error
	began := time.Now()
	var wg sync.WaitGroup
	for range concurrency {
		wg.Go(func() {
			var own []time.Duration
			var err error
			for more := true; more && err == nil && ctx.Err() == nil; more = time.Since(began) < duration {
				start := time.Now()
				if err = send(ctx, client, signer, creds, cfg.Region, hash, url); err == nil {
					own = append(own, time.Since(start))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
			if firstErr == nil {
				firstErr = err
			}
		})
	}
	wg.Wait()
	l := &load{latencies: all, elapsed: time.Since(began)}
	slices.Sort(l.latencies)
	if firstErr == nil && len(all) == 0 {
		firstErr = ctx.Err()
	}
	return l, firstErr
}

func send(ctx context.Context, client *http.Client, signer *v4.Signer, creds aws.Credentials, region, hash, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if err := signer.SignHTTP(ctx, creds, req, hash, "lambda", region, time.Now()); err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Amz-Function-Error") != "" || len(body) != len(payload) {
		return fmt.Errorf("%s: %s: %.300s", url, resp.Status, body)
	}
	return nil
}

// floorServer is the bare server.
const floorServer = `
const http = require("node:http");
http.createServer((req, res) => {
  const chunks = [];
  req.on("data", (c) => chunks.push(c));
  req.on("end", () => {
    const body = JSON.stringify(JSON.parse(Buffer.concat(chunks)));
    res.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
    res.end(body);
  });
}).listen(0, "127.0.0.1", function () { console.log(this.address().port); });
`

// startFloor starts the bare server and returns its URL.
func (b *bench) startFloor() (url string, stop func(), err error) {
	cmd := exec.Command(b.node, "-e", floorServer)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	var port int
	if _, err := fmt.Fscan(out, &port); err != nil {
		stop()
		return "", nil, fmt.Errorf("the floor's server did not start: %w", err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d/", port), stop, nil
}

// warm measures invocations of functions that are running.
func (b *bench) warm(ctx context.Context) error {
	if err := b.deploy(ctx, "echo", nodeRuntime, map[string]string{"index.js": "exports.handler = async (event) => event;"}); err != nil {
		return err
	}
	floorURL, stop, err := b.startFloor()
	if err != nil {
		return err
	}
	defer stop()
	urls := map[string]string{"floor": floorURL, "lapwing": b.invocations("echo")}
	results := map[string]*load{}
	for _, concurrency := range []int{1, 32} {
		for _, url := range urls { // warm up: as many environments as requests in flight
			if _, err := drive(ctx, b.server.Config(), url, concurrency, b.duration); err != nil {
				return err
			}
		}
		// By turns, so that whatever else this host does weighs on both alike.
		for range rounds {
			for who, url := range urls {
				l, err := drive(ctx, b.server.Config(), url, concurrency, b.duration/rounds)
				if err != nil {
					return err
				}
				key := fmt.Sprint(who, concurrency)
				results[key] = results[key].add(l)
			}
		}
	}
	f1, l1, f32, l32 := results["floor1"], results["lapwing1"], results["floor32"], results["lapwing32"]
	fmt.Printf("warm invocation, Node.js, concurrency 1 (n = %d)\n", len(l1.latencies))
	fmt.Printf("  floor    p50 %8v  p99 %8v\n", f1.percentile(.5).Round(time.Microsecond), f1.percentile(.99).Round(time.Microsecond))
	fmt.Printf("  lapwing  p50 %8v  p99 %8v\n", l1.percentile(.5).Round(time.Microsecond), l1.percentile(.99).Round(time.Microsecond))
	ratio := float64(l1.percentile(.5)) / float64(f1.percentile(.5))
	goal("p50, times the floor", ratio, "%.2f", "at most 3", ratio <= 3)
	fmt.Printf("  %-46s %.2f\n", "p99, times the floor", float64(l1.percentile(.99))/float64(f1.percentile(.99)))
	fmt.Printf("throughput, Node.js, concurrency 32 (n = %d)\n", len(l32.latencies))
	fmt.Printf("  floor    %8.0f a second\n  lapwing  %8.0f a second, p50 %v, p99 %v\n", f32.throughput(), l32.throughput(),
		l32.percentile(.5).Round(time.Microsecond), l32.percentile(.99).Round(time.Microsecond))
	ratio = l32.throughput() / f32.throughput()
	goal("throughput, times the floor", ratio, "%.2f", "at least 0.2", ratio >= 0.2)
	fmt.Println()
	return nil
}
