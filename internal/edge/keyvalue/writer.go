package keyvalue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Errors of changes.
var (
	// ErrChanged says that the store has another ETag than the change is for.
	ErrChanged = errors.New("the store was changed meanwhile")
	// ErrFull says that the store would have more than MaxBytes.
	ErrFull = fmt.Errorf("the store would have more than %d bytes", MaxBytes)
	// ErrState says that the store is not READY.
	ErrState = errors.New("the store is not ready")
)

// maxStale is how many parts that no head names are kept for locations that have
// yet to take the head that came after: more are deleted before.
const maxStale = 2048

// tidyAt is how many such parts have Tidy asked for.
const tidyAt = 64

// Writer changes stores. There is one, where the records are written.
type Writer struct {
	*Stores

	mu     sync.Mutex // held by whatever changes something
	stale  []stale    // in the order of heads
	wake   func()     // asks for Tidy; nil: nobody
	served map[string]bool
}

// stale is a part that no head names any more, as of a revision.
type stale struct {
	key   string
	since uint64
}

// NewWriter returns a Writer over stores' records. What a crash left of changes
// that did not come to count is deleted with the first Tidy.
func NewWriter(stores *Stores) *Writer {
	w := &Writer{Stores: stores, served: map[string]bool{}}
	named := map[string]bool{}
	for item := range w.records.Scan("", "") {
		if item.Value.Head != nil {
			for _, p := range item.Value.Head.Parts {
				named[partKey(item.Key, p.ID)] = true
			}
		}
	}
	now := w.records.Mark().Revision
	for item := range w.records.Scan("", "") {
		if item.Value.Head == nil && !named[item.Key] {
			w.stale = append(w.stale, stale{item.Key, now})
		}
	}
	return w
}

// OnStale has the Writer call wake, which must not wait, when there is something to
// tidy up.
func (w *Writer) OnStale(wake func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake = wake
}

// All returns the heads of all stores, by id.
func (w *Writer) All() map[string]*distribution.KeyValueHead {
	all := map[string]*distribution.KeyValueHead{}
	for item := range w.records.Scan("", "") {
		if item.Value.Head != nil {
			all[item.Key] = item.Value.Head
		}
	}
	return all
}

// Create makes a store without pairs, which is to be filled. One that is there
// stays as it is.
func (w *Writer) Create(ctx context.Context, id, arn string, now time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.records.Get(id); ok {
		return nil
	}
	_, err := w.records.Create(ctx, id, distribution.KeyValues{Format: distribution.Format, Head: &distribution.KeyValueHead{
		ARN: arn, ETag: newETag(), Created: now, Modified: now, State: distribution.KeyValuesProvisioning,
	}})
	return err
}

// Fill gives a store its first pairs, and makes it READY.
func (w *Writer) Fill(ctx context.Context, id string, pairs []Pair, now time.Time) error {
	_, err := w.write(ctx, id, now, func(head *distribution.KeyValueHead) ([]change, error) {
		head.State = distribution.KeyValuesReady
		return changes(pairs, nil), nil
	})
	return err
}

// Fail records why a store could not be filled.
func (w *Writer) Fail(ctx context.Context, id, reason string, now time.Time) error {
	_, err := w.write(ctx, id, now, func(head *distribution.KeyValueHead) ([]change, error) {
		head.State, head.Reason = distribution.KeyValuesImportFailed, reason
		return nil, nil
	})
	return err
}

// Change puts and deletes pairs, all or nothing, if the store has an ETag, and
// returns what it is then. No key may be named twice. The store's records are
// durable when it returns.
func (w *Writer) Change(ctx context.Context, id, etag string, puts []Pair, deletes []string, now time.Time) (*distribution.KeyValueHead, error) {
	return w.write(ctx, id, now, func(head *distribution.KeyValueHead) ([]change, error) {
		switch {
		case head.State != distribution.KeyValuesReady:
			return nil, ErrState
		case head.ETag != etag:
			return nil, ErrChanged
		}
		return changes(puts, deletes), nil
	})
}

