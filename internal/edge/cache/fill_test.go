package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// feed leads a fill of body in pieces, and commits it.
func feed(t *testing.T, f *Fill, h Head, body []byte, piece int) {
	t.Helper()
	f.Begin(h)
	for len(body) > 0 {
		n := min(piece, len(body))
		if _, err := f.Write(body[:n]); err != nil {
			t.Errorf("write: %v", err)
			f.Abort(err)
			return
		}
		body = body[n:]
	}
	if err := f.Commit(); err != nil {
		t.Errorf("commit: %v", err)
	}
}

func TestManyReadersOfAFillGetTheirRanges(t *testing.T) {
	for _, n := range []int{100, maxInMemory, large} {
		for _, known := range []bool{true, false} {
			s := openOnDisk(t, Options{})
			body := bodyOf("a", n)
			f, _ := s.Fill(key("a"), 0)
			var g sync.WaitGroup
			for i := range 20 {
				w, leader := s.Fill(key("a"), 0)
				if leader {
					t.Fatal("two lead")
				}
				g.Go(func() {
					o, err := w.Object(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					defer o.Release()
					off, length := int64(0), int64(-1)
					want := body
					if i%2 == 1 {
						off, length = int64(n/20*i), int64(n/20)
						want = body[off : off+length]
					}
					b := o.Body(t.Context(), off, length)
					defer b.Close()
					if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
					}
				})
			}
			h := head("/a")
			if known {
				h.Length = int64(n)
			}
			feed(t, f, h, body, 30_000)
			f.Leave()
			g.Wait()
			o, ok := s.Get(key("a"))
			if !ok || content(t, o) != string(body) {
				t.Errorf("%d bytes are not stored", n)
			}
			o.Release()
			s = reopen(t, s)
			if o, ok = s.Get(key("a")); !ok || content(t, o) != string(body) {
				t.Errorf("%d bytes are not on disk", n)
			}
		}
	}
}

