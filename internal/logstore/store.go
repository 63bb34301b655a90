package logstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// Options of a Store. The zero value of a field means its default.
type Options struct {
	Logger *slog.Logger
	// Clock tells the time. Default time.Now.
	Clock func() time.Time
	// DiskBudget bounds the files of the store in bytes (default 4 GiB). When
	// it is exceeded, the oldest events of the group that uses the most space
	// are dropped first, so that a chatty function shortens its own history.
	DiskBudget int64
	// QueueBytes bounds what Append may hold in memory for all groups (default
	// 16 MiB); one group gets at most a quarter of it.
	QueueBytes int64
	// MaxStreams bounds the streams of all groups (default 100,000), each of
	// which takes about 300 bytes of memory. Beyond it history is dropped as
	// for DiskBudget, and the streams that Append made and that are empty then.
	MaxStreams int
	// SegmentBytes is the size of events after which a segment is sealed
	// (default 8 MiB). It and the queue of a group are the grain of what the
	// disk budget drops.
	SegmentBytes int64
}

const (
	// flushDelay is how long an appended event may be in memory only: kill -9
	// loses at most that.
	flushDelay = 200 * time.Millisecond
	// syncDelay is how long after its flush an appended event may be in the
	// kernel's page cache only: a power failure loses at most the sum of both.
	syncDelay = 800 * time.Millisecond
	// maintainEvery is the period of retention and sealing by age.
	maintainEvery = time.Minute
	// putBytes bounds the events of all Puts under way.
	putBytes = 32 << 20
)

// Store holds log groups. Its methods are safe for concurrent use.
type Store struct {
	dir    string
	opts   Options
	log    *slog.Logger
	lock   *os.File
	codecs *codecs
	puts   *semaphore.Weighted
	disk   atomic.Int64 // bytes of all segments
	queued atomic.Int64 // bytes of all queues
	nstr   atomic.Int64 // streams of all groups
	drops  atomic.Int64 // events dropped by full queues or failed writes

	mu     sync.RWMutex
	groups map[string]*group
	nextID int
	closed bool

	dirtyMu sync.Mutex
	dirty   map[*group]struct{} // have events to flush or to sync

	subs subscriptions
	room signal // a batch was written

	wake     chan struct{} // something is dirty
	full     chan struct{} // a queue is half full
	maintain chan struct{} // a log is full, or the budget is exceeded
	maintMu  sync.Mutex    // held by maintainOnce
	budgetMu sync.Mutex    // held by keepBudget
	ctx      context.Context
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// Open opens the store in dir, which is made where it is missing, and repairs
// what a crash left. One process at a time can have it open.
func Open(dir string, opts Options) (_ *Store, err error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	opts.DiskBudget = defaultTo(opts.DiskBudget, 4<<30)
	opts.QueueBytes = defaultTo(opts.QueueBytes, 16<<20)
	opts.SegmentBytes = defaultTo(opts.SegmentBytes, 8<<20)
	opts.MaxStreams = defaultTo(opts.MaxStreams, 100_000)
	s := &Store{
		dir:      dir,
		opts:     opts,
		log:      opts.Logger,
		codecs:   newCodecs(),
		puts:     semaphore.NewWeighted(putBytes),
		groups:   make(map[string]*group),
		dirty:    make(map[*group]struct{}),
		wake:     make(chan struct{}, 1),
		full:     make(chan struct{}, 1),
		maintain: make(chan struct{}, 1),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	if s.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		s.lock.Close()
		return nil, err
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.done.Go(s.flusher)
	s.done.Go(s.maintainer)
	return s, nil
}

func defaultTo[T int | int64](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("logstore: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("logstore: %s is in use by another process: %w", dir, err)
	}
	return f, nil
}

// load opens the groups.
func (s *Store) load() error {
	dirs, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		path := filepath.Join(s.dir, d.Name())
		if strings.HasPrefix(d.Name(), trashPrefix) {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("logstore: %w", err)
			}
			continue
		}
		var id int
		if _, err := fmt.Sscanf(d.Name(), "g%d", &id); err != nil || groupDir(id) != d.Name() {
			continue
		}
		s.nextID = max(s.nextID, id+1)
		g, err := loadGroup(s, path)
		if err != nil {
			return err
		}
		if g == nil { // made, but never completed
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("logstore: %w", err)
			}
			continue
		}
		s.groups[g.name] = g
	}
	return nil
}

// Close flushes and syncs everything and closes the store.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.done.Wait()
	s.subs.closeAll()
	var errs []error
	for _, g := range s.groups {
		errs = append(errs, g.close())
	}
	errs = append(errs, s.lock.Close())
	return errors.Join(errs...)
}

// Stats describes the store as a whole.
type Stats struct {
	DiskBytes     int64 // of all segments
	QueuedBytes   int64 // accepted by Append and not yet written
	DroppedEvents int64 // since open, by full queues and failed writes
	Groups        int
	Streams       int
}

