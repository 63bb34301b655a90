package worker

import (
	"encoding/json"
	"sync"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// maxTape bounds what a function may print while it is initialised for a snapshot,
// in bytes.
const maxTape = 256 * 1024

// tape holds back what a guest tells while it is recorded. The zero value is not.
type tape struct {
	mu   sync.Mutex
	on   bool
	told []told
	size int
	full bool
}

// told is one thing that a guest has told.
type told struct {
	Log          *proto.Log          `json:"log,omitempty"`
	Message      []byte              `json:"message,omitempty"` // of Log
	Extension    *proto.Extension    `json:"extension,omitempty"`
	Subscription *proto.Subscription `json:"subscription,omitempty"`
}

// record begins to hold back.
func (t *tape) record() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.on = true
}

// take keeps what was told and tells whether it is recorded.
func (t *tape) take(x told, size int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.on {
		return false
	}
	if t.size += size; t.size > maxTape {
		t.full = true
		return true
	}
	x.Message = append([]byte{}, x.Message...)
	t.told = append(t.told, x)
	return true
}

func (t *tape) log(l proto.Log, msg []byte) bool {
	return t.take(told{Log: &l, Message: msg}, len(msg)+64)
}

func (t *tape) extension(x proto.Extension) bool { return t.take(told{Extension: &x}, 256) }

func (t *tape) subscription(x proto.Subscription) bool { return t.take(told{Subscription: &x}, 256) }

// notes returns what was told; ok is false where that was too much.
func (t *tape) notes() (b []byte, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := json.Marshal(t.told)
	if err != nil {
		panic(err) // strings and numbers
	}
	return b, !t.full
}

// erase ends the recording and forgets it.
func (t *tape) erase() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.on, t.told, t.size, t.full = false, nil, 0, false
}

// play ends the recording: what was told earlier, and then what was told
// meanwhile, goes to tell, before anything that is told from now on.
func (t *tape) play(earlier []told, tell func(told)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range append(earlier, t.told...) {
		tell(x)
	}
	t.on, t.told, t.size = false, nil, 0
}
