package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

const (
	epochsFormat = 1
	// maxPaths is how many paths invalidations may name before objects are looked
	// through for those that they hit, so that the paths can be forgotten.
	maxPaths = 10_000
	// maxIDs is how many invalidations are known by their IDs.
	maxIDs = 10_000
)

// epochs are the invalidations. Each has a number, and an object holds the number
// of the latest one at the time that its origin was asked. With a tier on disk they
// are in a file of it, written before an invalidation is done.
type epochs struct {
	file string // empty: none
	now  atomic.Uint64
	// swept is the number up to which invalidations may be forgotten: what was
	// asked for before and comes later is not stored.
	swept atomic.Uint64

	writing sync.Mutex // held while the file is written
	mu      sync.RWMutex
	state   epochState
}

// epochState is what the file holds.
type epochState struct {
	Format int
	Now    uint64
	// IDs are those of invalidations, which are told again at each start.
	IDs map[string]uint64
	// Distributions hold the number of the latest invalidation of each path.
	Distributions map[string]*paths
}

// paths are the invalidations of a distribution.
type paths struct {
	Exact, Prefix map[string]uint64

	lengths []int // of the prefixes, ascending
}

// open reads the file of a directory. Where it is not what was written, or not
// there, nothing is known of the objects beside it: fresh tells that they must go.
func (e *epochs) open(dir string, log *slog.Logger) (fresh bool, err error) {
	e.state = epochState{Format: epochsFormat, IDs: map[string]uint64{}, Distributions: map[string]*paths{}}
	if dir == "" {
		return false, nil
	}
	e.file = filepath.Join(dir, "invalidations.json")
	b, err := os.ReadFile(e.file)
	if err == nil {
		var read epochState
		if read, err = decodeEpochs(b); err == nil && read.Format > epochsFormat {
			return false, fmt.Errorf("%s is of format %d, which a later version has written", e.file, read.Format)
		}
		if err == nil {
			e.state = read
			for _, d := range e.state.Distributions {
				d.index()
			}
			e.now.Store(read.Now)
			return false, nil
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		log.Error("edge cache: the invalidations cannot be read; the cache begins empty", "error", err)
	}
	return true, e.write()
}

// encodeEpochs returns what the file holds: JSON in one line, and its CRC-32C.
func encodeEpochs(s *epochState) ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(b, "\n%08x\n", crc32.Checksum(b, castagnoli)), nil
}

func decodeEpochs(b []byte) (s epochState, err error) {
	line, sum, _ := bytes.Cut(b, []byte("\n"))
	if string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(line, castagnoli)) {
		return s, damaged("checksum")
	}
	return s, json.Unmarshal(line, &s)
}

// write writes the file.
func (e *epochs) write() error {
	if e.file == "" {
		return nil
	}
	e.writing.Lock()
	defer e.writing.Unlock()
	e.mu.RLock()
	b, err := encodeEpochs(&e.state)
	e.mu.RUnlock()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(e.file), "invalidations-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), e.file)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(e.file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close()) // the name is durable, too
}

// Invalidate takes the objects of an invalidation out of the cache, also those
// that are on their way. One that is told again, by its ID, does nothing. Where it
// fails, it holds until the next start only.
func (s *Store) Invalidate(inv distribution.Invalidation) error {
	e := &s.epochs
	if !e.add(inv) {
		return nil
	}
	if err := e.write(); err != nil {
		return fmt.Errorf("cache: write invalidation %s: %w", inv.ID, err)
	}
	s.sweep()
	return nil
}

// add takes an invalidation in, unless it is known.
func (e *epochs) add(inv distribution.Invalidation) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.state.IDs[inv.ID]; known {
		return false
	}
	e.state.Now++
	n := e.state.Now
	e.state.IDs[inv.ID] = n
	if len(e.state.IDs) > maxIDs+maxIDs/10 {
		for id, at := range e.state.IDs {
			if at+maxIDs <= n {
				delete(e.state.IDs, id)
			}
		}
	}
	d := e.state.Distributions[inv.Distribution]
	if d == nil {
		d = &paths{Exact: map[string]uint64{}, Prefix: map[string]uint64{}}
		e.state.Distributions[inv.Distribution] = d
	}
	for _, p := range inv.Paths {
		if p, wild := strings.CutSuffix(p, "*"); wild {
			d.Prefix[p] = n
		} else {
			d.Exact[p] = n
		}
	}
	d.index()
	e.now.Store(n)
	return true
}

// valid tells whether no invalidation has hit an object since its origin was asked.
func (e *epochs) valid(o *Object) bool {
	now := e.now.Load()
	if o.Head.Epoch == now || o.checked.Load() == now {
		return true
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if o.Head.Epoch > now || e.state.Distributions[o.Head.Distribution].since(o.Head.Path) > o.Head.Epoch {
		return false
	}
	o.checked.Store(now)
	return true
}

// index makes what is found out of what is kept.
func (p *paths) index() {
	p.lengths = p.lengths[:0]
	for prefix := range p.Prefix {
		if i, found := slices.BinarySearch(p.lengths, len(prefix)); !found {
			p.lengths = slices.Insert(p.lengths, i, len(prefix))
		}
	}
}

// since returns the latest invalidation of a path, 0 if there is none.
func (p *paths) since(path string) uint64 {
	if p == nil {
		return 0
	}
	n := p.Exact[path]
	for _, l := range p.lengths {
		if l > len(path) {
			break
		}
		n = max(n, p.Prefix[path[:l]])
	}
	return n
}

// count returns how many paths are kept.
func (e *epochs) count() (n int) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, d := range e.state.Distributions {
		n += len(d.Exact) + len(d.Prefix)
	}
	return n
}

// forget gives up the paths of invalidations up to a number, which no object is
// from before of.
func (e *epochs) forget(upTo uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := func(_ string, n uint64) bool { return n <= upTo }
	for id, d := range e.state.Distributions {
		d.deleteFunc(old)
		if len(d.Exact)+len(d.Prefix) == 0 {
			delete(e.state.Distributions, id)
		}
	}
}

func (p *paths) deleteFunc(del func(string, uint64) bool) {
	for _, m := range []map[string]uint64{p.Exact, p.Prefix} {
		for path, n := range m {
			if del(path, n) {
				delete(m, path)
			}
		}
	}
	p.index()
}

// sweep looks through the objects in the background, where there are many paths,
// and takes out those that were invalidated.
func (s *Store) sweep() {
	if s.epochs.count() <= maxPaths || !s.sweeping.CompareAndSwap(false, true) {
		return
	}
	s.work.Go(func() {
		defer s.sweeping.Store(false)
		upTo := s.epochs.now.Load()
		s.epochs.swept.Store(upTo)
		for i := range s.shards {
			for _, k := range s.keys(i) {
				if s.ctx.Err() != nil {
					return
				}
				if o, ok := s.peek(k); ok {
					if !s.epochs.valid(o) {
						s.Remove(k)
					}
					o.Release()
				}
			}
		}
		if s.disk != nil && s.disk.loading.Load() {
			return // not all were looked at
		}
		s.epochs.forget(upTo)
		if err := s.epochs.write(); err != nil {
			s.log.Error("edge cache: cannot write the invalidations", "error", err)
		}
	})
}