// Stats returns the present state.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Stats{
		DiskBytes:     s.disk.Load(),
		QueuedBytes:   s.queued.Load(),
		DroppedEvents: s.drops.Load(),
		Groups:        len(s.groups),
		Streams:       int(s.nstr.Load()),
	}
}

func (s *Store) now() int64 { return s.opts.Clock().UnixMilli() }

// group returns an existing group.
func (s *Store) group(name string) (*group, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	g := s.groups[name]
	if g == nil {
		return nil, ErrGroupNotFound
	}
	return g, nil
}

// ensureGroup returns the group and makes it where it is missing, in memory:
// the flush of its first events writes it.
func (s *Store) ensureGroup(name string) (*group, error) {
	if g, err := s.group(name); err == nil || errors.Is(err, ErrClosed) {
		return g, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if g := s.groups[name]; g != nil {
		return g, nil
	}
	return s.addGroup(name, nil), nil
}

// addGroup makes a group in memory; s.mu is held.
func (s *Store) addGroup(name string, tags map[string]string) *group {
	g := newGroup(s, name, filepath.Join(s.dir, groupDir(s.nextID)))
	g.meta = groupMeta{Version: metaVersion, Name: name, Created: s.now(), Tags: maps.Clone(tags)}
	s.nextID++
	s.groups[name] = g
	return g
}

// CreateGroup makes a group. It returns when the group is durable.
func (s *Store) CreateGroup(name string, tags map[string]string) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	if s.groups[name] != nil {
		s.mu.Unlock()
		return ErrGroupExists
	}
	g := s.addGroup(name, tags)
	s.mu.Unlock()
	g.io.Lock()
	defer g.io.Unlock()
	if err := g.persist(); err != nil {
		s.mu.Lock()
		delete(s.groups, name)
		s.mu.Unlock()
		g.discard()
		return err
	}
	return nil
}

// DeleteGroup removes a group and its events. It returns when that is durable.
func (s *Store) DeleteGroup(name string) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	g := s.groups[name]
	if g == nil {
		s.mu.Unlock()
		return ErrGroupNotFound
	}
	delete(s.groups, name)
	s.mu.Unlock()
	return g.discard()
}

// Groups returns all groups, sorted by name.
func (s *Store) Groups() []Group {
	s.mu.RLock()
	list := slices.Collect(maps.Values(s.groups))
	s.mu.RUnlock()
	out := make([]Group, len(list))
	for i, g := range list {
		out[i] = g.describe()
	}
	slices.SortFunc(out, func(a, b Group) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Group returns one group.
func (s *Store) Group(name string) (Group, error) {
	g, err := s.group(name)
	if err != nil {
		return Group{}, err
	}
	return g.describe(), nil
}

// SetRetention sets for how many days events are kept, 0 for good. Older events
// are not readable from then on; their space is given back within a minute of
// a whole segment having expired.
func (s *Store) SetRetention(name string, days int) error {
	return s.changeMeta(name, func(m *groupMeta) { m.RetentionDays = days })
}

// Tag calls change with the group's tags, which it may modify, and stores them
// unless it returns an error.
func (s *Store) Tag(name string, change func(tags map[string]string) error) error {
	var failed error
	err := s.changeMeta(name, func(m *groupMeta) {
		tags := maps.Clone(m.Tags)
		if tags == nil {
			tags = make(map[string]string)
		}
		if failed = change(tags); failed == nil {
			m.Tags = tags
		}
	})
	return errors.Join(failed, err)
}

func (s *Store) changeMeta(name string, change func(*groupMeta)) error {
	g, err := s.group(name)
	if err != nil {
		return err
	}
	g.io.Lock()
	defer g.io.Unlock()
	g.mu.Lock()
	old := g.meta
	change(&g.meta)
	g.persisted = false
	g.mu.Unlock()
	if err := g.persist(); err != nil {
		g.mu.Lock()
		g.meta = old
		g.mu.Unlock()
		return err
	}
	s.kick(s.maintain)
	return nil
}

func (s *Store) kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// markDirty puts g on the flusher's list.
func (s *Store) markDirty(g *group) {
	s.dirtyMu.Lock()
	s.dirty[g] = struct{}{}
	s.dirtyMu.Unlock()
	s.kick(s.wake)
}

// flusher writes what was appended. It sleeps while nothing is dirty.
func (s *Store) flusher() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		}
		timer := time.NewTimer(flushDelay)
		select {
		case <-s.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.full:
			timer.Stop()
		}
		s.dirtyMu.Lock()
		list := slices.Collect(maps.Keys(s.dirty))
		clear(s.dirty)
		s.dirtyMu.Unlock()
		for _, g := range list {
			if g.flushAppended() {
				s.markDirty(g) // it wants a sync later
			}
			s.keepBudget()
		}
	}
}

// maintainer seals logs, applies retention and keeps to the disk budget.
func (s *Store) maintainer() {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		case <-s.maintain:
		}
		s.maintainOnce(s.ctx)
	}
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types of this package can all be marshalled
	}
	return b
}

// signal wakes all who wait for the next broadcast.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// next returns a channel that the next broadcast closes.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
