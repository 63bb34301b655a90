package accesslog

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

const (
	// realtimeEvery is how often records are handed over.
	realtimeEvery = time.Second
	// realtimeCall and realtimeBytes bound what one call hands over: as PutRecords
	// of Kinesis.
	realtimeCall  = 500
	realtimeBytes = 4 << 20
	// realtimeHeld bounds the records of one stream that wait, in bytes of memory,
	// and realtimeAge how long one waits: older ones are dropped.
	realtimeHeld = 8 << 20
	realtimeAge  = time.Minute
	// realtimeEntry is about what an entry takes besides its key and data, in bytes.
	realtimeEntry = 96
	// complainEvery bounds how often it is logged that records were dropped.
	complainEvery = time.Minute
)

// Entry is a record for a stream.
type Entry struct {
	Key  string // which shard it goes to
	Data []byte
}

// Streams is where real-time logs go. The Kinesis service implements it, by way of
// cmd.
type Streams interface {
	// PutRecords hands over entries to the stream with an ARN, and returns the
	// indexes of those that it did not take. An error means all of them.
	PutRecords(ctx context.Context, stream string, entries []Entry) (refused []int, err error)
}

// StreamOptions configures a Streamer. All fields are required.
type StreamOptions struct {
	// Config returns a real-time log configuration by its ARN.
	Config  func(arn string) (distribution.RealtimeLog, bool)
	Streams Streams
	Logger  *slog.Logger
}

// Streamer writes real-time logs: those requests that are sampled, within seconds.
// What cannot be handed over for a minute is dropped, and counted.
type Streamer struct {
	opts    StreamOptions
	queue   chan queuedRecord
	dropped atomic.Int64
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

type queuedRecord struct {
	record *Record
	config distribution.RealtimeLog
}

// NewStreamer returns a Streamer. Close ends it.
func NewStreamer(o StreamOptions) *Streamer {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Streamer{opts: o, queue: make(chan queuedRecord, queued), cancel: cancel}
	s.done.Go(func() { s.run(ctx) })
	return s
}

// Close hands over what there is. Log must not be called any more.
func (s *Streamer) Close() {
	s.cancel()
	s.done.Wait()
}

// Log takes a record, if its behaviour has a real-time log and the record is among
// those that are sampled. It never waits.
func (s *Streamer) Log(r *Record) {
	if r.Behaviour == nil || r.Behaviour.RealtimeLog == "" {
		return
	}
	c, ok := s.opts.Config(r.Behaviour.RealtimeLog)
	if !ok || rand.IntN(100) >= c.Sampling {
		return
	}
	select {
	case s.queue <- queuedRecord{r, c}:
	default:
		s.dropped.Add(1)
	}
}

// waiting is what is to be handed over to a stream.
type waiting struct {
	entries []waitingEntry
	bytes   int
}

type waitingEntry struct {
	Entry
	since time.Time
}

// held is the memory that an entry takes, in bytes: of a record with few fields
// most is not the fields.
func (e *waitingEntry) held() int { return len(e.Key) + len(e.Data) + realtimeEntry }

// realtime is what one goroutine makes and hands over.
type realtime struct {
	s          *Streamer
	streams    map[string]*waiting // by ARN
	complained time.Time
}

func (s *Streamer) run(ctx context.Context) {
	t := &realtime{s: s, streams: map[string]*waiting{}}
	tick := time.NewTicker(realtimeEvery)
	defer tick.Stop()
	for {
		select {
		case q := <-s.queue:
			if t.add(q) {
				t.flush(ctx)
			}
		case <-tick.C:
			t.flush(ctx)
		case <-ctx.Done():
			for {
				select {
				case q := <-s.queue:
					t.add(q)
					continue
				default:
				}
				break
			}
			t.flush(context.WithoutCancel(ctx))
			return
		}
	}
}

// add renders a record. It tells whether there is a call's worth for its stream.
func (t *realtime) add(q queuedRecord) bool {
	w := t.streams[q.config.Stream]
	if w == nil {
		w = &waiting{}
		t.streams[q.config.Stream] = w
	}
	e := waitingEntry{Entry{Key: q.record.RequestID, Data: q.record.appendFields(nil, fieldsOf(q.config.Fields...))}, time.Now()}
	if w.bytes+e.held() > realtimeHeld {
		t.s.dropped.Add(1)
		return false
	}
	w.entries, w.bytes = append(w.entries, e), w.bytes+e.held()
	return len(w.entries)%realtimeCall == 0
}

// flush hands over what there is, and says how much was dropped.
func (t *realtime) flush(ctx context.Context) {
	for arn, w := range t.streams {
		t.send(ctx, arn, w)
		if len(w.entries) == 0 {
			delete(t.streams, arn)
		}
	}
	if time.Since(t.complained) < complainEvery {
		return
	}
	if n := t.s.dropped.Swap(0); n > 0 {
		t.s.opts.Logger.Warn("records of real-time logs were dropped: there were too many at once, or their stream did not take them", "records", n)
		t.complained = time.Now()
	}
}

// send hands over what waits for a stream. What it does not take waits on.
func (t *realtime) send(ctx context.Context, arn string, w *waiting) {
	var left []waitingEntry
	for rest := w.entries; len(rest) > 0; {
		n, bytes := 0, 0
		for n < len(rest) && n < realtimeCall && (n == 0 || bytes+len(rest[n].Data) <= realtimeBytes) {
			bytes += len(rest[n].Data)
			n++
		}
		var call []waitingEntry
		call, rest = rest[:n], rest[n:]
		refused, err := t.put(ctx, arn, call)
		if err != nil { // of the stream, or of the way to it
			t.s.opts.Logger.Debug("real-time logs were not delivered; they are tried again", "stream", arn, "error", err)
			left = append(append(left, call...), rest...)
			break
		}
		for _, i := range refused {
			left = append(left, call[i])
		}
	}
	n := len(left)
	kept := slices.DeleteFunc(left, func(e waitingEntry) bool { return time.Since(e.since) > realtimeAge })
	t.s.dropped.Add(int64(n - len(kept)))
	w.entries, w.bytes = kept, 0
	for i := range kept {
		w.bytes += kept[i].held()
	}
}

func (t *realtime) put(ctx context.Context, arn string, call []waitingEntry) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	entries := make([]Entry, len(call))
	for i := range call {
		entries[i] = call[i].Entry
	}
	return t.s.opts.Streams.PutRecords(ctx, arn, entries)
}
