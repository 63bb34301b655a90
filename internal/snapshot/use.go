package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxNotes bounds the notes of a snapshot, in bytes.
const maxNotes = 16 << 20

// Use is a snapshot in use. Its files are the user's own to read.
type Use struct {
	State, Memory *os.File
	Notes         []byte
	Created       time.Time
	// Stale tells that the snapshot is soon to be given up, and that it is time
	// for another.
	Stale bool

	release func()
}

// Release ends the use; once is enough. Sandboxes that were made from the
// snapshot use it for as long as they live.
func (u *Use) Release() { u.release() }

// loaded is what is open of a verified snapshot.
type loaded struct {
	state, memory *os.File
	notes         []byte
	bytes         int64      // in memory, where it was decrypted
	was           [3]stamp   // of the files on the disk, when they were verified
	from          []*os.File // the files on the disk
}

// stamp tells whether a file was written.
type stamp struct {
	size         int64
	mtime, ctime unix.Timespec
	links        bool
}

func stampOf(f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, err
	}
	return stamp{size: st.Size, mtime: st.Mtim, ctime: st.Ctim, links: st.Nlink > 0}, nil
}

func (l *loaded) close() {
	for _, f := range append([]*os.File{l.state, l.memory}, l.from...) {
		if f != nil {
			_ = f.Close() // read only
		}
	}
}

// intact tells whether the files on the disk are those that were verified.
func (l *loaded) intact() bool {
	for i, f := range l.from {
		if now, err := stampOf(f); err != nil || now != l.was[i] {
			return false
		}
	}
	return true
}

// Get returns a snapshot for use. It does not wait: ErrNone tells that there is
// none, ErrNotReady that it can be had later (Await).
func (s *Store) Get(id string) (*Use, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.open(id)
	if err != nil {
		return nil, err
	}
	e := s.entries[id]
	e.uses.Uses++
	e.uses.Last = time.Now()
	if e.uses.Last.Sub(e.noted) >= noteUses {
		if err := s.note(e); err != nil {
			s.log.Debug("the use of a snapshot was not noted", "error", err)
		}
	}
	return u, nil
}

// Ahead is like Get, for a sandbox that nobody has asked for yet: it does not count as
// made from the snapshot.
func (s *Store) Ahead(id string) (*Use, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open(id)
}

// open returns a snapshot for use. The caller holds mu.
func (s *Store) open(id string) (*Use, error) {
	e := s.entries[id]
	switch {
	case e == nil || s.closed:
		return nil, ErrNone
	case s.expired(&e.manifest):
		s.drop(e)
		return nil, ErrNone
	case e.ready != nil && !e.ready.intact():
		s.log.Warn("a snapshot on the disk was written by somebody else: it is verified again", "path", e.dir)
		s.unload(e)
	}
	if e.ready == nil {
		s.prepare(e)
		return nil, ErrNotReady
	}
	u := &Use{
		Notes: e.ready.notes, Created: e.manifest.Created, Stale: time.Since(e.manifest.Created) >= s.opts.TTL/4*3,
	}
	var err error
	if u.State, err = again(e.ready.state); err == nil {
		u.Memory, err = again(e.ready.memory)
	}
	if err != nil {
		if u.State != nil {
			u.State.Close()
		}
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	e.refs++
	u.release = sync.OnceFunc(func() {
		u.State.Close()
		u.Memory.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.refs--; e.refs == 0 && e.gone {
			s.free(e)
		}
	})
	return u, nil
}

// Await waits until a snapshot that is being verified can be had. It fails with
// ErrNone where there is none, or it turns out to be damaged.
func (s *Store) Await(ctx context.Context, id string) error {
	s.mu.Lock()
	e := s.entries[id]
	if e == nil || s.closed {
		s.mu.Unlock()
		return ErrNone
	}
	if e.ready != nil {
		s.mu.Unlock()
		return nil
	}
	s.prepare(e)
	done := e.preparing
	s.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.ready != nil:
		return nil
	case e.gone:
		return ErrNone
	}
	return ErrNotReady
}

// again opens an open file once more: with an offset of its own, to read.
func again(f *os.File) (*os.File, error) {
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}

// note writes the use of a snapshot to the disk. It need not last.
func (s *Store) note(e *entry) error {
	e.noted = e.uses.Last
	b, err := json.Marshal(e.uses)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.dir, usesFile), b, 0o600)
}

// prepare verifies a snapshot in the background, and decrypts it. The caller
// holds mu.
func (s *Store) prepare(e *entry) {
	if e.preparing != nil {
		return
	}
	e.preparing = make(chan struct{})
	s.jobs.Go(func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			select {
			case <-s.stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		s.preparing.Lock()
		ready, err := s.verify(ctx, e)
		s.preparing.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		close(e.preparing)
		e.preparing = nil
		switch {
		case ctx.Err() != nil || e.gone:
			if ready != nil {
				ready.close()
			}
		case err != nil:
			s.log.Warn("a snapshot is damaged: it is removed, and made again when it is wanted", "path", e.dir, "error", err)
			s.drop(e)
		case s.opts.Key != nil && !s.hold(ready.bytes):
			s.log.Debug("no memory for another decrypted snapshot: all of them are in use", "path", e.dir)
			ready.close()
		default:
			e.ready = ready
		}
	})
}

