package location

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/logstore"
)

const (
	spoolDir = "log-spool-1" // the digit is the version of the files' format

	// spoolSegment is the size at which a file of the spool is closed, in bytes: one
	// is handed on in one call. spoolMax bounds all of them.
	spoolSegment = 1 << 20
	spoolMax     = 256 << 20
	// spoolEvery is how often what was written is handed on.
	spoolEvery = 500 * time.Millisecond
	// maxSpooled bounds a line of the spool, in bytes: an event has at most
	// logstore.MaxMessage, which JSON may make six times as long.
	maxSpooled = 8 << 20
)

// spool keeps log events on the disk until the core has them. It is bounded: when
// it is full, the oldest go, and a line says how many. An event may come to the
// core twice, where the location was killed in between.
type spool struct {
	dir string
	log *slog.Logger
	max int64

	mu      sync.Mutex
	file    *os.File // being written; nil: none
	name    uint64   // of file
	written int64    // to file
	closed  []segment
	dropped int // events that were dropped and not told of yet
	from    logBatch
}

type segment struct {
	name uint64
	size int64
}

func openSpool(dir string, log *slog.Logger) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &spool{dir: dir, log: log, max: spoolMax}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), ".json"), 10, 64)
		if err != nil {
			continue // not ours
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		s.closed = append(s.closed, segment{name, info.Size()})
		s.name = max(s.name, name)
	}
	slices.SortFunc(s.closed, func(a, b segment) int { return int(int64(a.name) - int64(b.name)) })
	return s, nil
}

func (s *spool) path(name uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%020d.json", name))
}

// Append implements worker.Logs. What it has written survives a kill.
func (n *Node) Append(group, stream string, events []logstore.Event) error {
	return n.spool.add(logBatch{Group: group, Stream: stream, Events: events})
}

func (s *spool) add(b logBatch) error {
	line, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if len(line) > maxSpooled && len(b.Events) > 1 { // halves are shorter
		half := len(b.Events) / 2
		first, second := b, b
		first.Events, second.Events = b.Events[:half], b.Events[half:]
		return errors.Join(s.add(first), s.add(second))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		s.name++
		if s.file, err = os.OpenFile(s.path(s.name), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600); err != nil {
			return fmt.Errorf("spool logs: %w", err)
		}
		s.written = 0
	}
	n, err := s.file.Write(append(line, '\n'))
	s.written += int64(n)
	if err != nil {
		return fmt.Errorf("spool logs: %w", err)
	}
	if s.written >= spoolSegment {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	return s.bound()
}

// rotate closes the file that is written, with s.mu held.
func (s *spool) rotate() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.closed = append(s.closed, segment{s.name, s.written})
	s.file = nil
	return err
}

// bound drops the oldest files where there is too much, with s.mu held.
func (s *spool) bound() error {
	size := s.written
	for _, c := range s.closed {
		size += c.size
	}
	for size > s.max && len(s.closed) > 0 {
		oldest := s.closed[0]
		batches, err := s.read(oldest)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(s.path(oldest.name))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("spool logs: %w", err)
		}
		for _, b := range batches {
			s.dropped += len(b.Events)
			s.from = logBatch{Group: b.Group, Stream: b.Stream}
		}
		s.closed = s.closed[1:]
		size -= oldest.size
		s.log.Warn("log events of functions were dropped: the core does not take them", "events", s.dropped)
	}
	return nil
}

// Size returns how many bytes are to be handed on.
func (s *spool) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := int64(0)
	if s.file != nil {
		size = s.written
	}
	for _, c := range s.closed {
		size += c.size
	}
	return size
}

// next returns the oldest file with something in it.
func (s *spool) next() (segment, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.closed) == 0 {
		if err := s.rotate(); err != nil {
			return segment{}, false, err
		}
	}
	if len(s.closed) == 0 {
		return segment{}, false, nil
	}
	return s.closed[0], true, nil
}

// read returns the events of a file. A line that a crash cut short is left out.
func (s *spool) read(g segment) ([]logBatch, error) {
	f, err := os.Open(s.path(g.name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	var batches []logBatch
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return batches, nil
		}
		if err != nil {
			return nil, err
		}
		var b logBatch
		if err := json.Unmarshal(bytes.TrimSpace(line), &b); err != nil {
			s.log.Warn("a line of the spool of logs is damaged", "file", g.name)
			continue
		}
		batches = append(batches, b)
	}
}

// done removes a file that was handed on.
func (s *spool) done(g segment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.closed) > 0 && s.closed[0].name == g.name { // not dropped meanwhile
		s.closed = s.closed[1:]
	}
	if err := os.Remove(s.path(g.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// run hands events on until ctx ends, and once more then.
func (s *spool) run(ctx context.Context, send func(context.Context, []logBatch) error) {
	for ctx.Err() == nil {
		if err := s.flush(ctx, send); err != nil && ctx.Err() == nil {
			s.log.Debug("log events stay in the spool", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(spoolEvery):
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := s.flush(last, send); err != nil {
		s.log.Debug("log events stay in the spool", "error", err)
	}
}

// flush hands on all that there is.
func (s *spool) flush(ctx context.Context, send func(context.Context, []logBatch) error) error {
	for {
		g, ok, err := s.next()
		if !ok || err != nil {
			return err
		}
		batches, err := s.read(g)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if b, ok := s.lost(); ok {
			batches = append([]logBatch{b}, batches...)
		}
		if len(batches) > 0 {
			if err := send(ctx, batches); err != nil {
				return err
			}
		}
		if err := s.done(g); err != nil {
			return err
		}
	}
}

// lost returns a line that tells how many events were dropped, once.
func (s *spool) lost() (logBatch, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped == 0 {
		return logBatch{}, false
	}
	b := s.from
	b.Events = []logstore.Event{{Time: time.Now(), Message: fmt.Sprintf("[Lapwing: %d log events of this edge location were dropped, the first of them here]", s.dropped)}}
	s.dropped = 0
	return b, true
}

// Close leaves what was not handed on to the next start.
func (s *spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rotate()
}

// sendLogs hands log events to the core. Those that it refuses are dropped.
func (n *Node) sendLogs(ctx context.Context, batches []logBatch) error {
	err := n.call(ctx, pathLogs, batches, new(struct{}))
	if refusedForGood(err) {
		n.log.Error("the core refuses log events; they are dropped", "error", err)
		return nil
	}
	return err
}

// refusedForGood tells whether the core will not take what was handed to it the next
// time either.
func refusedForGood(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.status >= http.StatusBadRequest && r.status < http.StatusInternalServerError && r.status != http.StatusForbidden
}