func TestCutBodyIsNotStoredAndItsReadersFail(t *testing.T) {
	for _, n := range []int{100, large} {
		s := openOnDisk(t, Options{})
		f, _ := s.Fill(key("a"), 0)
		h := head("/a")
		h.Length = int64(n)
		f.Begin(h)
		o, err := f.Object(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.Write(bodyOf("a", n-1))
		if err := f.Commit(); !errors.Is(err, ErrTruncated) {
			t.Errorf("commit: %v", err)
		}
		if _, err := io.ReadAll(o.Body(t.Context(), 0, -1)); !errors.Is(err, ErrTruncated) {
			t.Errorf("read: %v", err)
		}
		o.Release()
		if _, ok := s.Get(key("a")); ok {
			t.Error("it is stored")
		}
		s.Close()
		if f := files(t, s.options.Dir); len(f) > 1 {
			t.Errorf("left: %v", f)
		}
	}
}

func TestBodyThatDoesNotFitIsServedAndNotStored(t *testing.T) {
	s := openOnDisk(t, Options{Disk: 2 << 20})
	defer s.Close()
	serveWhole(t, s, 20<<20)
	if st := s.Stats(); st.Objects > 0 || st.DiskBytes > 0 {
		t.Errorf("%+v", st)
	}
}

func TestFullDiskServesOn(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("needs root: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	s, err := Open(Options{Dir: dir, Memory: 16 << 20, Disk: 1 << 30, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	serveWhole(t, s, 12<<20)
	// Small ones are in memory then.
	for i := range 5 {
		name := fmt.Sprint(i)
		store(t, s, key(name), head("/"+name), string(bodyOf(name, 1<<20)))
		if o, ok := s.Get(key(name)); !ok || content(t, o) != string(bodyOf(name, 1<<20)) {
			t.Errorf("%s is not served", name)
		}
	}
	s.Close()
	// What was written before is whole.
	if s, err = Open(s.options); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 5 {
		name := fmt.Sprint(i)
		if o, ok := s.Get(key(name)); ok && content(t, o) != string(bodyOf(name, 1<<20)) {
			t.Errorf("%s is torn", name)
		}
	}
	entries, err := os.ReadDir(s.disk.temporary())
	if err != nil || len(entries) > 0 {
		t.Errorf("temporary files: %v, %v", entries, err)
	}
}

// serveWhole has a fast and a slow reader read a fill that is not stored.
func serveWhole(t *testing.T, s *Store, n int) {
	t.Helper()
	body := bodyOf("whole", n)
	f, _ := s.Fill(key("whole"), 0)
	var g sync.WaitGroup
	for i := range 2 {
		w := f
		if i > 0 {
			w, _ = s.Fill(key("whole"), 0)
		}
		g.Go(func() {
			o, err := w.Object(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer o.Release()
			b := o.Body(t.Context(), 0, -1)
			defer b.Close()
			var got []byte
			p := make([]byte, 200_000)
			for {
				n, err := b.Read(p)
				got = append(got, p[:n]...)
				if err != nil {
					if err != io.EOF || !bytes.Equal(got, body) {
						t.Errorf("reader %d: %d bytes, %v", i, len(got), err)
					}
					return
				}
				time.Sleep(time.Duration(i) * time.Millisecond)
			}
		})
	}
	feed(t, f, head("/whole"), body, 64<<10)
	g.Wait()
}

func TestLateViewerOfAPassingBodyAsksForItself(t *testing.T) {
	s := openOnDisk(t, Options{Disk: 1 << 20})
	defer s.Close()
	f, _ := s.Fill(key("a"), 0)
	f.Begin(head("/a"))
	o, err := f.Object(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := o.Body(t.Context(), 0, -1)
	go func() {
		for range 200 {
			f.Write(make([]byte, 64<<10))
		}
		f.Commit()
	}()
	if _, err := io.CopyN(io.Discard, b, 8<<20); err != nil {
		t.Fatal(err)
	}
	if w, leader := s.Fill(key("a"), 0); !leader {
		t.Error("a late viewer joins a fill whose beginning is gone")
	} else {
		w.Leave()
	}
	if _, err := io.Copy(io.Discard, b); err != nil {
		t.Error(err)
	}
	b.Close()
	o.Release()
}

func TestReaderThatLeavesDoesNotHoldUpAPassingBody(t *testing.T) {
	s := openOnDisk(t, Options{Disk: 1 << 20})
	defer s.Close()
	f, _ := s.Fill(key("a"), 0)
	w, _ := s.Fill(key("a"), 0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		feed(t, f, head("/a"), make([]byte, 12<<20), 64<<10)
	}()
	o, err := f.Object(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slow, err := w.Object(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := slow.Body(t.Context(), 0, -1)
	go func() {
		time.Sleep(20 * time.Millisecond)
		b.Close()
		slow.Release()
	}()
	if n, err := io.Copy(io.Discard, o.Body(t.Context(), 0, -1)); n != 12<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	<-done
	o.Release()
}

func TestReaderThatStandsStillIsLeftBehindByOthersOfAPassingBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(Options{Memory: 8 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		const size = 3 * window
		f, _ := s.Fill(key("a"), 0)
		w, _ := s.Fill(key("a"), 0)
		go feed(t, f, head("/a"), make([]byte, size), 64<<10)
		o, err := f.Object(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slow, err := w.Object(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		still := slow.Body(t.Context(), 0, -1)
		if _, err := io.ReadFull(still, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if n, err := io.Copy(io.Discard, o.Body(t.Context(), 0, -1)); n != size || err != nil {
			t.Errorf("the other got %d bytes, %v", n, err)
		}
		if took := time.Since(began); took != patience {
			t.Errorf("it was held up for %v", took)
		}
		if _, err := io.Copy(io.Discard, still); !errors.Is(err, errGone) {
			t.Errorf("the one that stood still got %v", err)
		}
		still.Close()
		slow.Release()
		o.Release()
	})
}

func TestOnlyReaderOfAPassingBodyMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(Options{Memory: 8 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		const size = 3 * window
		f, _ := s.Fill(key("a"), 0)
		go feed(t, f, head("/a"), make([]byte, size), 64<<10)
		o, err := f.Object(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b := o.Body(t.Context(), 0, -1)
		time.Sleep(3 * patience)
		if n, err := io.Copy(io.Discard, b); n != size || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		b.Close()
		o.Release()
	})
}

func TestAbortReachesWaitersAndReaders(t *testing.T) {
	s := open(t, Options{})
	boom := errors.New("boom")
	f, _ := s.Fill(key("a"), 0)
	w, _ := s.Fill(key("a"), 0)
	f.Abort(boom)
	if _, err := w.Object(t.Context()); !errors.Is(err, boom) {
		t.Errorf("the waiter got %v", err)
	}
	if f2, leader := s.Fill(key("a"), 0); !leader || f2 == f {
		t.Error("the next request joins a fetch that failed")
	}
}

func TestResolveAnswersAllWithAnObject(t *testing.T) {
	s := openOnDisk(t, Options{})
	defer s.Close()
	body := bodyOf("a", large)
	store(t, s, key("a"), head("/a"), string(body))
	o, _ := s.Get(key("a"))
	f, _ := s.Fill(key("a"), 0)
	w, _ := s.Fill(key("a"), 0)
	fresh := refresh(s, key("a"), o, *o.Head)
	f.Resolve(fresh)
	o.Release()
	fresh.Release()
	s.Remove(key("a"))
	for _, f := range []*Fill{f, w} {
		o, err := f.Object(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if content(t, o) != string(body) {
			t.Error("another body")
		}
		o.Release()
	}
}

func TestInvalidationSplitsAFetchUnderWay(t *testing.T) {
	s := open(t, Options{})
	f, _ := s.Fill(key("a"), 0)
	invalidate(t, s, "/a")
	g, leader := s.Fill(key("a"), 0)
	if !leader {
		t.Fatal("a request after an invalidation joins a fetch from before it")
	}
	feed(t, g, head("/a"), []byte("new"), 10)
	feed(t, f, head("/a"), []byte("old"), 10)
	f.Leave()
	g.Leave()
	if o, ok := s.Get(key("a")); !ok || content(t, o) != "new" {
		t.Error("what was asked for before the invalidation has replaced what came after")
	}
}

func TestUnsharedIsForgottenAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(Options{Memory: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		f, _ := s.Fill(key("a"), 0)
		f.Unshared()
		f.Leave()
		time.Sleep(unsharedFor - time.Millisecond)
		if f, _ := s.Fill(key("a"), 0); f != nil {
			t.Error("forgotten too early")
		}
		time.Sleep(2 * time.Millisecond)
		f, leader := s.Fill(key("a"), 0)
		if !leader {
			t.Fatal("still remembered")
		}
		f.Leave()
	})
}

func TestWaiterThatGivesUpGetsItsOwnCause(t *testing.T) {
	s := open(t, Options{})
	f, _ := s.Fill(key("a"), 0)
	w, _ := s.Fill(key("a"), 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Object(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	f.Leave()
}

func TestLeadIsForOneAndGoesOnWithoutViewers(t *testing.T) {
	s := open(t, Options{})
	f := s.Lead(key("a"), 0)
	if f == nil || s.Lead(key("a"), 0) != nil {
		t.Fatal("none leads, or two")
	}
	w, leader := s.Fill(key("a"), 0)
	if leader {
		t.Fatal("a viewer leads too")
	}
	w.Leave()
	if f.Context().Err() != nil {
		t.Error("the fetch has ended")
	}
	feed(t, f, head("/a"), []byte("x"), 1)
	if _, ok := s.Get(key("a")); !ok {
		t.Error("not stored")
	}
}

func TestAFetchIsJoinedByThoseThatAreNoDeeper(t *testing.T) {
	s := open(t, Options{})
	defer s.Close()
	f, leads := s.Fill(key("a"), 1)
	if !leads {
		t.Fatal("nobody leads")
	}
	if w, leads := s.Fill(key("a"), 0); leads || w != f {
		t.Error("one that is less deep does not wait")
	}
	g, leads := s.Fill(key("a"), 2)
	if !leads || g == f {
		t.Fatal("one that is deeper waits for one that may wait for it")
	}
	if w, leads := s.Fill(key("a"), 1); leads || w != g {
		t.Error("the deepest is not the one to wait for")
	}
	for _, f := range []*Fill{f, g} {
		f.Leave()
		f.Leave()
		f.Abort(nil)
	}
}

func TestABodyThatHasComeIsStoredThoughItsReaderHasLeft(t *testing.T) {
	s := open(t, Options{})
	defer s.Close()
	f, _ := s.Fill(key("a"), 0)
	h := head("/a")
	h.Length = 5
	f.Begin(h)
	o, err := f.Object(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	o.Release()
	if err := f.Context().Err(); err != nil {
		t.Errorf("the fetch has ended: %v", err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if o, ok := s.Get(key("a")); !ok {
		t.Error("the object was not stored")
	} else {
		o.Release()
	}
}