// verify opens a snapshot and compares it with its manifest.
func (s *Store) verify(ctx context.Context, e *entry) (_ *loaded, err error) {
	var files [3]*os.File
	closeAll := func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}
	var was [3]stamp
	for i, name := range contents {
		if files[i], err = os.Open(filepath.Join(e.dir, name)); err != nil {
			closeAll()
			return nil, err
		}
		was[i], err = stampOf(files[i])
		var sum string
		if err == nil {
			sum, err = digest(ctx, files[i])
		}
		want := e.manifest.Files[name]
		if err == nil && (sum != want.Digest || s.opts.Key == nil && was[i].size != want.Size) {
			err = fmt.Errorf("%s has the digest %s and not %s", name, sum, want.Digest)
		}
		if err != nil {
			closeAll()
			return nil, err
		}
	}
	if s.opts.Key == nil {
		return s.opened(files, was)
	}
	defer closeAll()
	var state, memory *os.File
	if state, err = s.decrypt(ctx, e, stateFile, files[0]); err == nil {
		defer state.Close()
		if memory, err = s.decrypt(ctx, e, memoryFile, files[1]); err == nil {
			defer memory.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return s.load(e.dir, &e.manifest, state, memory)
}

// decrypt returns the content of a sealed file, in memory.
func (s *Store) decrypt(ctx context.Context, e *entry, name string, f *os.File) (*os.File, error) {
	to, err := memoryBacked(name)
	if err != nil {
		return nil, err
	}
	err = unseal(ctx, to, io.NewSectionReader(f, 0, math.MaxInt64), e.manifest.Files[name].Size, s.opts.Key, label(name, e.manifest.ID))
	if err == nil {
		err = end(to)
	}
	if err != nil {
		to.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return to, nil
}

// load opens what was just verified or written in a directory. Where snapshots
// are sealed, state and memory are the decrypted files.
func (s *Store) load(dir string, m *Manifest, state, memory *os.File) (_ *loaded, err error) {
	var files [3]*os.File
	var was [3]stamp
	for i, name := range contents {
		if files[i], err = os.Open(filepath.Join(dir, name)); err == nil {
			was[i], err = stampOf(files[i])
		}
		if err != nil {
			break
		}
	}
	if err == nil && s.opts.Key == nil {
		return s.opened(files, was)
	}
	l := &loaded{from: files[:], was: was}
	if err == nil {
		l.state, err = again(state)
	}
	if err == nil {
		l.memory, err = again(memory)
	}
	if err == nil {
		l.notes, err = s.sealedNotes(m, files[2])
	}
	for _, f := range []*os.File{l.state, l.memory} {
		var st unix.Stat_t
		if err == nil {
			err = unix.Fstat(int(f.Fd()), &st)
		}
		l.bytes += st.Blocks * 512
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// opened makes a loaded of the files on the disk, which it owns.
func (s *Store) opened(files [3]*os.File, was [3]stamp) (*loaded, error) {
	l := &loaded{from: files[:], was: was}
	var err error
	if l.state, err = again(files[0]); err == nil {
		l.memory, err = again(files[1])
	}
	if err == nil {
		l.notes, err = io.ReadAll(io.NewSectionReader(files[2], 0, maxNotes))
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (s *Store) sealedNotes(m *Manifest, f *os.File) ([]byte, error) {
	size := m.Files[notesFile].Size
	if size < 0 || size > maxNotes {
		return nil, fmt.Errorf("notes of %d bytes", size)
	}
	to, err := memoryBacked(notesFile)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	if err := unseal(context.Background(), to, io.NewSectionReader(f, 0, math.MaxInt64), size, s.opts.Key, label(notesFile, m.ID)); err != nil {
		return nil, fmt.Errorf("notes: %w", err)
	}
	return io.ReadAll(io.NewSectionReader(to, 0, size))
}

// hold counts decrypted bytes, for which others are given up that are not in use,
// those first that were not used for longest. It tells whether they may stay.
func (s *Store) hold(n int64) bool {
	for s.held+n > s.opts.MaxHeld {
		var oldest *entry
		for _, e := range s.entries {
			if e.ready != nil && e.refs == 0 && (oldest == nil || e.uses.Last.Before(oldest.uses.Last)) {
				oldest = e
			}
		}
		if oldest == nil {
			return false
		}
		s.unload(oldest)
	}
	s.held += n
	return true
}

// unload closes what is open of a snapshot. Its users have files of their own.
func (s *Store) unload(e *entry) {
	if e.ready == nil {
		return
	}
	s.held -= e.ready.bytes
	e.ready.close()
	e.ready = nil
}
