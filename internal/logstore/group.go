package logstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/fsync"
)

const (
	metaName    = "group.json"
	metaVersion = 1
	trashPrefix = "trash-"
)

func groupDir(id int) string { return fmt.Sprintf("g%08d", id) }

// groupMeta is the file group.json.
type groupMeta struct {
	Version       int               `json:"version"`
	Name          string            `json:"name"`
	Created       int64             `json:"created"` // Unix ms
	RetentionDays int               `json:"retentionDays,omitempty"`
	Tags          map[string]string `json:"tags,omitempty"`
}

// stream is a log stream; the group's mutex guards it.
type stream struct {
	id      uint32
	name    string
	created int64 // Unix ms
	// auto is set where Append made the stream: it goes with its last event.
	auto bool
	stat streamStat // of what is written; bytes 0 means no event
}

// group is a log group: a directory with group.json, the catalogue of streams,
// and segments. Lock order: io, Store.mu, mu.
type group struct {
	store *Store
	name  string
	dir   string

	// io serialises everything that writes files of the group, and guards:
	io            sync.Mutex
	file          *os.File // of active
	catalogue     *os.File
	unsynced      time.Time // of the first write since the last sync, or zero
	toSync        []*batch  // written since the last sync
	lastComplaint time.Time // about a failed write

	mu         sync.RWMutex
	meta       groupMeta
	persisted  bool  // the directory is there and group.json is as meta
	gone       error // ErrClosed or ErrGroupNotFound once it takes no more
	streams    map[string]*stream
	byID       map[uint32]*stream
	nextStream uint32
	nextSeq    uint64
	newStreams []*stream // not yet in the catalogue
	pending    *batch
	writing    bool // the batch before pending is being written
	dropped    map[*stream]*dropCount
	segments   []*segment // ascending
	active     *segment   // the last one, if it is being written
	nextSeg    uint32
	stale      bool // segments went: streams want a recount
}

func newGroup(s *Store, name, dir string) *group {
	return &group{
		store:   s,
		name:    name,
		dir:     dir,
		streams: make(map[string]*stream),
		byID:    make(map[uint32]*stream),
		dropped: make(map[*stream]*dropCount),
		pending: new(batch),
		nextSeq: 1,
		nextSeg: 1,
	}
}

// loadGroup opens a group's directory and repairs what a crash left in it. It
// returns nil if the group was never completed.
func loadGroup(s *Store, dir string) (*group, error) {
	b, err := os.ReadFile(filepath.Join(dir, metaName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	var meta groupMeta
	if err := json.Unmarshal(b, &meta); err != nil {
		return nil, fmt.Errorf("logstore: %s: %w", filepath.Join(dir, metaName), err)
	}
	if meta.Version != metaVersion {
		return nil, fmt.Errorf("logstore: %s has version %d, this program knows %d", dir, meta.Version, metaVersion)
	}
	g := newGroup(s, meta.Name, dir)
	g.meta = meta
	g.persisted = true
	if err := g.loadCatalogue(); err != nil {
		return nil, err
	}
	if err := g.loadSegments(); err != nil {
		return nil, err
	}
	s.nstr.Add(int64(len(g.streams)))
	return g, nil
}

func (g *group) loadSegments() error {
	files, err := os.ReadDir(g.dir)
	if err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(g.dir, f.Name())
		if strings.HasSuffix(f.Name(), ".tmp") {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("logstore: %w", err)
			}
			continue
		}
		if s, ok := parseSegmentName(f.Name()); ok {
			s.path = path
			g.segments = append(g.segments, &s)
			g.nextSeg = max(g.nextSeg, s.to+1)
		}
	}
	all := slices.Clone(g.segments)
	g.segments = slices.DeleteFunc(g.segments, func(t *segment) bool {
		return slices.ContainsFunc(all, func(s *segment) bool { return s.covers(t) })
	})
	for _, s := range all {
		if !slices.Contains(g.segments, s) {
			if err := os.Remove(s.path); err != nil {
				return fmt.Errorf("logstore: %w", err)
			}
		}
	}
	slices.SortFunc(g.segments, func(a, b *segment) int { return int(a.from) - int(b.from) })
	var damaged []*segment
	for i, s := range g.segments {
		metas, err := g.loadSegment(s, i == len(g.segments)-1)
		if err != nil {
			return err
		}
		if metas == nil && s.sealed {
			damaged = append(damaged, s)
			continue
		}
		g.count(metas)
		g.nextSeq = max(g.nextSeq, s.seq+1)
		g.store.disk.Add(s.size)
	}
	g.segments = slices.DeleteFunc(g.segments, func(s *segment) bool { return slices.Contains(damaged, s) })
	return nil
}

