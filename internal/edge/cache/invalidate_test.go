package cache

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Readers of many objects, in memory and on disk, never get a version of before an
// invalidation that was done when they asked, however many fetches are under way.
func TestInvalidationByWildcardHoldsUnderLoad(t *testing.T) {
	s := openOnDisk(t, Options{Memory: 64 << 10}) // a few dozen objects: the others come from the disk
	defer s.Close()
	var origin, done atomic.Int64
	var g sync.WaitGroup
	stop := make(chan struct{})
	for reader := range 8 {
		g.Go(func() {
			for i := reader; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := strconv.Itoa(i % 200)
				atLeast := done.Load()
				if got := current(t, s, name, &origin); got < atLeast {
					t.Errorf("/a/%s is of version %d, invalidated before %d", name, got, atLeast)
					return
				}
			}
		})
	}
	for version := int64(1); version <= 50; version++ {
		origin.Store(version)
		if err := s.Invalidate(distribution.Invalidation{ID: fmt.Sprint("I", version), Distribution: "E1", Paths: []string{"/a/*"}}); err != nil {
			t.Error(err)
		}
		done.Store(version)
	}
	close(stop)
	g.Wait()
}

// current returns the version of an object, which is fetched where it is not there.
func current(t *testing.T, s *Store, name string, origin *atomic.Int64) int64 {
	k := key(name)
	o, ok := s.Get(k)
	if !ok {
		f, leads := s.Fill(k, 0)
		if leads {
			f.Begin(head("/a/" + name))
			_, _ = fmt.Fprintf(f, "%d\n%1000d", origin.Load(), 0)
			if err := f.Commit(); err != nil {
				t.Error(err)
			}
		}
		var err error
		if o, err = f.Object(t.Context()); err != nil {
			t.Error(err)
			return 0
		}
	}
	defer o.Release()
	var version int64
	body := o.Body(t.Context(), 0, -1)
	defer body.Close()
	if _, err := fmt.Fscan(body, &version); err != nil {
		t.Error(err)
	}
	return version
}

// refresh has the origin say that an object is as it was.
func refresh(s *Store, k Key, o *Object, h Head) *Object {
	f := s.Private(k)
	defer f.Abort(nil)
	return f.Refresh(o, h)
}

func TestRefreshThatBeganBeforeAnInvalidationDoesNotOutliveIt(t *testing.T) {
	s := openOnDisk(t, Options{})
	defer s.Close()
	store(t, s, key("a"), head("/a"), "old")
	o, _ := s.Get(key("a"))
	f := s.Private(key("a")) // the origin is asked, and says that nothing has changed
	if err := s.Invalidate(distribution.Invalidation{ID: "I1", Distribution: "E1", Paths: []string{"/*"}}); err != nil {
		t.Fatal(err)
	}
	f.Refresh(o, *o.Head).Release()
	f.Abort(nil)
	o.Release()
	if _, ok := s.Get(key("a")); ok {
		t.Error("an object that was validated before the invalidation is there after it")
	}
}
