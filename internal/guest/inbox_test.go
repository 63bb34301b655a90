package guest

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// wire is a host connection, and what an exchange waits with.
type wire struct {
	net.Conn // for what nobody calls
	mu       sync.Mutex
	changed  *sync.Cond
	data     []byte
	ended    bool
	rung     bool
	awaits   int // how often the reader has begun to wait
}

func newWire() *wire {
	w := new(wire)
	w.changed = sync.NewCond(&w.mu)
	return w
}

// change changes something that others may wait for.
func (w *wire) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.changed.Broadcast()
}

// send sends frames that are told apart by their types.
func (w *wire) send(types ...proto.Type) {
	w.change(func() {
		for _, t := range types {
			w.data = proto.AppendData(w.data, t, 0)
		}
	})
}

func (w *wire) readable() bool { return len(w.data) > 0 || w.ended }

func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.readable() {
		w.changed.Wait()
	}
	if len(w.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, w.data)
	w.data = w.data[n:]
	return n, nil
}

// Await implements Host.
func (w *wire) Await() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.awaits++
	for !w.readable() && !w.rung {
		w.changed.Wait()
	}
	w.rung = false
	return w.readable()
}

// Wake implements Host.
func (w *wire) Wake() { w.change(func() { w.rung = true }) }

// StandBack implements Host.
func (*wire) StandBack() {}

// calling is a Caller.
type calling struct {
	*wire
	busy bool // it has something else to do
}

// Await implements Caller.
func (c *calling) Await(ready chan struct{}, host bool) (readable, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		select {
		case <-ready:
			return false, !c.busy
		default:
		}
		if host && c.readable() || c.busy {
			return !c.busy, !c.busy
		}
		c.changed.Wait()
	}
}

// Wake implements Caller.
func (c *calling) Wake() { c.change(func() {}) }

// reading is an inbox with a reader.
type reading struct {
	*wire
	*inbox
	mu    sync.Mutex
	taken map[string][]proto.Type // by whom
	ended error                   // of the reader, once over is closed
	over  chan struct{}
}

var errLast = errors.New("the last")

// last is the type of a frame that ends the reading.
const last = proto.TypeReset

func newReading() *reading {
	r := &reading{wire: newWire(), taken: map[string][]proto.Type{}, over: make(chan struct{})}
	r.inbox = newInbox(r.wire)
	go func() {
		r.ended = r.inbox.read(r.by("reader", nil))
		close(r.over)
	}()
	return r
}

// by returns what acts on frames that somebody takes, and answers each of them on ready.
func (r *reading) by(who string, ready chan struct{}) func(proto.Frame) error {
	return func(f proto.Frame) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.taken[who] = append(r.taken[who], f.Type)
		if f.Type == last {
			return errLast
		}
		if ready != nil {
			ready <- struct{}{}
		}
		return nil
	}
}

// exchange begins an exchange, and returns what tells whether it was worth it.
func (r *reading) exchange(who string) (c *calling, ready chan struct{}, ok chan bool) {
	c, ready, ok = &calling{wire: r.wire}, make(chan struct{}, 1), make(chan bool, 1)
	go func() { ok <- r.attend(c, ready, r.by(who, ready)) }()
	return c, ready, ok
}

func (r *reading) check(t *testing.T, who string, want ...proto.Type) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := r.taken[who]; !slices.Equal(got, want) {
		t.Errorf("%s has taken %v, want %v", who, got, want)
	}
}

// end ends the reader.
func (r *reading) end(t *testing.T) {
	t.Helper()
	r.send(last)
	if <-r.over; r.ended != errLast {
		t.Errorf("reading ended with %v", r.ended)
	}
}

func TestFramesAreTheReadersWhereNoExchangeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReading()
		r.send(1, 2)
		synctest.Wait()
		r.send(3)
		synctest.Wait()
		r.check(t, "reader", 1, 2, 3)
		r.end(t)
	})
}

func TestExchangesTakeTheirEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReading()
		synctest.Wait()
		for range 5 {
			_, _, ok := r.exchange("exchange")
			synctest.Wait()
			r.send(2)
			if !<-ok {
				t.Error("it was for nothing")
			}
		}
		synctest.Wait()
		// The reader may have been first once, but has then stood back.
		r.mu.Lock()
		if n := len(r.taken["exchange"]); n < 4 {
			t.Errorf("%d of 5 events were taken by exchanges", n)
		}
		r.mu.Unlock()
		if r.wire.awaits > 2 {
			t.Errorf("the reader has been woken %d times", r.wire.awaits)
		}
		// What comes while the function runs is not forgotten.
		r.send(3)
		time.Sleep(3 * standBack)
		synctest.Wait()
		r.mu.Lock()
		if got := r.taken["reader"]; len(got) == 0 || got[len(got)-1] != 3 {
			t.Errorf("the reader has taken %v", got)
		}
		r.mu.Unlock()
		r.end(t)
	})
}

func TestReaderIsRecalledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReading()
		for range 3 {
			_, _, ok := r.exchange("exchange")
			synctest.Wait()
			r.send(2)
			<-ok
		}
		synctest.Wait()
		began := time.Now()
		r.recall()
		synctest.Wait()
		r.send(3)
		synctest.Wait()
		if r.check(t, "reader", 3); time.Since(began) > 0 {
			t.Errorf("after %v", time.Since(began))
		}
		r.end(t)
	})
}

func TestWhoHasSomethingElseToDoLeavesFramesToTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReading()
		c, _, ok := r.exchange("exchange")
		synctest.Wait()
		began := time.Now()
		r.change(func() { c.busy = true })
		if <-ok {
			t.Error("it waited on")
		}
		r.send(2)
		synctest.Wait()
		if r.check(t, "reader", 2); time.Since(began) > 0 {
			t.Errorf("after %v", time.Since(began))
		}
		r.end(t)
	})
}

func TestWhatEndsReadingReachesTheReader(t *testing.T) {
	for name, end := range map[string]func(*reading){
		"an order":                 func(r *reading) { r.send(last, 3) }, // 3 is for the next to read
		"the end of a connection":  func(r *reading) { r.change(func() { r.wire.ended = true }) },
		"half a frame":             func(r *reading) { r.change(func() { r.data, r.wire.ended = append(r.data, 1), true }) },
		"behind an event, at once": func(r *reading) { r.send(2, last) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReading()
				for range 2 { // so that it stands back
					_, _, ok := r.exchange("exchange")
					synctest.Wait()
					r.send(1)
					<-ok
				}
				_, ready, ok := r.exchange("the last")
				_, ready2, ok2 := r.exchange("another")
				synctest.Wait()
				end(r)
				<-r.over
				if r.ended == nil {
					t.Error("it ended well")
				}
				r.check(t, "reader")
				// Whoever waits still does, for another answer.
				r.change(func() {
					for _, c := range []chan struct{}{ready, ready2} {
						select {
						case c <- struct{}{}:
						default:
						}
					}
				})
				if !<-ok || !<-ok2 {
					t.Error("it gave up")
				}
			})
		})
	}
}

func TestReadingGoesOnAfterAnOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReading()
		_, ready, ok := r.exchange("exchange")
		synctest.Wait()
		r.send(last)
		<-r.over
		ready <- struct{}{}
		r.Wake()
		<-ok
		r.over = make(chan struct{})
		go func() {
			r.ended = r.inbox.read(r.by("next", nil))
			close(r.over)
		}()
		r.send(1)
		time.Sleep(2 * standBack)
		synctest.Wait()
		r.check(t, "next", 1)
		r.end(t)
	})
}

// TestFramesAreTakenInOrder has exchanges come and go while frames come in.
func TestFramesAreTakenInOrder(t *testing.T) {
	r := newReading()
	var got []proto.Type
	act := func(ready chan struct{}) func(proto.Frame) error {
		return func(f proto.Frame) error {
			got = append(got, f.Type) // inbox.mu is held
			if f.Type == last {
				return errLast
			}
			select {
			case ready <- struct{}{}:
			default:
			}
			return nil
		}
	}
	r.send(last)
	<-r.over
	read := make(chan error)
	go func() { read <- r.inbox.read(act(nil)) }()
	stop := make(chan struct{})
	var exchanges sync.WaitGroup
	for range 3 {
		exchanges.Go(func() {
			for {
				c, ready := &calling{wire: r.wire}, make(chan struct{}, 1)
				time.AfterFunc(rand.N(time.Millisecond), func() { r.change(func() { c.busy = true }) })
				r.attend(c, ready, act(ready))
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	const frames = 5000
	var want []proto.Type
	for n := range frames {
		f := proto.Type(100 + n%100)
		want = append(want, f)
		r.send(f)
		if n%10 == 0 {
			time.Sleep(rand.N(100 * time.Microsecond))
		}
	}
	r.send(last)
	if err := <-read; err != errLast {
		t.Error(err)
	}
	close(stop)
	exchanges.Wait()
	if !slices.Equal(got, append(want, last)) {
		t.Errorf("%d frames were taken, not all in order, of %d", len(got), frames+1)
	}
}
