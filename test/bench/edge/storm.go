package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// viewers is how many want the same object at once.
const viewers = 200

// storm is what a storm came to.
type storm struct {
	All    time.Duration `json:"all"`    // until the last viewer had its answer
	Origin int64         `json:"origin"` // requests that came to the origin
}

// storms measures how long it takes until all have an object that was not there,
// and how often the origin was asked for it.
func (b *bench) storms(ctx context.Context) error {
	for _, kind := range []struct{ title, path string }{
		{"miss storm", "slow"}, {"uncacheable storm", "never"},
	} {
		results := map[string]storm{}
		for _, s := range b.servers {
			r, err := b.storm(ctx, s, fmt.Sprintf("/%s/%d", kind.path, time.Now().UnixNano()))
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			results[s.name] = r
		}
		b.report.storm(kind.title, results)
	}
	return nil
}

func (b *bench) storm(ctx context.Context, s *server, path string) (storm, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	before := b.origin.requests.Load()
	began := time.Now()
	var g sync.WaitGroup
	errs := make([]error, viewers)
	for i := range viewers {
		g.Go(func() { errs[i] = ask(ctx, client, s, path) })
	}
	g.Wait()
	return storm{time.Since(began), b.origin.requests.Load() - before}, errors.Join(errs...)
}

func ask(ctx context.Context, client *http.Client, s *server, path string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(path), nil)
	if err != nil {
		return err
	}
	r.Host = s.host
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	n, err := io.Copy(io.Discard, answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || n != 1024) {
		err = fmt.Errorf("%s with %d bytes", answer.Status, n)
	}
	return err
}
