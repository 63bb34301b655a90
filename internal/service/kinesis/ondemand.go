package kinesis

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	api "lapwing.dev/lapwing/internal/aws/kinesis"
)

// A stream on demand has shards for twice the peak of what was written to it in the
// last 30 days, 4 of them at least and 200 at most (developer guide, "Choose the right
// mode to stream in", and "Quotas and limits": 200 MB a second). How soon a peak is
// seen AWS does not say, but that who doubles within 15 minutes may be refused: here
// it is the peak of a minute's mean, the finest that AWS shows of a stream.
const (
	onDemandShards    = 4
	maxOnDemandShards = 200
	peakWindow        = 30 * 24 * time.Hour
)

// need is how many shards the peak of a day asks for.
type need struct {
	Day    time.Time // its beginning, UTC
	Shards int
}

// load counts what is written to a stream.
type load struct {
	bytes, records atomic.Int64
	since          time.Time // when they were 0; the scaling's own
}

func (l *load) add(bytes int) {
	l.bytes.Add(int64(bytes))
	l.records.Add(1)
}

// shards returns for how many shards what was written since the last call asks, if
// they shall take twice that.
func (l *load) shards(now time.Time) int {
	bytes, records := float64(l.bytes.Swap(0)), float64(l.records.Swap(0))
	since := l.since
	l.since = now
	seconds := now.Sub(since).Seconds()
	if seconds <= 0 {
		return 0
	}
	return int(math.Ceil(2 * max(bytes/writeBytes, records/writeRecords) / seconds))
}

// needs notes how many shards are needed now, and returns how many the window asks
// for. A stream of which nothing is known yet needs what it has: AWS leaves one that
// changed its mode its shards, too.
func (r *record) needs(now time.Time, shards int) (target int, changed bool) {
	shards = min(max(shards, onDemandShards), maxOnDemandShards)
	if r.Needs == nil {
		shards = max(shards, len(r.open()))
	}
	kept := slices.DeleteFunc(slices.Clone(r.Needs), func(n need) bool { return now.Sub(n.Day) >= peakWindow+24*time.Hour })
	changed = len(kept) != len(r.Needs)
	day := now.UTC().Truncate(24 * time.Hour)
	switch n := len(kept); {
	case n == 0 || kept[n-1].Day.Before(day):
		kept, changed = append(kept, need{day, shards}), true
	case kept[n-1].Shards < shards:
		kept[n-1].Shards, changed = shards, true
	}
	r.Needs = kept
	for _, n := range kept {
		target = max(target, n.Shards)
	}
	return target, changed
}

// scaledTo returns how many shards a stream with some shall have, if so many are
// needed and there may be so many more: it is doubled or halved, so that each shard
// is split in two, or merged with its neighbour.
func scaledTo(open, target, more int) int {
	n := open
	for n < target {
		n *= 2
	}
	if n > open {
		n = max(open, min(n, maxOnDemandShards))
	} else {
		for n%2 == 0 && n/2 >= target {
			n /= 2
		}
	}
	if n > open+more {
		return open
	}
	return n
}

// errUnchanged says that a record need not be written.
var errUnchanged = errors.New("nothing to change")

// scaleAll gives streams on demand the shards that they need.
func (s *Service) scaleAll(ctx context.Context) {
	now := s.opts.Now()
	for item := range s.records.Scan("", "") {
		l := s.usable(item.Value.ID)
		if l == nil {
			continue
		}
		shards := l.load.shards(now)
		if item.Value.Mode != api.StreamModeOnDemand || item.Value.Status != api.StreamStatusActive {
			continue
		}
		if err := s.scale(ctx, item.Key, l, now, shards); err != nil && ctx.Err() == nil {
			s.log.Error("a data stream on demand was not scaled", "stream", item.Key, "error", err)
		}
	}
}

// scale notes what a stream needs, and changes its shards where it has others. What
// it needs is in the record before the shards are changed.
func (s *Service) scale(ctx context.Context, name string, l *live, now time.Time, shards int) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var before, after int
	r, err := s.change(ctx, name, func(r *record) error {
		if r.Mode != api.StreamModeOnDemand || r.Status != api.StreamStatusActive {
			return errUnchanged // since it was looked at
		}
		target, changed := r.needs(now, shards)
		open, _ := s.counts()
		before = len(r.open())
		after = scaledTo(before, target, maxShards-open)
		if !changed && after == before {
			return errUnchanged
		}
		return nil
	})
	if errors.Is(err, errUnchanged) || err == nil && after == before {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := s.reshape(ctx, r, l, func(c *resharding) error { c.uniform(after); return nil }); err != nil {
		return err
	}
	s.log.Info("a data stream on demand has the shards that its writes ask for", "stream", name, "before", before, "shards", after)
	return nil
}
