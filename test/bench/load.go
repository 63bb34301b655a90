package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"lapwing.dev/lapwing/test/harness"
)

// payload is 1 KB of JSON.
var payload = fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", 1024-11))

// turns is how many parts a load is measured in.
const turns = 4

// load is the result of driving one URL.
type load struct {
	latencies []time.Duration // sorted
	elapsed   time.Duration
}

// percentile returns the time that so much of the requests, from 0 to 1, took at
// most.
func (l *load) percentile(p float64) time.Duration {
	return l.latencies[min(int(p*float64(len(l.latencies))), len(l.latencies)-1)]
}

// loadOf makes a load of times that were measured one by one.
func loadOf(times []time.Duration) *load {
	l := &load{latencies: slices.Sorted(slices.Values(times))}
	for _, t := range times {
		l.elapsed += t
	}
	return l
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

// signed returns a request that invokes, signed at this moment.
func signed(ctx context.Context, signer *v4.Signer, creds aws.Credentials, region, hash, url string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return req, signer.SignHTTP(ctx, creds, req, hash, "lambda", region, time.Now())
}

func send(ctx context.Context, client *http.Client, signer *v4.Signer, creds aws.Credentials, region, hash, url string) error {
	req, err := signed(ctx, signer, creds, region, hash, url)
	if err != nil {
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

// driveByWrk is drive with wrk, for a rate in which the generator has a smaller
// share of the processors: the signature, which holds for some minutes, is made once,
// and of the answers only the status is looked at.
func (b *bench) driveByWrk(ctx context.Context, url string, concurrency int, duration time.Duration) (perSecond float64, err error) {
	cfg := b.server.Config()
	creds, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return 0, err
	}
	sum := sha256.Sum256(payload)
	req, err := signed(ctx, v4.NewSigner(), creds, cfg.Region, hex.EncodeToString(sum[:]), url)
	if err != nil {
		return 0, err
	}
	script := fmt.Sprintf("wrk.method = 'POST'\nwrk.body = [==[%s]==]\n", payload)
	for name := range req.Header {
		script += fmt.Sprintf("wrk.headers[%q] = %q\n", name, req.Header.Get(name))
	}
	path := filepath.Join(b.dir, "wrk.lua")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		return 0, err
	}
	l, err := harness.Wrk(ctx, url, "-t", "1", "-c", strconv.Itoa(concurrency), "-d", fmt.Sprint(max(1, int(duration.Seconds())))+"s", "-s", path)
	return l.PerSecond, err
}
