package snapshot

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// refusalsFile has the refusals, in the directory of the store.
	refusalsFile = "refusals.json"
	// refusalsFormat is the version of it.
	refusalsFormat = 1
	// maxRefusals bounds the refusals that are kept; the oldest go.
	maxRefusals = 500
	// maxReason bounds the text of one, in bytes.
	maxReason = 1024
	// maxRefusalsBytes bounds the file that is read: JSON may write a byte as six.
	maxRefusalsBytes = maxRefusals * (6*maxReason + 256)
	// refusalTTL is how long a refusal holds: that it was by chance is found out
	// within a day.
	refusalTTL = 24 * time.Hour
)

// refusals remembers which snapshots cannot be made, and why, so that a server that
// is started again does not try each of them once more. It is a cache like the
// snapshots: a file that cannot be read or written costs a try in vain.
type refusals struct {
	dir string
	log *slog.Logger

	mu   sync.Mutex // guards the file, too
	byID map[string]refusal
}

// refusal is why one snapshot cannot be made. Its id depends on all that the
// snapshot depends on (Store.ID), so whatever changes that forgets it.
type refusal struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

func (r refusal) holds() bool {
	age := time.Since(r.Since)
	return age >= 0 && age < refusalTTL
}

// refusalsOnDisk is what refusalsFile has.
type refusalsOnDisk struct {
	Format   int                `json:"format"`
	Refusals map[string]refusal `json:"refusals"`
}

// openRefusals reads the refusals in a directory.
func openRefusals(dir string, log *slog.Logger) *refusals {
	r := &refusals{dir: dir, log: log, byID: make(map[string]refusal)}
	path := filepath.Join(dir, refusalsFile)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r
	}
	var b []byte
	if err == nil && st.Size() <= maxRefusalsBytes {
		b, err = os.ReadFile(path)
	}
	kept, decodeErr := decodeRefusals(b)
	if err = errors.Join(err, decodeErr); err != nil {
		log.Debug("why some functions have no snapshot is found out anew", "path", path, "error", err)
	}
	r.byID = kept
	return r
}

// decodeRefusals returns the refusals of a file that still hold, and never nil.
func decodeRefusals(b []byte) (map[string]refusal, error) {
	kept := make(map[string]refusal)
	var f refusalsOnDisk
	if err := json.Unmarshal(b, &f); err != nil {
		return kept, err
	}
	if f.Format != refusalsFormat {
		return kept, errors.New("another format")
	}
	for id, one := range f.Refusals {
		if one.holds() && len(one.Reason) <= maxReason && len(kept) < maxRefusals {
			kept[id] = one
		}
	}
	return kept, nil
}

// add notes a refusal.
func (r *refusals) add(id, reason string) {
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byID[id] = refusal{Reason: reason, Since: time.Now().UTC()}
	for known, one := range r.byID {
		if !one.holds() {
			delete(r.byID, known)
		}
	}
	for len(r.byID) > maxRefusals {
		oldest := ""
		for known, one := range r.byID {
			if oldest == "" || one.Since.Before(r.byID[oldest].Since) {
				oldest = known
			}
		}
		delete(r.byID, oldest)
	}
	r.write()
}

// remove forgets a refusal, if there is one.
func (r *refusals) remove(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, there := r.byID[id]; there {
		delete(r.byID, id)
		r.write()
	}
}

func (r *refusals) of(id string) (reason string, refused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one, there := r.byID[id]
	return one.Reason, there && one.holds()
}

// write replaces the file. r.mu is held.
func (r *refusals) write() {
	path := filepath.Join(r.dir, refusalsFile)
	temp := filepath.Join(r.dir, tempPrefix+refusalsFile)
	b, err := json.Marshal(refusalsOnDisk{Format: refusalsFormat, Refusals: r.byID})
	if err == nil {
		_ = os.Remove(temp) // of a write that failed
		err = writeSynced(temp, b)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		r.log.Warn("why a function has no snapshot is not remembered", "path", path, "error", err)
	}
}

// Refuse remembers, beyond this process, why the snapshot of an id cannot be made.
// The reason is to lie in what the id depends on: it holds for a day, or until
// Remove, or until such a snapshot is made all the same.
func (s *Store) Refuse(id, reason string) { s.refusals.add(id, reason) }

// Refused returns why the snapshot of an id cannot be made, where that is known.
func (s *Store) Refused(id string) (reason string, refused bool) { return s.refusals.of(id) }