// loadSegment fills in s from its file and returns its index, which is nil if a
// sealed segment turns out to be damaged. The last segment becomes the active
// one if it is a log.
func (g *group) loadSegment(s *segment, last bool) ([]blockMeta, error) {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	if s.sealed {
		defer f.Close()
		metas, err := readFooter(f)
		if err != nil {
			// A sealed segment is never torn: the disk lies. Keep the file for
			// someone to look at.
			aside := s.path + ".damaged"
			g.store.log.Error("log segment is damaged, its events are not readable", "file", aside, "error", err)
			return nil, os.Rename(s.path, aside)
		}
		for i := range metas {
			s.account(&metas[i])
			g.noteStreams(&metas[i])
		}
		s.size, err = f.Seek(0, 2)
		return metas, err
	}
	size, err := s.scanLog(f, g.store.log)
	if err == nil {
		err = g.repairLog(f, s, size)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("logstore: %s: %w", s.path, err)
	}
	for i := range s.blocks {
		g.noteStreams(&s.blocks[i])
	}
	if !last {
		return s.blocks, f.Close()
	}
	g.file, g.active = f, s
	return s.blocks, nil
}

// repairLog cuts the torn tail of a log and leaves f at its end.
func (g *group) repairLog(f *os.File, s *segment, size int64) error {
	end, err := f.Seek(0, 2)
	if err != nil {
		return err
	}
	if size < end {
		g.store.log.Warn("torn tail of a log cut off", "file", s.path, "bytes", end-size)
	}
	s.size = max(size, int64(len(fileHeader)))
	if size < end {
		if err := f.Truncate(size); err != nil {
			return err
		}
	}
	if size == 0 {
		if _, err := f.WriteAt([]byte(fileHeader), 0); err != nil {
			return err
		}
	}
	if size != end {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	_, err = f.Seek(s.size, 0)
	return err
}

// noteStreams keeps the ids that blocks use from being given out again: after a
// power failure a block may be there whose stream's record is not.
func (g *group) noteStreams(m *blockMeta) {
	for i := range m.streams {
		g.nextStream = max(g.nextStream, m.streams[i].id+1)
	}
}

// count adds blocks to the sums of their streams; mu is held.
func (g *group) count(metas []blockMeta) {
	for i := range metas {
		for _, stat := range metas[i].streams {
			if st := g.byID[stat.id]; st != nil {
				if st.stat.bytes == 0 {
					st.stat = stat
				} else {
					st.stat.add(stat)
				}
			}
		}
	}
}

// persist writes group.json if it is not as meta; io is held.
func (g *group) persist() error {
	g.mu.RLock()
	meta, persisted, gone := g.meta, g.persisted, g.gone
	g.mu.RUnlock()
	if gone != nil {
		return gone
	}
	if persisted {
		return nil
	}
	if err := os.Mkdir(g.dir, 0o700); err == nil {
		if err := fsync.Dir(g.store.dir); err != nil {
			return fmt.Errorf("logstore: %w", err)
		}
	} else if !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("logstore: %w", err)
	}
	if err := writeFileSync(filepath.Join(g.dir, metaName), marshal(meta)); err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	g.mu.Lock()
	g.persisted = true
	g.mu.Unlock()
	return nil
}

// describe returns what callers see of the group.
func (g *group) describe() Group {
	g.flushPending()
	g.mu.RLock()
	defer g.mu.RUnlock()
	d := Group{
		Name:          g.meta.Name,
		Created:       fromMillis(g.meta.Created),
		RetentionDays: g.meta.RetentionDays,
		Tags:          maps.Clone(g.meta.Tags),
	}
	for _, st := range g.streams {
		d.StoredBytes += st.stat.bytes
	}
	return d
}

// close flushes and syncs the group and closes its files.
func (g *group) close() error {
	g.io.Lock()
	defer g.io.Unlock()
	err := g.flush()
	for open := true; open; {
		g.mu.Lock()
		if err != nil || g.idle() {
			g.gone, open = ErrClosed, false
		}
		g.mu.Unlock()
		if open { // something was appended meanwhile
			err = g.flush()
		}
	}
	return errors.Join(err, g.sync(), g.closeFiles())
}

// idle reports whether everything was flushed; mu is held.
func (g *group) idle() bool {
	return !g.writing && len(g.pending.entries) == 0 && len(g.dropped) == 0 && len(g.newStreams) == 0
}

func (g *group) closeFiles() error {
	var errs []error
	for _, f := range []**os.File{&g.file, &g.catalogue} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

// discard removes the group from disk. It is no longer in Store.groups.
func (g *group) discard() error {
	g.io.Lock()
	defer g.io.Unlock()
	g.mu.Lock()
	g.gone = ErrGroupNotFound
	for _, s := range g.segments {
		g.store.disk.Add(-s.size)
	}
	g.store.nstr.Add(-int64(len(g.streams)))
	g.store.queued.Add(-g.pending.queued)
	g.pending.finish(ErrGroupNotFound)
	g.segments, g.active, g.pending = nil, nil, new(batch)
	g.mu.Unlock()
	if err := g.closeFiles(); err != nil {
		g.store.log.Warn("closing files of a deleted log group", "group", g.name, "error", err)
	}
	trash := filepath.Join(g.store.dir, trashPrefix+filepath.Base(g.dir))
	if err := os.Rename(g.dir, trash); errors.Is(err, os.ErrNotExist) {
		return nil // nothing was written yet
	} else if err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	if err := fsync.Dir(g.store.dir); err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	if err := os.RemoveAll(trash); err != nil {
		// The group is gone all the same; the next open tries again.
		g.store.log.Warn("removing a deleted log group", "dir", trash, "error", err)
	}
	return nil
}
