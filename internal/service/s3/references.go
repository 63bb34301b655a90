package s3

import (
	"log/slog"
	"sync"

	"lapwing.dev/lapwing/internal/state"
)

// references counts who needs each blob: records, and requests that are
// reading or about to write a record. A blob that nobody needs is removed at
// once. The counts are in memory only; they are made from the records at start.
type references struct {
	log     *slog.Logger
	blobs   *state.Blobs
	stripes [256]stripe // by the digest's last byte
}

type stripe struct {
	mu     sync.Mutex
	counts map[state.Digest]int
}

func newReferences(blobs *state.Blobs, log *slog.Logger) *references {
	r := &references{log: log, blobs: blobs}
	for i := range r.stripes {
		r.stripes[i].counts = map[state.Digest]int{}
	}
	return r
}

func (r *references) stripe(d state.Digest) *stripe {
	hash := byte(0)
	if n := len(d); n >= 2 {
		hash = d[n-1]<<4 ^ d[n-2]
	}
	return &r.stripes[hash]
}

// commit makes staged content a blob that the caller holds.
func (r *references) commit(staged *state.Staged) error {
	s := r.stripe(staged.Digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	// The lock is held so that a release between the two steps cannot
	// remove the blob.
	if err := staged.Commit(); err != nil {
		return err
	}
	s.counts[staged.Digest]++
	return nil
}

// hold takes one reference more to each of the blobs. If one of them is needed
// by nobody, and so is gone or going, it takes none and returns false.
func (r *references) hold(ds []state.Digest) bool {
	for i, d := range ds {
		s := r.stripe(d)
		s.mu.Lock()
		known := s.counts[d] > 0
		if known {
			s.counts[d]++
		}
		s.mu.Unlock()
		if !known {
			r.release(ds[:i])
			return false
		}
	}
	return true
}

// load counts a record's references at start.
func (r *references) load(ds []state.Digest) {
	for _, d := range ds {
		r.stripe(d).counts[d]++
	}
}

// release gives up one reference to each of the blobs, and removes those that
// nobody needs any more. One that cannot be removed is logged, and found again
// at the next start.
func (r *references) release(ds []state.Digest) {
	for _, d := range ds {
		if err := r.releaseOne(d); err != nil {
			r.log.Error("s3: cannot remove the body of a deleted object", "blob", d, "err", err)
		}
	}
}

func (r *references) releaseOne(d state.Digest) error {
	s := r.stripe(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[d]--
	if s.counts[d] > 0 {
		return nil
	}
	delete(s.counts, d)
	return r.blobs.Delete(d)
}

// sweep removes the blobs that no record needs. It may only run before the
// first request.
func (r *references) sweep() (removed int, err error) {
	for d, err := range r.blobs.All() {
		if err != nil {
			return removed, err
		}
		if r.stripe(d).counts[d] > 0 {
			continue
		}
		if err := r.blobs.Delete(d); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}
