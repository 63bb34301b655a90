package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/fsync"
)

// contents are the files that a snapshot consists of.
var contents = []string{stateFile, memoryFile, notesFile}

// Draft is a snapshot that is being made. Its files are empty and open for
// writing; with a key they are in memory.
type Draft struct {
	State, Memory *os.File

	store *Store
	id    string
	dir   string
	about json.RawMessage
}

// Create begins a snapshot of an id. about says what it is made from, for
// humans; size is how large it may become at most. It fails with ErrNoRoom where
// the disk is too full for that.
func (s *Store) Create(id string, about any, size int64) (_ *Draft, err error) {
	b, err := json.Marshal(about)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if err := s.fits(size); err != nil {
		return nil, err
	}
	d := &Draft{store: s, id: id, about: b, dir: filepath.Join(s.opts.Dir, tempPrefix+rand.Text())}
	defer func() {
		if err != nil {
			d.Discard()
			err = fmt.Errorf("snapshot: %w", err)
		}
	}()
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return nil, err
	}
	open := func(name string) (*os.File, error) {
		if s.opts.Key != nil {
			return memoryBacked(name)
		}
		return os.OpenFile(filepath.Join(d.dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400)
	}
	if d.State, err = open(stateFile); err != nil {
		return nil, err
	}
	d.Memory, err = open(memoryFile)
	return d, err
}

// fits tells whether the disk has room for so many bytes and what others need.
func (s *Store) fits(size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.opts.Dir, &st); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	// A small disk keeps a part of itself for others, not all.
	keep := min(reserve, int64(st.Blocks)*st.Bsize/10)
	if free := int64(st.Bavail) * st.Bsize; free < size+keep {
		return fmt.Errorf("%w: it may need %d MB and %d MB are free", ErrNoRoom, size>>20, free>>20)
	}
	return nil
}

// memoryBacked returns a file in memory, whose writing can be ended.
func memoryBacked(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate("lapwing-snapshot-"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// end forbids to write to a file in memory, for ever and everyone.
func end(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	return err
}

// Commit keeps the snapshot, with notes, in place of an earlier one of its id.
// Where that fails, nothing of it stays.
func (d *Draft) Commit(ctx context.Context, notes []byte) (err error) {
	defer func() {
		if err != nil {
			d.Discard()
			if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
				err = fmt.Errorf("%w: %w", ErrNoRoom, err)
			}
			err = fmt.Errorf("snapshot: %w", err)
		}
	}()
	s := d.store
	e := &entry{manifest: Manifest{
		Format: format, ID: d.id, Base: s.opts.Base, Created: time.Now().UTC(), About: d.about, Sealed: s.opts.Key != nil, Files: make(map[string]File),
	}}
	e.uses.Last = e.manifest.Created
	for name, f := range map[string]*os.File{stateFile: d.State, memoryFile: d.Memory} {
		if e.manifest.Files[name], err = d.finish(ctx, name, f); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if e.manifest.Files[notesFile], err = d.writeNotes(ctx, notes); err != nil {
		return fmt.Errorf("notes: %w", err)
	}
	b, err := json.MarshalIndent(e.manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(d.dir, manifestFile), b); err != nil {
		return err
	}
	if err := fsync.Dir(d.dir); err != nil {
		return err
	}
	if e.size, err = diskUsage(d.dir); err != nil {
		return err
	}
	if err := d.publish(e); err != nil {
		return err
	}
	d.closeFiles()
	s.refusals.remove(d.id)
	return fsync.Dir(s.opts.Dir)
}

// publish gives the snapshot its name. What was just written counts as verified.
func (d *Draft) publish(e *entry) error {
	s := d.store
	ready, err := s.load(d.dir, &e.manifest, d.State, d.Memory)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		ready.close()
		return errors.New("the store is closed")
	}
	if !s.evict(e.size) {
		ready.close()
		return fmt.Errorf("%w: snapshots may use %d MB, and what is there is in use", ErrNoRoom, s.opts.MaxBytes>>20)
	}
	e.dir = filepath.Join(s.opts.Dir, d.id[:32]+"-"+filepath.Base(d.dir)[len(tempPrefix):])
	if err := os.Rename(d.dir, e.dir); err != nil {
		ready.close()
		return err
	}
	if s.opts.Key != nil && !s.hold(ready.bytes) {
		ready.close() // it is decrypted when there is room
	} else {
		e.ready = ready
	}
	s.add(e)
	return nil
}

// finish makes a file lasting and returns its description.
func (d *Draft) finish(ctx context.Context, name string, f *os.File) (File, error) {
	st, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	out := f
	if d.store.opts.Key != nil {
		if err := end(f); err != nil {
			return File{}, err
		}
		if out, err = os.OpenFile(filepath.Join(d.dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400); err != nil {
			return File{}, err
		}
		defer out.Close()
		if err := seal(ctx, out, f, d.store.opts.Key, label(name, d.id)); err != nil {
			return File{}, err
		}
	}
	if err := out.Sync(); err != nil {
		return File{}, err
	}
	sum, err := digest(ctx, out)
	return File{Size: st.Size(), Digest: sum}, err
}

func (d *Draft) writeNotes(ctx context.Context, notes []byte) (File, error) {
	var f *os.File
	var err error
	if d.store.opts.Key != nil {
		f, err = memoryBacked(notesFile)
	} else {
		f, err = os.OpenFile(filepath.Join(d.dir, notesFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400)
	}
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	if _, err := f.Write(notes); err != nil {
		return File{}, err
	}
	return d.finish(ctx, notesFile, f)
}

func (d *Draft) closeFiles() {
	for _, f := range []*os.File{d.State, d.Memory} {
		if f != nil {
			_ = f.Close() // what was written is synced; or of no interest
		}
	}
}

// Discard gives the snapshot up. After Commit it does nothing.
func (d *Draft) Discard() {
	d.closeFiles()
	if err := os.RemoveAll(d.dir); err != nil {
		d.store.log.Error("an unfinished snapshot was not removed", "path", d.dir, "error", err)
	}
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
