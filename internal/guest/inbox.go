package guest

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// Frames of the host are acted on by whoever reads them: the reader, a goroutine that
// does nothing else, or an exchange that waits for the next event. An event that the
// reader hands over costs a wake-up of it and one of the exchange's thread, in the
// kernel and in Go's scheduler; an exchange that reads by itself is woken by the
// kernel when the event comes. So the reader stands back as long as exchanges come
// one after the other. What comes meanwhile while none waits, because the function
// runs, is found when the reader looks again.

// standBack is for how long the reader leaves frames to exchanges.
const standBack = 10 * time.Millisecond

// Host is a host connection that exchanges can wait for. Reading from it waits until
// there is something.
type Host interface {
	net.Conn
	// Await waits until there is something to read, be it the end, or Wake is
	// called, or has been since the last call. It tells which.
	Await() (readable bool)
	Wake()
	// StandBack is called where Await will not be for a while.
	StandBack()
}

// Caller is who makes an exchange, and waits.
type Caller interface {
	// Await waits until something is sent on ready, which it takes, or, where host is
	// set, the host connection can be read: then readable is set. ok is false where
	// the caller has something else to do, be it as well.
	Await(ready chan struct{}, host bool) (readable, ok bool)
	// Wake has Await look at ready.
	Wake()
}

// inbox is where the frames of the host come in.
type inbox struct {
	host   Host // nil where only the reader can wait for it
	frames *proto.Reader

	mu    sync.Mutex   // is held from before a frame is read until it has been acted on
	err   error        // what the last frame came to: nothing is read after it
	taken atomic.Int64 // frames
	more  atomic.Bool  // there is another one in what has been read, or a part of it

	attended atomic.Bool  // an exchange waits for frames
	turns    atomic.Int64 // how often one has
	watching atomic.Bool  // the reader waits for frames
	seen     int64        // of turns, by the reader
	rest     *time.Timer  // the reader's
	recalled chan struct{}
}

func newInbox(conn net.Conn) *inbox {
	in := &inbox{frames: proto.NewReader(conn), rest: time.NewTimer(0), recalled: make(chan struct{}, 1)}
	in.host, _ = conn.(Host)
	return in
}

// read is the reader: it has act act on frames until that fails, or reading does. An
// exchange may have taken the frame that it failed for.
func (in *inbox) read(act func(proto.Frame) error) error {
	in.mu.Lock()
	in.err = nil
	in.mu.Unlock()
	for {
		if err := in.take(in.await(), act); err != nil {
			return err
		}
	}
}

// nothing is a number of frames that inbox.taken never has.
const nothing = -1

// take acts on the next frame where n have been taken so far, of which there must be
// something to read. It fails where an earlier one has, too.
func (in *inbox) take(n int64, act func(proto.Frame) error) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil || n != in.taken.Load() {
		return in.err
	}
	f, err := in.frames.Read()
	in.taken.Add(1)
	in.more.Store(in.frames.Buffered() > 0)
	if err == nil {
		err = act(f)
	}
	in.err = err
	return err
}

// await waits until the reader is to look. It returns how many frames had been taken
// before there was something to read, or nothing.
func (in *inbox) await() int64 {
	for in.host != nil {
		if turns := in.turns.Load(); turns != in.seen {
			in.seen = turns
			in.stand()
			continue
		}
		n := in.taken.Load()
		if in.more.Load() {
			return n
		}
		in.watching.Store(true)
		readable := in.host.Await()
		in.watching.Store(false)
		if !readable {
			return nothing
		}
		if !in.attended.Load() {
			return n
		}
		in.stand() // it is the exchange's, which has been woken too
	}
	return in.taken.Load()
}

// stand lets time pass.
func (in *inbox) stand() {
	in.host.StandBack()
	in.rest.Reset(standBack)
	select {
	case <-in.rest.C:
	case <-in.recalled:
		in.seen = in.turns.Load()
	}
}

// recall has the reader look at what comes from now on.
func (in *inbox) recall() {
	select {
	case in.recalled <- struct{}{}:
	default:
	}
}

// attend waits until something is sent on ready, on behalf of c, and has act act on
// the frames that come meanwhile. It returns false where c has something else to do.
func (in *inbox) attend(c Caller, ready chan struct{}, act func(proto.Frame) error) bool {
	if in.host != nil && in.attended.CompareAndSwap(false, true) {
		ok, err := in.takeUntil(c, ready, act)
		in.turns.Add(1)
		in.attended.Store(false)
		if !ok || err != nil {
			in.recall()
		}
		if err != nil || in.watching.Load() { // else it would be woken by each frame, too
			in.host.Wake()
		}
		if err == nil {
			return ok
		}
	}
	_, ok := c.Await(ready, false)
	return ok
}

func (in *inbox) takeUntil(c Caller, ready chan struct{}, act func(proto.Frame) error) (ok bool, err error) {
	for err == nil {
		n := in.taken.Load()
		readable := in.more.Load()
		if !readable {
			if readable, ok = c.Await(ready, true); !readable || !ok {
				return ok, nil
			}
		}
		err = in.take(n, act)
	}
	return false, err
}
