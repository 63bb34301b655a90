package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/freshness"
)

func open(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Memory == 0 {
		o.Memory = 64 << 20
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func key(s string) (k Key) {
	copy(k[:], s)
	return k
}

func head(path string) Head {
	return Head{Status: 200, Distribution: "E1", Path: path, Length: -1,
		Lifetime: freshness.Lifetime{Store: true, Received: time.Now(), TTL: time.Hour, IfError: -1}}
}

func store(t *testing.T, s *Store, k Key, h Head, body string) {
	t.Helper()
	f, leader := s.Fill(k, 0)
	if !leader {
		t.Fatal("somebody else fills")
	}
	defer f.Leave()
	f.Begin(h)
	if _, err := f.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, o *Object) string {
	t.Helper()
	b := o.Body(t.Context(), 0, -1)
	defer b.Close()
	data, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestStoredObjectIsFoundUntilItIsInvalidated(t *testing.T) {
	s := open(t, Options{})
	store(t, s, key("a"), head("/a/b"), "hello")
	o, ok := s.Get(key("a"))
	if !ok || content(t, o) != "hello" {
		t.Fatal("not found")
	}
	o.Release()
	for _, c := range []struct {
		path string
		gone bool
	}{{"/a", false}, {"/A/*", false}, {"/a/b?x=1", false}, {"/a/b*", true}} {
		if err := s.Invalidate(distribution.Invalidation{ID: c.path, Distribution: "E1", Paths: []string{c.path}}); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Get(key("a")); ok == c.gone {
			t.Errorf("after the invalidation of %s: found %v", c.path, ok)
		}
	}
	store(t, s, key("a"), head("/a/b"), "hello")
	if _, ok := s.Get(key("a")); !ok {
		t.Error("an object stored after the invalidation is not found")
	}
}

func TestWaitersReadWhatTheLeaderWritesWhileItArrives(t *testing.T) {
	s := open(t, Options{})
	f, _ := s.Fill(key("a"), 0)
	w, leader := s.Fill(key("a"), 0)
	if leader || w != f {
		t.Fatal("the second request does not wait")
	}
	f.Begin(head("/a"))
	o, err := w.Object(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("hel")); err != nil {
		t.Fatal(err)
	}
	b := o.Body(t.Context(), 0, -1)
	p := make([]byte, 10)
	if n, err := b.Read(p); err != nil || string(p[:n]) != "hel" {
		t.Fatalf("%q, %v", p[:n], err)
	}
	go func() {
		f.Write([]byte("lo"))
		f.Commit()
	}()
	if rest, err := io.ReadAll(b); err != nil || string(rest) != "lo" {
		t.Fatalf("%q, %v", rest, err)
	}
	b.Close()
	o.Release()
	f.Leave()
}

func TestFetchEndsWhenNobodyWaits(t *testing.T) {
	s := open(t, Options{})
	f, _ := s.Fill(key("a"), 0)
	w, _ := s.Fill(key("a"), 0)
	f.Leave()
	if f.Context().Err() != nil {
		t.Fatal("the fetch ended though somebody waits")
	}
	w.Leave()
	if !errors.Is(context.Cause(f.Context()), ErrAbandoned) {
		t.Fatal("the fetch goes on for nobody")
	}
}

func TestUnsharedAnswerFreesTheWaitersAndThoseWhoCome(t *testing.T) {
	s := open(t, Options{})
	f, _ := s.Fill(key("a"), 0)
	w, _ := s.Fill(key("a"), 0)
	f.Unshared()
	if _, err := w.Object(t.Context()); !errors.Is(err, ErrUnshared) {
		t.Errorf("a waiter got %v", err)
	}
	if f, leader := s.Fill(key("a"), 0); f != nil || leader {
		t.Error("the next request waits or leads")
	}
}

func invalidate(t *testing.T, s *Store, path string) {
	t.Helper()
	if err := s.Invalidate(distribution.Invalidation{ID: path, Distribution: "E1", Paths: []string{path}}); err != nil {
		t.Fatal(err)
	}
}

func TestScanDoesNotPushOutWhatIsAskedForAgain(t *testing.T) {
	s := open(t, Options{Memory: 1 << 20})
	for i := range 50 {
		name := fmt.Sprint("hot", i)
		store(t, s, key(name), head("/"+name), string(make([]byte, 8000)))
		if o, ok := s.Get(key(name)); ok {
			o.Release()
		}
	}
	for i := range 2000 {
		name := fmt.Sprint("scan", i)
		store(t, s, key(name), head("/"+name), string(make([]byte, 8000)))
	}
	found := 0
	for i := range 50 {
		if _, ok := s.Get(key(fmt.Sprint("hot", i))); ok {
			found++
		}
	}
	if found < 45 {
		t.Errorf("%d of 50 are left", found)
	}
	if n := s.Stats().MemoryBytes; n > 1<<20 {
		t.Errorf("%d bytes", n)
	}
}
