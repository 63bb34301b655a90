package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Collection holds records of one type by key. Everything is in memory too:
// the value as Go keeps it and about 1 KB for indexes and caches, so a
// collection is meant for up to some hundred thousand small records.
//
// Reads see one consistent, immutable snapshot, take no lock and never reach
// the store. Writes return when the record is durable and reads of this
// process see it. A write whose context ends or that fails for another reason
// than ErrExists, ErrNotFound, ErrConflict and ErrTooLarge may or may not have
// happened, as with any database.
type Collection[T any] struct {
	name   string
	store  *Store
	stream jetstream.Stream
	model  *model[T]
	floor  uint64             // the stream's last sequence when the watch began
	again  chan chan struct{} // asks feed to begin anew; answered when it has
	done   chan struct{}      // closed when the watch has ended
	cancel context.CancelFunc
}

var collectionName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)

// Collect opens the collection with this name (lower-case letters, digits and
// hyphens), makes it if it is not there, and loads it into memory. A Store
// opens each collection once.
func Collect[T any](ctx context.Context, s *Store, name string) (*Collection[T], error) {
	if !collectionName.MatchString(name) {
		return nil, fmt.Errorf("state: %q is no name for a collection", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if _, ok := s.collections[name]; ok {
		return nil, fmt.Errorf("state: collection %s is open already", name)
	}
	c := &Collection[T]{name: name, store: s, model: newModel[T](), again: make(chan chan struct{}), done: make(chan struct{})}
	if err := c.open(ctx); err != nil {
		return nil, fmt.Errorf("state: open collection %s: %w", name, err)
	}
	s.collections[name] = c
	return c, nil
}

func (c *Collection[T]) open(ctx context.Context) (err error) {
	c.stream, err = c.store.js.CreateOrUpdateStream(ctx, c.store.streamConfig(c.name))
	if err != nil {
		return err
	}
	if err := c.dropSuperseded(ctx); err != nil {
		return fmt.Errorf("drop superseded revisions: %w", err)
	}
	kv, err := c.store.js.KeyValue(ctx, c.name)
	if err != nil {
		return err
	}
	var watching context.Context
	watching, c.cancel = context.WithCancel(context.Background())
	watcher, err := kv.WatchAll(watching)
	if err != nil {
		c.cancel()
		return err
	}
	loaded := make(chan error, 1)
	go c.feed(watching, kv, watcher, loaded)
	select {
	case err = <-loaded:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		c.close()
	}
	return err
}

// streamConfig is the bucket's stream, as jetstream's CreateKeyValue would
// make it, but for how a key's earlier messages go. A key-value bucket with a
// history of 1 leaves that to the limit of one message a subject, and
// JetStream keeps no durable trace of what it removed for a limit: when it must
// rebuild its index after a crash, it enforces the limit anew. If the deletion
// marker has expired by then, the deleted value is back. So here the limit is
// never reached: every write is a rollup of its subject, which removes what
// was before by tombstones that are on disk.
func (s *Store) streamConfig(name string) jetstream.StreamConfig {
	config := jetstream.StreamConfig{
		Name:              "KV_" + name,
		Subjects:          []string{"$KV." + name + ".>"},
		MaxMsgsPerSubject: jetstream.KeyValueMaxHistory,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxConsumers:      -1,
		MaxMsgSize:        MaxValueSize + 1024,
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		Replicas:          1,
		AllowRollup:       true,
		AllowMsgTTL:       true,
		AllowDirect:       true,
		DenyDelete:        true,
	}
	if s.leaf != nil {
		config.Subjects, config.Mirror = nil, s.leaf.source(name)
	}
	return config
}

// dropSuperseded finishes the rollups that a crash cut short between the write
// and the removal of what was before it.
func (c *Collection[T]) dropSuperseded(ctx context.Context) error {
	info, err := c.stream.Info(ctx)
	if err != nil {
		return err
	}
	c.floor = info.State.LastSeq
	if info.State.Msgs == info.State.NumSubjects {
		return nil
	}
	info, err = c.stream.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return err
	}
	for subject, n := range info.State.Subjects {
		if n > 1 {
			if err := c.stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeKeep(1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// feed keeps the model up with the bucket until ctx ends. It sends on loaded
// once: when the model holds what the bucket held at the start.
func (c *Collection[T]) feed(ctx context.Context, kv jetstream.KeyValue, watcher jetstream.KeyWatcher, loaded chan<- error) {
	defer close(c.done)
	if err := c.load(watcher); err != nil {
		loaded <- errors.Join(err, watcher.Stop())
		return
	}
	loaded <- nil
	for {
		again, err := c.follow(watcher)
		_ = watcher.Stop() // its consumer may be gone already, with the connection
		if again == nil {
			if err != nil {
				c.store.log.Error("state: collection stops at a record that cannot be read", "collection", c.name, "err", err)
			}
			return
		}
		if watcher = c.rewatch(ctx, kv); watcher == nil {
			return
		}
		close(again)
	}
}

// load takes in what the bucket holds, and shows it at once.
func (c *Collection[T]) load(watcher jetstream.KeyWatcher) error {
	for entry := range watcher.Updates() {
		if entry == nil { // everything that was there at the start has come
			c.model.revision = max(c.model.revision, c.floor)
			c.model.show()
			return nil
		}
		change, err := decode[T](entry)
		if err != nil {
			// A record that this build cannot read must not be taken for
			// one that is not there.
			return err
		}
		c.model.apply(change)
	}
	return ErrClosed
}

// follow publishes changes, until the watch ends or is to begin anew.
func (c *Collection[T]) follow(watcher jetstream.KeyWatcher) (again chan struct{}, err error) {
	for {
		select {
		case again := <-c.again:
			return again, nil
		case entry, ok := <-watcher.Updates():
			if !ok {
				return nil, nil
			}
			change, err := decode[T](entry)
			if err != nil {
				return nil, err
			}
			c.model.apply(change)
			c.model.publish(change)
		}
	}
}

func decode[T any](entry jetstream.KeyValueEntry) (Change[T], error) {
	key, err := unescapeKey(entry.Key())
	if err != nil {
		return Change[T]{}, err
	}
	change := Change[T]{Item: Item[T]{Key: key, Revision: entry.Revision()}}
	if entry.Operation() != jetstream.KeyValuePut {
		change.Deleted = true
		return change, nil
	}
	if err := json.Unmarshal(entry.Value(), &change.Value); err != nil {
		return Change[T]{}, fmt.Errorf("record %q: %w", key, err)
	}
	return change, nil
}

func (c *Collection[T]) close() {
	c.cancel()
	<-c.done
}

// Get returns the record with this key.
func (c *Collection[T]) Get(key string) (Item[T], bool) { return c.model.current.Load().get(key) }

// Len returns the number of records.
func (c *Collection[T]) Len() int { return c.model.current.Load().tree.Len() }

// List returns the records whose keys begin with prefix, in key order.
func (c *Collection[T]) List(prefix string) []Item[T] { return slices.Collect(c.Scan(prefix, "")) }

// Scan iterates in key order over the records whose keys begin with prefix and
// are not less than start, all as they were when the iteration began. Leaving
// the loop early costs nothing, and so does a slow loop.
func (c *Collection[T]) Scan(prefix, start string) iter.Seq[Item[T]] {
	return func(yield func(Item[T]) bool) {
		c.model.current.Load().from(prefix, start)(yield)
	}
}

// Watch iterates over the records that are there now, in key order, and then
// over every change, in order and without a gap, until ctx or the store ends.
// A slow loop holds the changes that it has not seen in memory.
func (c *Collection[T]) Watch(ctx context.Context) iter.Seq[Change[T]] {
	return func(yield func(Change[T]) bool) {
		v := c.model.current.Load()
		for item := range v.from("", "") {
			if ctx.Err() != nil || !yield(Change[T]{Item: item}) {
				return
			}
		}
		for l := v.next; ; l = l.next {
			select {
			case <-l.ready:
			case <-c.done:
				return
			case <-ctx.Done():
				return
			}
			if !yield(l.change) {
				return
			}
		}
	}
}

// Create writes a record that must not be there yet, else ErrExists.
func (c *Collection[T]) Create(ctx context.Context, key string, value T) (Item[T], error) {
	item, err := c.write(ctx, key, value, expectRevision(0))
	if !errors.Is(err, ErrConflict) {
		return item, err
	}
	// What is there may be the mark of a deletion.
	deleted, err := c.deletedAt(ctx, key)
	if err != nil {
		return Item[T]{}, c.fail(key, err)
	}
	if deleted == 0 {
		return Item[T]{}, c.fail(key, ErrExists)
	}
	item, err = c.write(ctx, key, value, expectRevision(deleted))
	if errors.Is(err, ErrConflict) {
		err = c.fail(key, ErrExists) // somebody else created it just now
	}
	return item, err
}

// deletedAt returns the revision at which key was deleted, or 0 if there is a
// record. It asks the store, since memory may be a moment behind.
func (c *Collection[T]) deletedAt(ctx context.Context, key string) (uint64, error) {
	subject, err := c.subject(key)
	if err != nil {
		return 0, err
	}
	m, err := c.stream.GetLastMsgForSubject(ctx, subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return 0, ErrConflict
	case err != nil:
		return 0, err
	case m.Header.Get(operationHeader) == "":
		return 0, nil
	}
	return m.Sequence, nil
}

// Put writes a record whether or not it is there.
func (c *Collection[T]) Put(ctx context.Context, key string, value T) (Item[T], error) {
	return c.write(ctx, key, value, nats.Header{})
}

// Update replaces the record that has this revision, else ErrConflict, or
// ErrNotFound where memory holds none with this key.
func (c *Collection[T]) Update(ctx context.Context, key string, revision uint64, value T) (Item[T], error) {
	if _, ok := c.Get(key); !ok {
		return Item[T]{}, c.fail(key, ErrNotFound)
	}
	return c.write(ctx, key, value, expectRevision(revision))
}

// Delete removes the record that has this revision, else ErrConflict, or
// ErrNotFound where memory holds none with this key.
func (c *Collection[T]) Delete(ctx context.Context, key string, revision uint64) error {
	if _, ok := c.Get(key); !ok {
		return c.fail(key, ErrNotFound)
	}
	header := expectRevision(revision)
	header.Set(operationHeader, operationDelete)
	header.Set(jetstream.MsgTTLHeader, c.store.markerTTL.String())
	_, err := c.publish(ctx, key, nil, header)
	return err
}

// Modify changes the record by a function that may run several times: whenever
// another writer came first. change gets its own copy. An error from it is
// returned as it is and nothing is written. A key without a record is
// ErrNotFound.
func (c *Collection[T]) Modify(ctx context.Context, key string, change func(*T) error) (Item[T], error) {
	ctx, cancel := c.store.bounded(ctx)
	defer cancel()
	for {
		v := c.model.current.Load()
		item, ok := v.get(key)
		if !ok {
			return Item[T]{}, c.fail(key, ErrNotFound)
		}
		value, err := clone(item.Value)
		if err != nil {
			return Item[T]{}, c.fail(key, err)
		}
		if err := change(&value); err != nil {
			return Item[T]{}, err
		}
		written, err := c.write(ctx, key, value, expectRevision(item.Revision))
		if !errors.Is(err, ErrConflict) {
			return written, err
		}
		// The other write is not in v: it comes with one of the next views.
		if err := c.model.after(ctx, v, c.done); err != nil {
			return Item[T]{}, c.fail(key, err)
		}
	}
}

// clone copies a value the way that it is stored, so that it shares nothing.
func clone[T any](value T) (copied T, err error) {
	b, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(b, &copied)
	}
	return copied, err
}

const (
	operationHeader = "KV-Operation" // as in jetstream's key-value buckets
	operationDelete = "DEL"
)

// expectRevision makes the write fail unless the key's last write was revision
// (0: none).
func expectRevision(revision uint64) nats.Header {
	return nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(revision, 10)}}
}

func (c *Collection[T]) write(ctx context.Context, key string, value T, header nats.Header) (Item[T], error) {
	b, err := json.Marshal(value)
	if err != nil {
		return Item[T]{}, c.fail(key, err)
	}
	if len(b) > MaxValueSize {
		return Item[T]{}, c.fail(key, fmt.Errorf("%w: %d bytes of at most %d", ErrTooLarge, len(b), MaxValueSize))
	}
	revision, err := c.publish(ctx, key, b, header)
	return Item[T]{Key: key, Revision: revision, Value: value}, err
}

// publish writes one message to the bucket and waits until it is durable and
// in the model.
func (c *Collection[T]) publish(ctx context.Context, key string, data []byte, header nats.Header) (uint64, error) {
	subject, err := c.subject(key)
	if err != nil {
		return 0, c.fail(key, err)
	}
	if c.store.leaf != nil {
		return 0, c.fail(key, ErrReadOnly)
	}
	header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	ctx, cancel := c.store.bounded(ctx)
	defer cancel()
	ack, err := c.store.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Header: header, Data: data})
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		err = ErrConflict
	}
	if err == nil {
		err = c.model.reached(ctx, ack.Sequence, c.done)
	}
	if err != nil {
		return 0, c.fail(key, err)
	}
	return ack.Sequence, nil
}

func (c *Collection[T]) subject(key string) (string, error) {
	escaped, err := escapeKey(key)
	return "$KV." + c.name + "." + escaped, err
}

func (c *Collection[T]) fail(key string, err error) error {
	const shown = 200
	if len(key) > shown {
		key = strings.ToValidUTF8(key[:shown], "") + "…"
	}
	return fmt.Errorf("%s %q: %w", c.name, key, err)
}
