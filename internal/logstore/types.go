package logstore

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

const (
	// MaxMessage is the longest message in bytes, as CloudWatch Logs has it
	// for one event. Put refuses a longer one, Append cuts it.
	MaxMessage = 1 << 20
	// EventOverhead is what an event counts beyond its message in bytes, in
	// stored bytes and in the limits of a batch (CloudWatch Logs' rule).
	EventOverhead = 26
)

// Errors of a Store's methods. Others are failures of the disk.
var (
	ErrClosed          = errors.New("logstore: closed")
	ErrGroupNotFound   = errors.New("logstore: no such log group")
	ErrGroupExists     = errors.New("logstore: the log group exists")
	ErrStreamNotFound  = errors.New("logstore: no such log stream")
	ErrStreamExists    = errors.New("logstore: the log stream exists")
	ErrTooManyStreams  = errors.New("logstore: too many log streams")
	ErrMessageTooLong  = errors.New("logstore: message too long")
	ErrQueueFull       = errors.New("logstore: queue full, events dropped")
	ErrScanLimit       = errors.New("logstore: scan limit reached")
	errWait            = errors.New("logstore: queue full, wait")
	errSegmentReplaced = errors.New("logstore: segment replaced")
)

// Event is one log event.
type Event struct {
	Time     time.Time // when it happened; kept in ms
	Ingested time.Time // when the store took it; set by the store
	Message  string
}

// Record is an event as it is read.
type Record struct {
	Event
	Stream   string
	Position Position
}

// Position is the place of an event in its group: events are in the order of
// time, then of arrival. No two events of a group have the same one.
type Position struct {
	Time int64  // Unix ms
	Seq  uint64 // of arrival, in the group
}

// Compare orders positions.
func (p Position) Compare(q Position) int {
	switch {
	case p.Time < q.Time:
		return -1
	case p.Time > q.Time:
		return 1
	case p.Seq < q.Seq:
		return -1
	case p.Seq > q.Seq:
		return 1
	}
	return 0
}

// positionDigits is the length of a position as text, which is that of
// CloudWatch's event ids.
const positionDigits = 56

// String returns the position as 56 decimal digits, which sort like positions.
func (p Position) String() string {
	return fmt.Sprintf("%020d%036d", uint64(p.Time), p.Seq)
}

// ParsePosition parses what String made.
func ParsePosition(s string) (Position, error) {
	if len(s) != positionDigits {
		return Position{}, fmt.Errorf("logstore: position %q: want %d digits", s, positionDigits)
	}
	t, err := strconv.ParseUint(s[:20], 10, 63)
	if err != nil {
		return Position{}, fmt.Errorf("logstore: position: %w", err)
	}
	seq, err := strconv.ParseUint(s[20:], 10, 64)
	if err != nil {
		return Position{}, fmt.Errorf("logstore: position: %w", err)
	}
	return Position{Time: int64(t), Seq: seq}, nil
}

// Group describes a log group.
type Group struct {
	Name          string
	Created       time.Time
	RetentionDays int // 0 keeps events until the disk budget is spent
	Tags          map[string]string
	// StoredBytes is the sum of messages and EventOverhead of what is stored,
	// before compression.
	StoredBytes int64
}

// Stream describes a log stream. The times of events are zero where it has none.
type Stream struct {
	Name          string
	Created       time.Time
	FirstEvent    time.Time
	LastEvent     time.Time
	LastIngestion time.Time
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms) }
