package usage

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/fsync"
	"lapwing.dev/lapwing/internal/meter"
)

const (
	// commitDelay is how long records collect before they are written: one
	// fsync for all of them, long before their lines would go to the log.
	commitDelay = 25 * time.Millisecond
	// retryDelay is the time between attempts to write to a full disk.
	retryDelay = time.Second
	// settleEvery is the time between attempts to settle lines.
	settleEvery = time.Second
	// maxBacklog bounds what waits in memory, in bytes.
	maxBacklog = 16 << 20
	// typicalRecord is what a record takes beside its line, in bytes.
	typicalRecord = 600
	// maxSpare is the most memory for records, in bytes, that is kept between
	// batches.
	maxSpare = 256 << 10
	// segmentBytes is the size at which a segment ends.
	segmentBytes = 8 << 20
)

// Errors that a Receipt's Written returns.
var (
	ErrClosed = errors.New("usage: closed")
	ErrFull   = errors.New("usage: too much waits to be written; usage was lost")
)

// Options configures a Journal. The zero value of a field means its default.
type Options struct {
	// Logs has the REPORT lines. Required.
	Logs Logs
	// Logger is where faults are told.
	Logger *slog.Logger
	// SegmentBytes is the size at which a segment ends; 8 MiB by default.
	SegmentBytes int64
	// SettleEvery is the time between attempts to settle lines; a second by
	// default.
	SettleEvery time.Duration
}

// Journal keeps usage. Its methods are safe for concurrent use.
type Journal struct {
	dir  string
	opts Options
	log  *slog.Logger
	lock *os.File

	wake chan struct{} // the batch has a record
	stop chan struct{}
	done sync.WaitGroup

	mu        sync.Mutex
	nextSeq   uint64
	written   uint64     // records up to this one are on the disk, or lost
	batch     *batch     // collects records
	unsettled []*Receipt // written, in order
	closed    bool
	lost      int64 // records

	// The writer's alone.
	file    *os.File // nil: the next write begins a segment
	size    int64
	sums    segmentSums // of the segment
	number  int         // of the newest segment
	backlog []*batch
	spare   []byte // frames of a batch that was written, for the next one
	failing bool   // the last write failed; it has been told

	// settle's alone.
	settling sync.Mutex
	settled  uint64
	segments []segment // ended ones, which wait to be folded; guarded by mu
	dropped  int64     // what Logs last counted
	lagging  bool      // the last attempt failed; it has been told
}

// segment is one that nothing is written to any more.
type segment struct {
	path string
	last uint64      // of its records
	sums segmentSums // nil where an earlier process has written it
}

// batch is records that are written together.
type batch struct {
	records  []record // until they are encoded
	size     int      // of the records, about, in bytes
	last     uint64   // of the records
	receipts []*Receipt
	frames   []byte // the encoded records
	sums     segmentSums
	written  chan struct{} // closed when err is set
	err      error
}

// newBatch returns a batch for about n records.
func newBatch(n int) *batch {
	return &batch{records: make([]record, 0, n), receipts: make([]*Receipt, 0, n), sums: segmentSums{}, written: make(chan struct{})}
}

// add takes a record and its receipt.
func (b *batch) add(rec record, r *Receipt) {
	b.records, b.receipts = append(b.records, rec), append(b.receipts, r)
	b.size += typicalRecord + len(r.report.Message)
	b.last = rec.Seq
}

// encode makes frames of the records, in the memory of spare. One after the other
// they take a fraction of the time that each takes when its invocation is over,
// with other code and data at hand.
func (b *batch) encode(spare []byte) {
	b.frames = spare[:0]
	for i := range b.records {
		b.frames = appendFrame(b.frames, &b.records[i])
		b.sums.add(&b.records[i])
	}
	b.records = nil
}

// Open opens the journal in dir, which is made where it is missing. What a
// crash left is made good first: lines that the log lacks are appended to it.
// One process at a time can have it open.
func Open(dir string, opts Options) (_ *Journal, err error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.SegmentBytes == 0 {
		opts.SegmentBytes = segmentBytes
	}
	if opts.SettleEvery == 0 {
		opts.SettleEvery = settleEvery
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("usage: %w", err)
	}
	j := &Journal{
		dir: dir, opts: opts, log: opts.Logger, batch: newBatch(0),
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	if j.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err := j.recover(); err != nil {
		return nil, errors.Join(err, j.lock.Close())
	}
	j.done.Go(j.writer)
	j.done.Go(j.settler)
	return j, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("usage: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("usage: %s is in use by another process: %w", dir, err)
	}
	return f, nil
}

// Record takes the usage of an invocation, which must not change any more, and its
// REPORT line. It does not wait for the disk.
func (j *Journal) Record(u *meter.Usage, line meter.Report) meter.Receipt {
	r := &Receipt{j: j, report: line}
	rec := record{Usage: u}
	if line.Message != "" {
		rec.Report = &r.report
	}
	j.add(rec, r)
	return r
}

// Allocate takes provisioned concurrency that was kept ready; began is when its
// configuration first had environments, last tells that it has none any more.
func (j *Journal) Allocate(a meter.Allocation, began time.Time, last bool) {
	j.add(record{Allocation: &allocation{a, a.Quantities(began, last)}}, &Receipt{j: j})
}

// add takes a record, whose receipt is r.
func (j *Journal) add(rec record, r *Receipt) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		r.batch = failedBatch(ErrClosed)
	case j.batch.size > maxBacklog:
		if j.lost++; j.lost == 1 {
			j.log.Error("usage is lost: it cannot be written, and too much waits already")
		}
		r.batch = failedBatch(ErrFull)
	default:
		j.collect(rec, r)
	}
}

