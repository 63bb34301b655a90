package location

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/metrics"
)

const (
	countsFile   = "metrics.json"
	countsFormat = 1

	// countsEvery is how often what was counted is handed on, and what cannot be is
	// written to the disk.
	countsEvery = 5 * time.Second
	// maxCounts bounds what one call hands on, in data, and maxCounted what waits:
	// when it is more, the oldest go.
	maxCounts  = 1000
	maxCounted = 20_000
)

// countsRequest hands on what a location counted. A core that has had a sequence
// number of an ID takes none up to it again.
type countsRequest struct {
	ID       string
	Sequence uint64
	Data     []metrics.Datum
}

// counts keeps what a location counts of its requests until the core has it: each
// once, whatever fails in between.
type counts struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex
	kept  keptCounts
	dirty bool // the file has something else
}

// keptCounts is the file.
type keptCounts struct {
	Format int
	// Request is what is being handed on: the core may have it by now. Without data
	// it is there.
	Request countsRequest
	// Waiting comes after it: one datum a metric and minute.
	Waiting []metrics.Datum
}

func openCounts(path string, log *slog.Logger) (*counts, error) {
	c := &counts{path: path, log: log}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.kept = keptCounts{Format: countsFormat, Request: countsRequest{ID: rand.Text()}}
		return c, nil
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(b, &c.kept); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.kept.Format > countsFormat {
		return nil, fmt.Errorf("%s has format %d, which is newer than this program", path, c.kept.Format)
	}
	return c, nil
}

// Collect takes what was counted; it implements metrics.Collector.
func (n *Node) Collect(data []metrics.Datum) { n.counts.collect(data) }

func (c *counts) collect(data []metrics.Datum) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = c.dirty || len(data) > 0
	for _, d := range data {
		d.Time = d.Time.Truncate(time.Minute)
		i := slices.IndexFunc(c.kept.Waiting, func(w metrics.Datum) bool {
			return w.Time.Equal(d.Time) && w.Unit == d.Unit && w.Namespace == d.Namespace && w.Name == d.Name && slices.Equal(w.Dimensions, d.Dimensions)
		})
		if i >= 0 {
			c.kept.Waiting[i].Set.Merge(d.Set)
		} else {
			c.kept.Waiting = append(c.kept.Waiting, d)
		}
	}
	if n := len(c.kept.Waiting); n > maxCounted {
		c.log.Warn("metrics of this edge location were dropped: the core does not take them", "data", n-maxCounted)
		slices.SortStableFunc(c.kept.Waiting, func(a, b metrics.Datum) int { return a.Time.Compare(b.Time) })
		c.kept.Waiting = slices.Clone(c.kept.Waiting[n-maxCounted:])
	}
}

// run hands on what was counted until ctx ends.
func (c *counts) run(ctx context.Context, send func(context.Context, countsRequest) error) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(countsEvery):
			if err := c.flush(ctx, send); err != nil && ctx.Err() == nil {
				c.log.Debug("metrics wait at this edge location", "error", err)
			}
		}
	}
}

// flush hands on all that there is. What it is about to hand on is on the disk
// first, under its number.
func (c *counts) flush(ctx context.Context, send func(context.Context, countsRequest) error) error {
	for {
		r, err := c.next()
		if err != nil || len(r.Data) == 0 {
			return err
		}
		if err := send(ctx, r); err != nil {
			return err
		}
		c.mu.Lock()
		c.kept.Request.Data, c.dirty = nil, true
		c.mu.Unlock()
	}
}

// next returns what is to be handed on, without data where there is nothing, and
// saves all that there is.
func (c *counts) next() (countsRequest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.kept
	if len(k.Request.Data) == 0 && len(k.Waiting) > 0 {
		n := min(maxCounts, len(k.Waiting))
		k.Request.Sequence++
		k.Request.Data, k.Waiting, c.dirty = k.Waiting[:n:n], slices.Clone(k.Waiting[n:]), true
	}
	return k.Request, c.save()
}

// save writes the file, with c.mu held.
func (c *counts) save() error {
	if !c.dirty {
		return nil
	}
	b, err := json.Marshal(c.kept)
	if err != nil {
		return err
	}
	if err := replaceFile(c.path, b); err != nil {
		return err
	}
	c.dirty = false
	return nil
}

func (c *counts) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.save()
}

// sendCounts hands what was counted to the core. What that refuses is dropped.
func (n *Node) sendCounts(ctx context.Context, r countsRequest) error {
	err := n.call(ctx, pathCounts, r, new(struct{}))
	if refusedForGood(err) {
		n.log.Error("the core refuses metrics; they are dropped", "error", err)
		return nil
	}
	return err
}

// Metrics keeps metrics.
type Metrics interface {
	// PutOnce keeps data under a source's number, unless it has had that number, or
	// one after it, of the same id.
	PutOnce(ctx context.Context, source, id string, sequence uint64, data []metrics.Datum) error
}

// takeCounts keeps what a location counted of its requests.
func (c *Core) takeCounts(ctx context.Context, name string, r countsRequest) error {
	if len(r.ID) == 0 || len(r.ID) > 64 || len(r.Data) > maxCounts {
		return refuse(http.StatusBadRequest, "%d metrics of %q: more than there can be", len(r.Data), r.ID)
	}
	for i := range r.Data {
		d := &r.Data[i]
		if d.Namespace != metrics.CloudFrontNamespace || len(d.Name) > 255 || len(d.Dimensions) != 2 || d.Dimensions[0].Name != "DistributionId" || d.Dimensions[1].Name != "Region" {
			return refuse(http.StatusBadRequest, "edge locations have no metric %q of %q", d.Name, d.Namespace)
		}
	}
	return c.opts.Metrics.PutOnce(ctx, "edge/"+name, r.ID, r.Sequence, r.Data)
}