// write makes the next version of a store. What has begun is finished, whether or
// not the caller waits for it.
func (w *Writer) write(ctx context.Context, id string, now time.Time, decide func(*distribution.KeyValueHead) ([]change, error)) (*distribution.KeyValueHead, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old, err := w.View(id)
	if err != nil {
		return nil, err
	}
	head := *old.Head
	changes, err := decide(&head)
	if err != nil {
		return nil, err
	}
	b := old.change(changes)
	head.Parts, head.Count, head.Bytes = nil, b.count, b.bytes
	head.ETag, head.Modified = newETag(), now
	if head.Bytes > MaxBytes {
		return nil, ErrFull
	}
	ctx = context.WithoutCancel(ctx)
	kept := map[string]bool{}
	for _, p := range b.parts {
		if p.id == "" {
			p.id = rand.Text()
			if _, err := w.records.Put(ctx, partKey(id, p.id), distribution.KeyValues{Format: distribution.Format, Part: p.pairs}); err != nil {
				return nil, err
			}
		}
		kept[p.id] = true
		head.Parts = append(head.Parts, distribution.KeyValuePart{ID: p.id, First: p.pairs[0].Key})
	}
	// Where this fails it may have happened all the same: the new parts stay until
	// the next start says whether a head names them.
	item, err := w.records.Update(ctx, id, old.revision, distribution.KeyValues{Format: distribution.Format, Head: &head})
	if err != nil {
		return nil, err
	}
	for _, p := range old.Head.Parts {
		if !kept[p.ID] {
			w.stale = append(w.stale, stale{partKey(id, p.ID), item.Revision})
		}
	}
	if len(w.stale) >= tidyAt && w.wake != nil {
		w.wake()
	}
	return &head, nil
}

// Delete deletes a store; one that is not there is no error.
func (w *Writer) Delete(ctx context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.served, id)
	head, ok := w.records.Get(id)
	if !ok {
		return nil
	}
	if err := w.records.Delete(ctx, id, head.Revision); err != nil {
		return err
	}
	now := w.records.Mark().Revision
	for part := range w.records.Scan(id+"/", "") {
		if !slices.ContainsFunc(w.stale, func(s stale) bool { return s.key == part.Key }) {
			w.stale = append(w.stale, stale{part.Key, now})
		}
	}
	return nil
}

// Served tells whether every location has had a store, as it is now or was since
// the program began. applied is the revision that all of them have.
func (w *Writer) Served(id string, applied uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if head, ok := w.records.Get(id); ok && head.Value.Head != nil && head.Value.Head.State == distribution.KeyValuesReady && head.Revision <= applied {
		w.served[id] = true
	}
	return w.served[id]
}

// Tidy deletes the parts that no location needs. It tells whether there are others
// to come. applied is the revision that all locations have.
func (w *Writer) Tidy(ctx context.Context, applied uint64) (more bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.stale) > 0 && (w.stale[0].since <= applied || len(w.stale) > maxStale) {
		if part, ok := w.records.Get(w.stale[0].key); ok {
			if err := w.records.Delete(ctx, part.Key, part.Revision); err != nil {
				return true, err
			}
		}
		w.stale = w.stale[1:]
	}
	return len(w.stale) > 0, nil
}

// newETag returns a version of a store's pairs.
func newETag() string { return "KV" + rand.Text()[:13] }

// change is what becomes of a key.
type change struct {
	Pair
	deleted bool
}

// changes returns changes in the order of keys.
func changes(puts []Pair, deletes []string) []change {
	all := make([]change, 0, len(puts)+len(deletes))
	for _, p := range puts {
		all = append(all, change{Pair: p})
	}
	for _, key := range deletes {
		all = append(all, change{Pair: Pair{Key: key}, deleted: true})
	}
	slices.SortFunc(all, func(a, b change) int { return strings.Compare(a.Key, b.Key) })
	return all
}