// collect adds a record to the batch, under the next number. j.mu is held.
func (j *Journal) collect(rec record, r *Receipt) {
	rec.Seq = j.nextSeq
	j.nextSeq++
	r.seq, r.batch = rec.Seq, j.batch
	j.batch.add(rec, r)
	j.kick()
}

func (j *Journal) kick() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func failedBatch(err error) *batch {
	b := &batch{written: make(chan struct{}), err: err}
	close(b.written)
	return b
}

// Lost returns how many records were lost since the start, because the disk was
// full for too long.
func (j *Journal) Lost() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lost
}

// Close writes what waits, settles what it can and ends the journal. The log
// must be closed after it.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.mu.Unlock()
	close(j.stop)
	j.done.Wait()
	// Whatever cannot be settled is looked after at the next start.
	j.commit()
	err := j.settle()
	j.commit()
	if n := len(j.backlog); n > 0 {
		err = errors.Join(err, j.backlog[n-1].err)
	}
	if j.file != nil {
		err = errors.Join(err, j.file.Close())
	}
	return errors.Join(err, j.lock.Close())
}

// writer writes batches until the journal is closed.
func (j *Journal) writer() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		var retry <-chan time.Time
		if len(j.backlog) > 0 {
			timer.Reset(retryDelay)
			retry = timer.C
		}
		select {
		case <-j.stop:
			return // Close writes the rest
		case <-retry:
		case <-j.wake:
			timer.Reset(commitDelay)
			select {
			case <-j.stop:
				return
			case <-timer.C:
			}
		}
		j.commit()
	}
}

// commit writes what has collected, after what could not be written earlier.
func (j *Journal) commit() {
	fresh := j.takeBatch()
	if fresh != nil {
		fresh.encode(j.spare)
		j.spare = nil
		j.backlog = append(j.backlog, fresh)
	}
	if len(j.backlog) == 0 {
		return
	}
	if err := j.write(j.backlog); err != nil {
		if !j.failing {
			j.log.Error("usage cannot be written; it waits in memory, and its REPORT lines with it", "error", err)
		}
		j.failing = true
		j.giveUp(fresh, err)
		return
	}
	if j.failing {
		j.log.Info("usage that had to wait was written")
		j.failing = false
	}
	j.mu.Lock()
	newest := j.backlog[len(j.backlog)-1]
	j.written = newest.last
	for _, b := range j.backlog {
		for _, r := range b.receipts {
			if r.report.Message != "" {
				r.state = lineAwaited
				if b.err != nil {
					r.state = lineDoubtful // nobody but settle brings it to the log now
				}
				j.unsettled = append(j.unsettled, r)
			}
		}
		if b.err == nil {
			close(b.written)
		}
	}
	j.mu.Unlock()
	if cap(newest.frames) <= maxSpare {
		j.spare = newest.frames
	}
	for _, b := range j.backlog {
		b.frames, b.sums = nil, nil // its receipts hold on to it until they are settled
	}
	j.backlog = nil
}

// takeBatch returns what has collected, or nil.
func (j *Journal) takeBatch() *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.batch
	if len(b.receipts) == 0 {
		return nil
	}
	j.batch = newBatch(len(b.receipts))
	return b
}

// giveUp tells those who wait for the newest batch, if there is one, that it could
// not be written. It stays in the backlog, of which the oldest goes where it is too
// much.
func (j *Journal) giveUp(fresh *batch, err error) {
	if fresh != nil {
		fresh.err = err
		close(fresh.written)
	}
	size := 0
	for _, b := range j.backlog {
		size += len(b.frames)
	}
	for len(j.backlog) > 1 && size > maxBacklog {
		gone := j.backlog[0]
		j.backlog = j.backlog[1:]
		size -= len(gone.frames)
		j.mu.Lock()
		j.lost += int64(len(gone.receipts))
		lost := j.lost
		j.mu.Unlock()
		j.log.Error("usage is lost: it could not be written for too long", "records", len(gone.receipts), "lostSinceStart", lost)
	}
}

// write appends batches to the active segment and syncs it.
func (j *Journal) write(batches []*batch) error {
	if j.file == nil {
		if err := j.startSegment(); err != nil {
			return err
		}
	}
	size := j.size
	err := func() error {
		for _, b := range batches {
			n, err := j.file.Write(b.frames)
			size += int64(n)
			if err != nil {
				return err
			}
		}
		return j.file.Sync()
	}()
	if err != nil {
		// What the disk has of it nobody knows: it is cut off, or else read
		// again from the next segment, under the same numbers.
		err = errors.Join(err, j.file.Truncate(j.size))
		j.endSegment(batches[len(batches)-1].last)
		return fmt.Errorf("usage: %w", err)
	}
	j.size = size
	for _, b := range batches {
		j.sums.merge(b.sums)
	}
	if j.size >= j.opts.SegmentBytes {
		j.endSegment(batches[len(batches)-1].last)
	}
	return nil
}

// startSegment begins a segment.
func (j *Journal) startSegment() error {
	n := j.number + 1
	path := segmentPath(j.dir, n)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	_, err = f.WriteString(segmentHeader)
	if err = errors.Join(err, f.Sync(), fsync.Dir(j.dir)); err != nil {
		return fmt.Errorf("usage: %w", errors.Join(err, f.Close(), os.Remove(path)))
	}
	j.file, j.size, j.number, j.sums = f, int64(len(segmentHeader)), n, segmentSums{}
	return nil
}

// endSegment ends the active segment, whose records are up to last.
func (j *Journal) endSegment(last uint64) {
	if err := j.file.Close(); err != nil {
		j.log.Error("a segment of the usage journal was not closed", "error", err)
	}
	j.file = nil
	j.mu.Lock()
	j.segments = append(j.segments, segment{segmentPath(j.dir, j.number), last, j.sums})
	j.mu.Unlock()
}
