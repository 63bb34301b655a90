package kinesis

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	api "lapwing.dev/lapwing/internal/aws/kinesis"
	"lapwing.dev/lapwing/internal/stream"
)

// format is the version of the records.
const format = 1

// record is a data stream as it is kept.
type record struct {
	Format    int
	Name      string
	ID        string // of this stream alone, also among later ones of its name
	Status    api.StreamStatus
	Mode      api.StreamMode
	Created   time.Time
	Retention int // hours
	MaxRecord int // KiB of data and partition key
	Tags      map[string]string
	Shards    []shard // in the order of their numbers
	// Scaled is when UpdateShardCount was called in the last scaleWindow.
	Scaled    []time.Time
	Consumers []consumer // in the order of their names
	// Needs are how many shards a stream on demand needed, by day.
	Needs []need
}

// shard is one of a stream's shards.
type shard struct {
	Number     int
	Start, End hashKey // both included
	Created    time.Time
	// Parents are the numbers of the shards that it was made of: none, one that was
	// split, or two that were merged.
	Parents []int
	// Closed is the offset after the last record of a shard that takes no more; 0:
	// it is open.
	Closed   uint64
	ClosedAt time.Time
}

func (s *shard) closed() bool { return s.Closed != 0 }

func (s *shard) id() string { return shardID(s.Number) }

func shardID(number int) string { return fmt.Sprintf("shardId-%012d", number) }

// parseShardID returns the number of a shard: AWS takes it without the words, too.
func parseShardID(id string) (int, bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(id, "shardId-"), 10, 31)
	return int(n), err == nil
}

// newID returns an id as streams have them.
func newID() string {
	id := strings.ToLower(rand.Text())
	return id[:20] + "-" + id[20:23]
}

// horizon is when the oldest records that a stream still has arrived.
func (r *record) horizon(now time.Time) time.Time {
	return now.Add(-time.Duration(r.Retention) * time.Hour)
}

// open returns the shards that take records, in the order of their hash keys.
func (r *record) open() []shard {
	var open []shard
	for _, s := range r.Shards {
		if !s.closed() {
			open = append(open, s)
		}
	}
	slices.SortFunc(open, func(a, b shard) int { return a.Start.compare(b.Start) })
	return open
}

// shard returns a shard by its number.
func (r *record) shard(number int) (shard, bool) {
	i := slices.IndexFunc(r.Shards, func(s shard) bool { return s.Number == number })
	if i < 0 {
		return shard{}, false
	}
	return r.Shards[i], true
}

// Sequence numbers have 56 digits as on AWS: 49, when the shard was made (in
// milliseconds), its number, and the offset. So they grow along a shard, and from a
// shard to those that are made of it; and each tells which shard it is of.
const (
	sequenceLead    = "49"
	sequenceCreated = 15
	sequenceShard   = 12
	sequenceOffset  = 27
)

func (s *shard) sequencePrefix() string {
	return fmt.Sprintf("%s%0*d%0*d", sequenceLead, sequenceCreated, s.Created.UnixMilli(), sequenceShard, s.Number)
}

// sequence returns the sequence number of an offset. Records begin at 1: 0 is
// where the shard begins.
func (s *shard) sequence(offset uint64) string {
	return fmt.Sprintf("%s%0*d", s.sequencePrefix(), sequenceOffset, offset)
}

// offset returns the offset of a sequence number of the shard.
func (s *shard) offset(sequence string) (uint64, bool) {
	rest, ok := strings.CutPrefix(sequence, s.sequencePrefix())
	if !ok || len(rest) != sequenceOffset {
		return 0, false
	}
	n, err := strconv.ParseUint(rest, 10, 64)
	return n, err == nil
}

// live is what is in use of a stream.
type live struct {
	// resharding is held by those who put records, to read, and by whoever closes
	// shards.
	resharding sync.RWMutex
	load       load

	mu     sync.RWMutex
	record record
	shards map[int]*liveShard
	open   []*liveShard // in the order of their hash keys
}

// liveShard is a shard in use.
type liveShard struct {
	shard
	log  *stream.Shard
	rate *rates
}

// use takes a record of the stream, and opens the shards that are new in it.
func (l *live) use(r record, logs *stream.Store) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	shards := make(map[int]*liveShard, len(r.Shards))
	for _, sh := range r.Shards {
		now := &liveShard{shard: sh}
		if before := l.shards[sh.Number]; before != nil {
			now.log, now.rate = before.log, before.rate
		} else {
			log, err := logs.Shard(r.ID, sh.Number)
			if err != nil {
				return err
			}
			now.log, now.rate = log, newRates()
		}
		shards[sh.Number] = now
	}
	l.record, l.shards, l.open = r, shards, nil
	for _, sh := range r.open() {
		l.open = append(l.open, shards[sh.Number])
	}
	return nil
}

// all returns the shards.
func (l *live) all() []*liveShard {
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := make([]*liveShard, 0, len(l.shards))
	for _, sh := range l.shards {
		all = append(all, sh)
	}
	return all
}

// shard returns a shard by its number, nil where there is none, and the record.
func (l *live) shard(number int) (*liveShard, record) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.shards[number], l.record
}

// at returns the open shard that a hash key belongs to.
func (l *live) at(key hashKey) *liveShard {
	l.mu.RLock()
	defer l.mu.RUnlock()
	n, found := slices.BinarySearchFunc(l.open, key, func(sh *liveShard, key hashKey) int { return sh.Start.compare(key) })
	if !found {
		n--
	}
	return l.open[n]
}
