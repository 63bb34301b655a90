// Package snapshot keeps snapshots of initialised sandboxes on the disk of this
// host: what package sandbox writes, for package worker to start further
// environments from. It is a cache: whatever is in it can be made again, and
// whatever is doubtful is removed.
//
// A snapshot is a directory with four files: the state and the memory of the
// sandbox, notes of whoever made it, and a manifest with their sizes and SHA-256
// digests. It is written under a temporary name, synced and renamed, so it is
// there whole or not at all; what a crash left is swept by Open. Its name is the
// content address of all that it depends on (Store.ID), so that any change makes
// another snapshot; what all snapshots depend on, such as the build of Lapwing, is
// Options.Base, and those of another base go when the store is opened.
//
// The digests are verified before the first use after a start, in the background:
// until then Get answers ErrNotReady. They are verified again if a file has been
// written since. (What a disk loses after that, without telling, is found only by
// the next start: checking it at each use would cost more than what snapshots
// save.) A damaged one is removed.
//
// Beside the snapshots is a file of those that cannot be made (Store.Refuse).
//
// With a key the files are encrypted (seal.go). Sandboxes map the memory, so a
// sealed snapshot is decrypted into memory that nobody can write, and kept there
// while it is used and as long as Options.MaxHeld lets it.
package snapshot

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrNone reports that there is no such snapshot, or none any more.
	ErrNone = errors.New("snapshot: there is none")
	// ErrNotReady reports a snapshot that is verified first, and decrypted, which
	// goes on in the background.
	ErrNotReady = errors.New("snapshot: it is being verified")
	// ErrNoRoom reports that the disk, or the part of it that is for snapshots,
	// has no room for another.
	ErrNoRoom = errors.New("snapshot: no room on the disk")
)

const (
	// format is the version of the manifest and of what it describes.
	format = 1
	// KeySize is the size of Options.Key in bytes.
	KeySize = 32
	// DefaultTTL is the age at which snapshots are given up: the credentials that
	// their Init saw, and what else it read, are to be fresh within reason.
	DefaultTTL = 6 * time.Hour
	// MaxTTL is the longest that it may be.
	MaxTTL = 24 * time.Hour
	// defaultMaxBytes bounds the disk that snapshots use by default; a tenth of
	// the disk does, too.
	defaultMaxBytes = 10 << 30
	// defaultMaxHeld bounds decrypted snapshots in memory.
	defaultMaxHeld = 1 << 30
	// reserve is what the disk must have left beside a new snapshot, for everybody
	// else.
	reserve = 512 << 20
	// noteUses is how often the use of a snapshot is noted on the disk at most.
	noteUses = time.Minute

	tempPrefix = "tmp-"
)

// Names in the directory of a snapshot.
const (
	manifestFile = "manifest.json"
	stateFile    = "state"
	memoryFile   = "memory"
	notesFile    = "notes"
	usesFile     = "uses.json"
)

// Options configures a Store. Dir and Logger are required.
type Options struct {
	Dir    string
	Logger *slog.Logger

	// Base says what all snapshots depend on. Those of another base are removed.
	Base string
	// MaxBytes bounds the disk that snapshots use; 0 means 10 GB, or a tenth of
	// the disk if that is less.
	MaxBytes int64
	// MaxHeld bounds the decrypted snapshots in memory, in bytes; 0 means 1 GiB.
	MaxHeld int64
	// Key encrypts snapshots; nil: they are not encrypted. It has KeySize bytes.
	Key []byte
	// TTL is the age at which a snapshot is given up; 0 means DefaultTTL.
	TTL time.Duration
}

// Manifest describes a snapshot on the disk.
type Manifest struct {
	Format  int             `json:"format"`
	ID      string          `json:"id"`
	Base    string          `json:"base"`
	Created time.Time       `json:"created"`
	About   json.RawMessage `json:"about"` // what it was made from, for humans
	Sealed  bool            `json:"sealed"`
	Files   map[string]File `json:"files"`
}

