package accesslog

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queued is how many records wait to be written at most; more are dropped,
	// and counted: no answer waits for its log line.
	queued = 16 << 10
	// interval is after how long a file is delivered. CloudFront delivers
	// "up to several times in an hour".
	interval = 5 * time.Minute
	// full is the size at which a file is delivered before that, in bytes.
	full = 8 << 20
	// maxHeld bounds the files that could not be delivered and are tried again,
	// in bytes of all of them.
	maxHeld = 64 << 20
	// deliveryTimeout bounds the delivery of one file.
	deliveryTimeout = 30 * time.Second
)

// Objects is where files go. The S3 service implements it, by way of cmd.
type Objects interface {
	PutObject(ctx context.Context, bucket, key string, body []byte) error
}

// Options configures a Writer. All fields are required.
type Options struct {
	Objects Objects
	Logger  *slog.Logger
}

// Writer writes standard logs. As on AWS they are a best effort: what was not
// delivered yet goes with the process if that is killed.
type Writer struct {
	opts    Options
	queue   chan *Record
	dropped atomic.Int64
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// New returns a Writer. Close ends it.
func New(o Options) *Writer {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writer{opts: o, queue: make(chan *Record, queued), cancel: cancel}
	w.done.Go(func() { w.run(ctx) })
	return w
}

// Close delivers what there is. Log must not be called any more.
func (w *Writer) Close() {
	w.cancel()
	w.done.Wait()
}

// Log takes a record for the log of its distribution, if that has one. It never
// waits.
func (w *Writer) Log(r *Record) {
	if r.Distribution.Logging.Bucket == "" {
		return
	}
	select {
	case w.queue <- r:
	default:
		w.dropped.Add(1)
	}
}

// file is a log file in the making.
type file struct {
	bucket, key string
	began       time.Time
	buffer      bytes.Buffer
	gzip        *gzip.Writer
}

// files are those that one goroutine makes and delivers.
type files struct {
	w    *Writer
	open map[string]*file // by bucket, prefix, distribution and hour
	held []*file          // complete, to be delivered
	line []byte
}

func (w *Writer) run(ctx context.Context) {
	f := &files{w: w, open: map[string]*file{}}
	tick := time.NewTicker(interval / 5)
	defer tick.Stop()
	for {
		select {
		case r := <-w.queue:
			f.add(r)
		case now := <-tick.C:
			f.completeBefore(now.Add(-interval))
			f.deliver(ctx)
			if n := w.dropped.Swap(0); n > 0 {
				w.opts.Logger.Warn("access log lines were dropped: there were too many at once", "lines", n)
			}
		case <-ctx.Done():
			for {
				select {
				case r := <-w.queue:
					f.add(r)
					continue
				default:
				}
				break
			}
			f.completeBefore(time.Now().Add(time.Hour))
			f.deliver(context.WithoutCancel(ctx))
			return
		}
	}
}

// add writes a record to its file.
func (f *files) add(r *Record) {
	l := r.Distribution.Logging
	hour := r.Time.UTC().Format("2006-01-02-15")
	id := l.Bucket + "\x00" + l.Prefix + "\x00" + r.Distribution.ID + "\x00" + hour
	at := f.open[id]
	if at == nil {
		prefix := l.Prefix
		if prefix != "" && !strings.HasSuffix(prefix, "/") {
			prefix += "/"
		}
		at = &file{bucket: l.Bucket, key: fmt.Sprintf("%s%s.%s.%s.gz", prefix, r.Distribution.ID, hour, strings.ToLower(rand.Text()[:8])), began: time.Now()}
		at.gzip = gzip.NewWriter(&at.buffer)
		f.open[id] = at
		at.write([]byte(header))
	}
	f.line = r.appendFields(f.line[:0], standard)
	at.write(f.line)
	if at.buffer.Len() >= full {
		f.complete(id)
	}
}

// write compresses into memory, which cannot fail.
func (a *file) write(b []byte) { _, _ = a.gzip.Write(b) }

func (f *files) complete(id string) {
	at := f.open[id]
	delete(f.open, id)
	_ = at.gzip.Close() // into memory
	f.held = append(f.held, at)
}

// completeBefore ends the files that were begun before a time.
func (f *files) completeBefore(t time.Time) {
	for id, at := range f.open {
		if at.began.Before(t) {
			f.complete(id)
		}
	}
}

// deliver puts the complete files where they belong. Those that fail are tried
// again with the next ones, as long as there is room.
func (f *files) deliver(ctx context.Context) {
	failed := f.held[:0]
	size := 0
	for _, at := range f.held {
		err := f.put(ctx, at)
		if err == nil {
			continue
		}
		if size += at.buffer.Len(); size > maxHeld {
			f.w.opts.Logger.Error("an access log file is lost: it could not be delivered for too long", "bucket", at.bucket, "key", at.key, "error", err)
			continue
		}
		f.w.opts.Logger.Warn("an access log file could not be delivered; it is tried again", "bucket", at.bucket, "key", at.key, "error", err)
		failed = append(failed, at)
	}
	clear(f.held[len(failed):])
	f.held = failed
}

func (f *files) put(ctx context.Context, at *file) error {
	ctx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	return f.w.opts.Objects.PutObject(ctx, at.bucket, at.key, at.buffer.Bytes())
}
