package usage

import (
	"fmt"
	"os"
	"time"

	"lapwing.dev/lapwing/internal/meter"
)

// Logs is the log store that has the REPORT lines.
type Logs interface {
	// Append adds lines to a stream. It need not wait for the disk.
	Append(group, stream string, lines []meter.Report) error
	// Sync returns when what was appended is durable.
	Sync() error
	// Dropped counts the lines that were appended and lost.
	Dropped() int64
	// Messages calls f with the messages of a stream in a span of time, both
	// ends included, until it returns false. A stream that is not there has
	// none.
	Messages(group, stream string, from, to time.Time, f func(message string) bool) error
}

// What is known of a REPORT line.
type lineState int

const (
	lineAwaited  lineState = iota // its environment is about to append it to the log
	lineLogged                    // it did
	lineDoubtful                  // it may be missing
)

// Receipt implements meter.Receipt.
type Receipt struct {
	j      *Journal
	batch  *batch
	seq    uint64
	report meter.Report
	state  lineState // guarded by j.mu
}

// Written implements meter.Receipt.
func (r *Receipt) Written() error {
	<-r.batch.written
	return r.batch.err
}

// Logged implements meter.Receipt.
func (r *Receipt) Logged(err error) {
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	r.state = lineLogged
	if err != nil {
		r.state = lineDoubtful
	}
}

// settler settles lines and folds segments until the journal is closed.
func (j *Journal) settler() {
	t := time.NewTicker(j.opts.SettleEvery)
	defer t.Stop()
	for {
		select {
		case <-j.stop:
			return
		case <-t.C:
		}
		err := j.settle()
		if err != nil && !j.lagging {
			j.log.Error("usage journal: REPORT lines cannot be made durable; trying on", "error", err)
		}
		j.lagging = err != nil
	}
}

// settle makes sure that lines are in the log and durable there, notes that in
// the journal, and folds the segments that need no longer be kept for it.
func (j *Journal) settle() error {
	j.settling.Lock()
	defer j.settling.Unlock()
	if err := j.settleLines(); err != nil {
		return err
	}
	return j.foldSettled()
}

func (j *Journal) settleLines() error {
	dropped := j.opts.Logs.Dropped()
	j.mu.Lock()
	all := append([]*Receipt{}, j.unsettled...)
	var doubtful []*Receipt
	for _, r := range all {
		if r.state == lineLogged && dropped != j.dropped {
			r.state = lineDoubtful
		}
		if r.state == lineDoubtful {
			doubtful = append(doubtful, r)
		}
	}
	j.mu.Unlock()
	if len(all) == 0 {
		j.dropped = dropped
		return nil
	}
	if err := j.restore(doubtful); err != nil {
		return err
	}
	// Only what was appended before the sync is durable after it.
	j.mu.Lock()
	n := 0
	for n < len(all) && all[n].state == lineLogged {
		n++
	}
	j.mu.Unlock()
	if err := j.opts.Logs.Sync(); err != nil {
		return err
	}
	j.dropped = dropped
	if j.opts.Logs.Dropped() != dropped || n == 0 {
		return nil // where perhaps some of these were dropped, the next round looks
	}
	j.mu.Lock()
	j.unsettled = j.unsettled[n:] // it still begins as all does: only this takes from it
	j.mu.Unlock()
	j.settled = all[n-1].seq
	j.note(j.settled)
	return nil
}

// note adds to the journal how far lines are settled. Where a crash loses it,
// they are looked after once more.
func (j *Journal) note(settled uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.collect(record{Settled: settled}, &Receipt{j: j})
}

// restore appends those lines to the log that it lacks.
func (j *Journal) restore(doubtful []*Receipt) error {
	type stream struct{ group, name string }
	byStream := map[stream][]*Receipt{}
	for _, r := range doubtful {
		s := stream{r.report.Group, r.report.Stream}
		byStream[s] = append(byStream[s], r)
	}
	for s, receipts := range byStream {
		missing := map[string]*Receipt{}
		from, to := receipts[0].report.Time, receipts[0].report.Time
		for _, r := range receipts {
			missing[r.report.Message] = r
			if r.report.Time.Before(from) {
				from = r.report.Time
			}
			if r.report.Time.After(to) {
				to = r.report.Time
			}
		}
		err := j.opts.Logs.Messages(s.group, s.name, from, to, func(message string) bool {
			delete(missing, message)
			return len(missing) > 0
		})
		if err != nil {
			return fmt.Errorf("usage: looking for REPORT lines in %s: %w", s.group, err)
		}
		var lines []meter.Report
		for _, r := range receipts {
			if missing[r.report.Message] == r {
				lines = append(lines, r.report)
			}
		}
		if len(lines) > 0 {
			if err := j.opts.Logs.Append(s.group, s.name, lines); err != nil {
				return fmt.Errorf("usage: giving REPORT lines back to %s: %w", s.group, err)
			}
		}
		j.mu.Lock()
		for _, r := range receipts {
			r.state = lineLogged
		}
		j.mu.Unlock()
	}
	return nil
}

// foldSettled folds the ended segments whose lines are settled.
func (j *Journal) foldSettled() error {
	for {
		j.mu.Lock()
		if len(j.segments) == 0 || j.segments[0].last > j.written || len(j.unsettled) > 0 && j.unsettled[0].seq <= j.segments[0].last {
			j.mu.Unlock()
			return nil
		}
		s := j.segments[0]
		j.mu.Unlock()
		if err := s.fold(j.dir); err != nil {
			return err
		}
		if err := os.Remove(s.path); err != nil {
			return fmt.Errorf("usage: %w", err)
		}
		j.mu.Lock()
		j.segments = j.segments[1:]
		j.mu.Unlock()
	}
}

// recover reads what an earlier process left.
func (j *Journal) recover() error {
	months, err := readMonths(j.dir)
	if err != nil {
		return err
	}
	for _, m := range months {
		j.nextSeq = max(j.nextSeq, m.Folded)
		j.settled = max(j.settled, m.Folded) // what is folded was settled
	}
	numbers, err := listSegments(j.dir)
	if err != nil {
		return err
	}
	var lines []*Receipt
	var last uint64
	for _, n := range numbers {
		j.number = n
		path := segmentPath(j.dir, n)
		end, size, err := readSegment(path, func(r record) {
			j.settled = max(j.settled, r.Settled)
			if r.Seq > last && r.Report != nil {
				lines = append(lines, &Receipt{j: j, seq: r.Seq, report: *r.Report, state: lineDoubtful})
			}
			last = max(last, r.Seq)
		})
		if err != nil {
			return err
		}
		if end < size {
			j.log.Warn("usage journal: torn end of a segment left out", "file", path, "bytes", size-end)
		}
		j.segments = append(j.segments, segment{path: path, last: last})
	}
	j.written = max(j.nextSeq, last)
	j.nextSeq = j.written + 1
	for _, r := range lines {
		if r.seq > j.settled {
			j.unsettled = append(j.unsettled, r)
		}
	}
	if err := j.settle(); err != nil {
		j.log.Error("usage journal: REPORT lines of before were not all given back yet; trying on", "error", err)
	}
	return nil
}