// File is one file of a snapshot.
type File struct {
	Size   int64  `json:"size"`   // as it is used: decrypted
	Digest string `json:"sha256"` // as it is on the disk; see digest
}

// Info tells about a snapshot.
type Info struct {
	Created time.Time
	Size    int64 // on the disk, in bytes
	Uses    int64 // sandboxes that were made from it
}

// Store keeps snapshots in one directory. It is safe for concurrent use.
type Store struct {
	opts Options
	log  *slog.Logger

	// preparing lets one snapshot at a time be verified.
	preparing sync.Mutex
	jobs      sync.WaitGroup
	stop      chan struct{} // closed by Close

	refusals *refusals

	mu      sync.Mutex // guards what follows and the entries
	entries map[string]*entry
	used    int64 // bytes on the disk, with removed ones that are still in use
	held    int64 // bytes of decrypted snapshots
	closed  bool
}

// entry is one snapshot.
type entry struct {
	dir      string
	manifest Manifest
	size     int64 // on the disk

	ready     *loaded       // nil: to be verified first
	preparing chan struct{} // closed when it is verified or removed; nil: nobody does
	refs      int
	gone      bool // removed: what it uses is free when refs are 0

	uses  uses
	noted time.Time
}

// uses is what is known of the use of a snapshot.
type uses struct {
	Uses int64     `json:"uses"`
	Last time.Time `json:"last"`
}

// Open opens the snapshots in a directory, which it makes if it is missing, and
// removes what is unfinished, unreadable, expired or of another base.
func Open(o Options) (*Store, error) {
	if o.Key != nil && len(o.Key) != KeySize {
		return nil, fmt.Errorf("snapshot: a key of %d bytes, want %d", len(o.Key), KeySize)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.MaxHeld == 0 {
		o.MaxHeld = defaultMaxHeld
	}
	if o.MaxBytes == 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(o.Dir, &st); err != nil {
			return nil, fmt.Errorf("snapshot: %s: %w", o.Dir, err)
		}
		o.MaxBytes = min(defaultMaxBytes, int64(st.Blocks)*st.Bsize/10)
	}
	s := &Store{opts: o, log: o.Logger, stop: make(chan struct{}), entries: make(map[string]*entry), refusals: openRefusals(o.Dir, o.Logger)}
	if err := s.scan(); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return s, nil
}

// scan reads the directory.
func (s *Store) scan() error {
	list, err := os.ReadDir(s.opts.Dir)
	if err != nil {
		return err
	}
	for _, item := range list {
		if item.Name() == refusalsFile {
			continue
		}
		dir := filepath.Join(s.opts.Dir, item.Name())
		e, err := s.read(dir)
		if strings.HasPrefix(item.Name(), tempPrefix) {
			err = errors.New("unfinished")
		}
		if err != nil {
			s.log.Debug("a snapshot is removed", "path", dir, "reason", err)
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		s.add(e)
	}
	s.evict(0)
	return nil
}

// read reads the snapshot in a directory; what is wrong with it is an error.
func (s *Store) read(dir string) (*entry, error) {
	b, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return nil, err
	}
	e := &entry{dir: dir}
	m := &e.manifest
	if err := json.Unmarshal(b, m); err != nil {
		return nil, err
	}
	switch {
	case m.Format != format:
		return nil, fmt.Errorf("format %d", m.Format)
	case m.Base != s.opts.Base:
		return nil, errors.New("another base")
	case m.Sealed != (s.opts.Key != nil):
		return nil, errors.New("written with a key, or without one")
	case s.expired(m):
		return nil, errors.New("expired")
	}
	for _, name := range contents {
		if _, there := m.Files[name]; !there {
			return nil, fmt.Errorf("no %s", name)
		}
	}
	if e.size, err = diskUsage(dir); err != nil {
		return nil, err
	}
	e.uses.Last = m.Created
	if b, err := os.ReadFile(filepath.Join(dir, usesFile)); err == nil {
		_ = json.Unmarshal(b, &e.uses) // it is counted anew
	}
	return e, nil
}

