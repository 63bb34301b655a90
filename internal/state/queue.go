package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// maxHeadSize is how large the head of a message may be as JSON, in bytes:
// JetStream limits all headers of a message to 64 KB.
const maxHeadSize = 48 << 10

// headHeader carries a message's head, so that heads can be read without bodies.
const headHeader = "Lapwing-Head"

// Queue holds messages until they are removed, one by one and in any order. A
// message has a head of type H, which is small and read at the start, and a
// body, which is read when it is needed: who uses a queue keeps an index in
// memory, and a long backlog stays on disk.
//
// A queue is a stream without consumers: adding and removing a message take
// one fsync each, and nothing is written when one is read. Unlike a
// collection it keeps nothing in memory. All its methods may be called from
// any goroutine.
type Queue[H any] struct {
	name   string
	store  *Store
	stream jetstream.Stream
}

// OpenQueue opens the queue with this name (as of collections), and makes it
// if it is not there.
func OpenQueue[H any](ctx context.Context, s *Store, name string) (*Queue[H], error) {
	if !collectionName.MatchString(name) {
		return nil, fmt.Errorf("state: %q is no name for a queue", name)
	}
	q := &Queue[H]{name: name, store: s}
	var err error
	q.stream, err = s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:         "QUEUE_" + name,
		Subjects:     []string{q.subject()},
		MaxMsgs:      -1,
		MaxBytes:     -1,
		MaxConsumers: -1,
		MaxMsgSize:   MaxValueSize + maxHeadSize + 1024,
		Discard:      jetstream.DiscardNew,
		Storage:      jetstream.FileStorage,
		Replicas:     1,
		AllowDirect:  true,
	})
	if err != nil {
		return nil, fmt.Errorf("state: open queue %s: %w", name, err)
	}
	return q, nil
}

func (q *Queue[H]) subject() string { return "$QUEUE." + q.name }

// Add appends a message and returns its id, which is larger than those of all
// messages before, when the message is durable. An error other than
// ErrTooLarge leaves open whether it was added. A body has at most MaxValueSize
// bytes.
func (q *Queue[H]) Add(ctx context.Context, head H, body []byte) (id uint64, err error) {
	h, err := json.Marshal(head)
	if err != nil {
		return 0, q.fail("add", err)
	}
	if len(h) > maxHeadSize || len(body) > MaxValueSize {
		return 0, q.fail("add", fmt.Errorf("%w: head of %d and body of %d bytes", ErrTooLarge, len(h), len(body)))
	}
	ctx, cancel := q.store.bounded(ctx)
	defer cancel()
	ack, err := q.store.js.PublishMsg(ctx, &nats.Msg{Subject: q.subject(), Header: nats.Header{headHeader: {string(h)}}, Data: body})
	if err != nil {
		return 0, q.fail("add", err)
	}
	return ack.Sequence, nil
}

// Get reads a message, ErrNotFound if there is none with this id.
func (q *Queue[H]) Get(ctx context.Context, id uint64) (head H, body []byte, err error) {
	ctx, cancel := q.store.bounded(ctx)
	defer cancel()
	m, err := q.stream.GetMsg(ctx, id)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		err = ErrNotFound
	}
	if err == nil {
		err = decodeHead(m.Header, &head)
	}
	if err != nil {
		return head, nil, q.fail("get "+strconv.FormatUint(id, 10), err)
	}
	return head, m.Data, nil
}

// Remove removes a message durably. One that is not there is no error.
func (q *Queue[H]) Remove(ctx context.Context, id uint64) error {
	ctx, cancel := q.store.bounded(ctx)
	defer cancel()
	err := q.stream.DeleteMsg(ctx, id)
	if err == nil {
		return nil
	}
	// The store has no word of its own for a message that is not there.
	if _, missing := q.stream.GetMsg(ctx, id); errors.Is(missing, jetstream.ErrMsgNotFound) {
		return nil
	}
	return q.fail("remove "+strconv.FormatUint(id, 10), err)
}

// Heads calls visit with the head of every message in the order of their ids,
// until visit returns an error. It is meant for the start: messages that are
// added or removed meanwhile may be missed. A head that cannot be read is an
// error: it must not be taken for one that is not there.
func (q *Queue[H]) Heads(ctx context.Context, visit func(id uint64, head H) error) error {
	info, err := q.stream.Info(ctx)
	if err != nil {
		return q.fail("read", err)
	}
	if info.State.Msgs == 0 {
		return nil
	}
	consumer, err := q.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		return q.fail("read", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return q.fail("read", err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return q.fail("read", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return q.fail("read", err)
		}
		if meta.Sequence.Stream > info.State.LastSeq {
			return nil
		}
		var head H
		if err := decodeHead(m.Headers(), &head); err != nil {
			return q.fail("read "+strconv.FormatUint(meta.Sequence.Stream, 10), err)
		}
		if err := visit(meta.Sequence.Stream, head); err != nil {
			return err
		}
		if meta.NumPending == 0 || meta.Sequence.Stream == info.State.LastSeq {
			return nil
		}
	}
}

func decodeHead(header nats.Header, head any) error {
	if err := json.Unmarshal([]byte(header.Get(headHeader)), head); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	return nil
}

func (q *Queue[H]) fail(action string, err error) error {
	return fmt.Errorf("queue %s: %s: %w", q.name, action, err)
}
