package cache

import (
	"errors"
	"os"
)

// spool is the file that a large body is written to while it arrives. One
// goroutine writes; what has been written may be read at the same time.
type spool struct {
	disk     *disk
	body     *bodyFile // its length and sums are those of a whole body only at the end
	sums     []uint32
	length   int64
	reserved int64 // of the tier
}

var errNoRoom = errors.New("cache: the body is larger than the tier")

// newSpool makes the file of a body, or returns nil where there is no room. The
// caller has a reference to it.
func (s *Store) newSpool() *spool {
	if s.disk == nil || s.disk.pausing() {
		return nil
	}
	f, err := s.disk.create()
	if err != nil {
		s.disk.failed("store an object", err)
		return nil
	}
	return &spool{disk: s.disk, body: openBody(f, 0, nil)}
}

// write appends p: whole blocks, or the end of the body.
func (s *spool) write(p []byte) error {
	if !s.disk.queue.reserve(int64(len(p))) {
		return errNoRoom
	}
	s.reserved += int64(len(p))
	if _, err := s.body.f.WriteAt(p, s.length); err != nil {
		s.disk.failed("store an object", err)
		return err
	}
	s.sums = appendSums(s.sums, p)
	s.length += int64(len(p))
	return nil
}

// finish makes the file that of an object, whose body is whole now. It has a
// reference for the caller, and gets its name in the background.
func (s *spool) finish(k Key, h *Head) (*Object, error) {
	end, err := tail(k, h, s.length, s.sums)
	if err == nil {
		_, err = s.body.f.WriteAt(end, s.length)
	}
	if err != nil {
		s.disk.failed("store an object", err)
		return nil, err
	}
	s.body.trust(s.length, s.sums)
	s.body.refs.Add(2) // the caller's, and that of the naming below
	o := &Object{Head: h, file: s.body}
	s.disk.later(k, func() {
		defer o.Release()
		if err := s.disk.install(s.body.f, k, o, s.length+int64(len(end)), s.reserved); err != nil {
			s.disk.failed("store an object", err)
			os.Remove(s.body.f.Name())
		}
	})
	return o, nil
}

// drop deletes the file; those who have a reference can still read it.
func (s *spool) drop() {
	os.Remove(s.body.f.Name())
	s.disk.queue.unreserve(s.reserved)
	s.reserved = 0
}