// diskUsage returns the bytes on the disk of the files in a directory.
func diskUsage(dir string) (n int64, err error) {
	for _, name := range append([]string{manifestFile}, contents...) {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &st); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		n += st.Blocks * 512
	}
	return n, nil
}

func (s *Store) expired(m *Manifest) bool { return time.Since(m.Created) >= s.opts.TTL }

// ID returns the name of the snapshot that depends on these inputs, beside the
// base. With a key nobody else can tell the inputs from the name.
func (s *Store) ID(inputs any) string {
	b, err := json.Marshal(inputs)
	if err != nil {
		panic(err) // strings and numbers
	}
	h := sha256.New()
	if s.opts.Key != nil {
		h = hmac.New(sha256.New, s.opts.Key)
	}
	fmt.Fprintf(h, "lapwing snapshot %d\n%d %s\n", format, len(s.opts.Base), s.opts.Base)
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil))
}

// add makes an entry the one of its id, unless there is a newer one. The caller
// holds mu, or is alone.
func (s *Store) add(e *entry) {
	s.used += e.size
	other := s.entries[e.manifest.ID]
	if other != nil && other.manifest.Created.After(e.manifest.Created) {
		s.drop(e)
		return
	}
	s.entries[e.manifest.ID] = e
	if other != nil {
		s.drop(other)
	}
}

// drop removes a snapshot from the disk. Who uses it goes on: until then its room
// is not free.
func (s *Store) drop(e *entry) {
	if e.gone {
		return
	}
	e.gone = true
	if s.entries[e.manifest.ID] == e {
		delete(s.entries, e.manifest.ID)
	}
	// Renamed first, so that one which is cut short is swept.
	away := filepath.Join(s.opts.Dir, tempPrefix+filepath.Base(e.dir))
	if err := errors.Join(os.Rename(e.dir, away), os.RemoveAll(away)); err != nil {
		s.log.Error("a snapshot was not removed", "path", e.dir, "error", err)
	}
	if e.refs == 0 {
		s.free(e)
	}
}

// free ends what a removed entry used.
func (s *Store) free(e *entry) {
	s.used -= e.size
	s.unload(e)
}

// evict removes what was not used for longest until there is room for so many
// bytes more, and tells whether there is.
func (s *Store) evict(need int64) bool {
	for s.used+need > s.opts.MaxBytes {
		var oldest *entry
		for _, e := range s.entries {
			if e.refs == 0 && (oldest == nil || e.uses.Last.Before(oldest.uses.Last)) {
				oldest = e
			}
		}
		if oldest == nil {
			return false
		}
		s.drop(oldest)
	}
	return true
}

// Info tells about a snapshot, or that there is none.
func (s *Store) Info(id string) (Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if e == nil || s.expired(&e.manifest) {
		return Info{}, false
	}
	return Info{Created: e.manifest.Created, Size: e.size, Uses: e.uses.Uses}, true
}

// Remove removes a snapshot, if it is there, or forgets why there is none.
func (s *Store) Remove(id string) {
	s.refusals.remove(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[id]; e != nil {
		s.drop(e)
	}
}

// TTL returns the age at which snapshots are given up.
func (s *Store) TTL() time.Duration { return s.opts.TTL }

// Close waits for what goes on in the background. Snapshots in use stay usable.
func (s *Store) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	close(s.stop)
	s.jobs.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, e := range s.entries {
		if e.uses.Last.After(e.noted) && e.uses.Uses > 0 {
			errs = append(errs, s.note(e))
		}
		if e.refs == 0 {
			s.unload(e)
		}
	}
	return errors.Join(errs...)
}
