package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/killtest"
)

func TestMain(m *testing.M) { killtest.Main(m, makeUntilKilled) }

var testKey = bytes.Repeat([]byte("k"), KeySize)

// kinds are the stores that everything holds for.
var kinds = map[string][]byte{"plain": nil, "sealed": testKey}

func forEachKind(t *testing.T, f func(t *testing.T, o Options)) {
	for name, key := range kinds {
		t.Run(name, func(t *testing.T) {
			f(t, Options{Dir: filepath.Join(t.TempDir(), "snapshots"), Key: key, Base: "b", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		})
	}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
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

// memory is the memory of a snapshot: mostly holes.
func memory(id string) []byte {
	b := make([]byte, 40*block+100)
	for _, at := range []int{0, 5 * block, 17*block + 3, 40*block + 50} {
		copy(b[at:], "memory of "+id)
	}
	return b
}

// makeOne makes a snapshot whose content follows from its id.
func makeOne(s *Store, id string) error {
	d, err := s.Create(id, map[string]string{"function": "f"}, 1<<20)
	if err != nil {
		return err
	}
	m := memory(id)
	err = d.Memory.Truncate(int64(len(m)))
	for at := 0; at < len(m) && err == nil; at += block {
		if part := m[at:min(at+block, len(m))]; !bytes.Equal(part, zeros[:len(part)]) {
			_, err = d.Memory.WriteAt(part, int64(at))
		}
	}
	if err == nil {
		_, err = io.WriteString(d.State, "state of "+id)
	}
	if err != nil {
		d.Discard()
		return err
	}
	return d.Commit(context.Background(), []byte("notes of "+id))
}

func mustMake(t testing.TB, s *Store, id string) {
	t.Helper()
	if err := makeOne(s, id); err != nil {
		t.Fatal(err)
	}
}

// check compares a snapshot in use with what makeOne made.
func check(u *Use, id string) error {
	state, err := io.ReadAll(u.State)
	if err != nil {
		return err
	}
	m, err := io.ReadAll(u.Memory)
	if err != nil {
		return err
	}
	if string(state) != "state of "+id || !bytes.Equal(m, memory(id)) || string(u.Notes) != "notes of "+id {
		return fmt.Errorf("snapshot %s has other content: state %q, notes %q", id[:8], state, u.Notes)
	}
	return nil
}

// expect uses a snapshot, once it is verified.
func expect(t testing.TB, s *Store, id string) *Use {
	t.Helper()
	if err := s.Await(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	u, err := s.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(u, id); err != nil {
		t.Error(err)
	}
	return u
}

func TestSnapshotIsFoundAgainAndVerifiedFirst(t *testing.T) {
	forEachKind(t, func(t *testing.T, o Options) {
		s := open(t, o)
		id := s.ID("inputs")
		if _, err := s.Get(id); !errors.Is(err, ErrNone) {
			t.Errorf("before: %v", err)
		}
		mustMake(t, s, id)
		first, second := expect(t, s, id), expect(t, s, id)
		first.Release()
		first.Release()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		second.Release()

		s = open(t, o)
		if _, err := s.Get(id); !errors.Is(err, ErrNotReady) {
			t.Errorf("after a restart: %v", err)
		}
		expect(t, s, id).Release()
		if info, ok := s.Info(id); !ok || info.Uses != 3 || info.Size <= 0 {
			t.Errorf("info: %+v, %v", info, ok)
		}
	})
}

func TestIDFollowsEveryInput(t *testing.T) {
	type inputs struct{ A, B string }
	ids := make(map[string]string)
	for what, o := range map[string]Options{"": {Base: "b"}, "another base": {Base: "c"}, "a key": {Base: "b", Key: testKey}} {
		o.Dir, o.Logger = t.TempDir(), slog.New(slog.DiscardHandler)
		s := open(t, o)
		for _, in := range []inputs{{"1", "2"}, {"12", ""}, {"2", "1"}} {
			id := s.ID(in)
			if id != s.ID(in) {
				t.Error("an id is not the same twice")
			}
			if other, taken := ids[id]; taken {
				t.Errorf("%v %s: the same as %s", in, what, other)
			}
			ids[id] = fmt.Sprint(in, what)
		}
	}
}

func TestWhatIsNotOfThisStoreIsRemovedWhenItIsOpened(t *testing.T) {
	forEachKind(t, func(t *testing.T, o Options) {
		s := open(t, o)
		id := s.ID("x")
		for what, change := range map[string]func(o *Options){
			"another base":   func(o *Options) { o.Base = "c" },
			"key or not":     func(o *Options) { o.Key = map[bool][]byte{true: testKey}[o.Key == nil] },
			"expired":        func(o *Options) { o.TTL = time.Nanosecond },
			"half a draft":   func(o *Options) { rename(t, o.Dir, "tmp-x") },
			"other format":   func(o *Options) { replace(t, o.Dir, `"format": 1`, `"format": 2`) },
			"no JSON":        func(o *Options) { replace(t, o.Dir, `{`, `[`) },
			"file not named": func(o *Options) { replace(t, o.Dir, `"memory"`, `"other"`) },
			"no memory":      func(o *Options) { remove(t, o.Dir, memoryFile) },
		} {
			mustMake(t, s, id)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			changed := o
			change(&changed)
			s = open(t, changed)
			if _, err := s.Get(id); !errors.Is(err, ErrNone) {
				t.Errorf("%s: %v", what, err)
			}
			if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
				t.Errorf("%s: %v stays, %v", what, left, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, o)
		}
	})
}

// path returns the path of a file of the only snapshot.
func path(t *testing.T, dir, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*", name))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	return found[0]
}

func rename(t *testing.T, dir, to string) {
	t.Helper()
	if err := os.Rename(filepath.Dir(path(t, dir, manifestFile)), filepath.Join(dir, to)); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, dir, old, with string) {
	t.Helper()
	p := path(t, dir, manifestFile)
	b, err := os.ReadFile(p)
	if err != nil || !bytes.Contains(b, []byte(old)) {
		t.Fatal(string(b), err)
	}
	if err := os.WriteFile(p, bytes.Replace(b, []byte(old), []byte(with), 1), 0o400); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(path(t, dir, name)); err != nil {
		t.Fatal(err)
	}
}

// damages are what can happen to a file.
var damages = map[string]func(f *os.File) error{
	"a bit flipped in the middle": func(f *os.File) error { return flip(f, 2) },
	"a bit flipped at the end":    func(f *os.File) error { return flip(f, 1) },
	"cut short":                   func(f *os.File) error { st, _ := f.Stat(); return f.Truncate(st.Size() - 1) },
	"empty":                       func(f *os.File) error { return f.Truncate(0) },
	"longer":                      func(f *os.File) error { st, _ := f.Stat(); return f.Truncate(st.Size() + 1) },
}

func flip(f *os.File, part int64) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	at := st.Size()/part - 1
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 4
	_, err = f.WriteAt(b, at)
	return err
}

func TestDamagedSnapshotIsRemovedAndCanBeMadeAgain(t *testing.T) {
	forEachKind(t, func(t *testing.T, o Options) {
		for what, damage := range damages {
			for _, name := range contents {
				for _, running := range []bool{true, false} {
					s := open(t, o)
					id := s.ID(what)
					mustMake(t, s, id)
					if !running {
						s.Close()
					}
					f, err := os.OpenFile(path(t, o.Dir, name), os.O_RDWR, 0)
					if err != nil {
						t.Fatal(err)
					}
					if err := errors.Join(damage(f), f.Close()); err != nil {
						t.Fatal(err)
					}
					if !running {
						s = open(t, o)
					}
					if u, err := s.Get(id); err == nil {
						t.Errorf("%s %s, running %v: it is used", name, what, running)
						u.Release()
					}
					if err := s.Await(t.Context(), id); !errors.Is(err, ErrNone) {
						t.Errorf("%s %s, running %v: %v", name, what, running, err)
					}
					mustMake(t, s, id)
					expect(t, s, id).Release()
					s.Remove(id)
					s.Close()
				}
			}
		}
	})
}

func TestSealedSnapshotOpensWithItsKeyOnly(t *testing.T) {
	o := Options{Dir: t.TempDir(), Key: testKey, Logger: slog.New(slog.DiscardHandler)}
	s := open(t, o)
	id := s.ID("x")
	mustMake(t, s, id)
	for _, name := range contents {
		b, err := os.ReadFile(path(t, o.Dir, name))
		if err != nil || bytes.Contains(b, []byte(" of "+id)) {
			t.Errorf("%s is there in clear, %v", name, err)
		}
	}
	s.Close()
	o.Key = bytes.Repeat([]byte("o"), KeySize)
	s = open(t, o)
	if err := s.Await(t.Context(), id); !errors.Is(err, ErrNone) {
		t.Errorf("with another key: %v", err)
	}
}

func TestFilesInUseCannotBeWritten(t *testing.T) {
	forEachKind(t, func(t *testing.T, o Options) {
		s := open(t, o)
		id := s.ID("x")
		mustMake(t, s, id)
		u := expect(t, s, id)
		defer u.Release()
		for _, f := range []*os.File{u.State, u.Memory} {
			if _, err := f.WriteAt([]byte("x"), 0); err == nil {
				t.Error("a file in use was written")
			}
		}
	})
}

func TestSnapshotThatWasNotUsedForLongestMakesRoom(t *testing.T) {
	forEachKind(t, func(t *testing.T, o Options) {
		s := open(t, o)
		ids := []string{s.ID(0), s.ID(1), s.ID(2), s.ID(3)}
		mustMake(t, s, ids[0])
		info, _ := s.Info(ids[0])
		s.opts.MaxBytes = 3*info.Size + 100
		mustMake(t, s, ids[1])
		mustMake(t, s, ids[2])
		expect(t, s, ids[0]).Release()
		kept := expect(t, s, ids[1])
		mustMake(t, s, ids[3]) // 2 goes
		there := func() (n string) {
			for i, id := range ids {
				if _, ok := s.Info(id); ok {
					n += fmt.Sprint(i)
				}
			}
			return n
		}
		if got := there(); got != "013" {
			t.Errorf("%s are there", got)
		}
		if s.used > s.opts.MaxBytes {
			t.Errorf("%d bytes of %d are used", s.used, s.opts.MaxBytes)
		}
		others := []*Use{expect(t, s, ids[0]), expect(t, s, ids[3])}
		if err := makeOne(s, ids[2]); !errors.Is(err, ErrNoRoom) {
			t.Errorf("with all in use: %v", err)
		}
		// A removed one that is in use still takes its room.
		s.Remove(ids[1])
		if err := makeOne(s, ids[2]); !errors.Is(err, ErrNoRoom) {
			t.Errorf("with a removed one in use: %v", err)
		}
		kept.Release()
		mustMake(t, s, ids[2])
		for _, u := range others {
			u.Release()
		}
		if got := there(); got != "023" {
			t.Errorf("%s are there", got)
		}
	})
}

func TestRemovedSnapshotStaysReadableForWhoUsesIt(t *testing.T) {
	forEachKind(t, func(t *testing.T, o Options) {
		s := open(t, o)
		id := s.ID("x")
		mustMake(t, s, id)
		if err := s.Await(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		u, err := s.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		s.Remove(id)
		if err := check(u, id); err != nil {
			t.Error(err)
		}
		u.Release()
		if s.used != 0 || s.held != 0 {
			t.Errorf("%d bytes are used, %d held", s.used, s.held)
		}
	})
}

func TestDecryptedSnapshotsAreBoundedInMemory(t *testing.T) {
	o := Options{Dir: t.TempDir(), Key: testKey, Logger: slog.New(slog.DiscardHandler)}
	s := open(t, o)
	a, b := s.ID("a"), s.ID("b")
	mustMake(t, s, a)
	s.opts.MaxHeld = s.held + 1
	mustMake(t, s, b) // a is given up in memory
	if _, err := s.Get(a); !errors.Is(err, ErrNotReady) {
		t.Errorf("a: %v", err)
	}
	u := expect(t, s, a) // and now b
	if err := s.Await(t.Context(), b); !errors.Is(err, ErrNotReady) {
		t.Errorf("b, with a in use: %v", err)
	}
	u.Release()
	expect(t, s, b).Release()
	if s.held > s.opts.MaxHeld {
		t.Errorf("%d bytes are held", s.held)
	}
}

func TestSnapshotsExpire(t *testing.T) {
	forEachKind(t, func(t *testing.T, o Options) {
		synctest.Test(t, func(t *testing.T) {
			o.TTL = time.Hour
			s := open(t, o)
			id := s.ID("x")
			mustMake(t, s, id)
			for _, c := range []struct {
				after time.Duration
				stale bool
			}{{44 * time.Minute, false}, {2 * time.Minute, true}} {
				time.Sleep(c.after)
				u := expect(t, s, id)
				if u.Stale != c.stale {
					t.Errorf("stale %v, want %v", u.Stale, c.stale)
				}
				u.Release()
			}
			mustMake(t, s, id)
			time.Sleep(40 * time.Minute)
			expect(t, s, id).Release()
			time.Sleep(20 * time.Minute)
			if _, ok := s.Info(id); ok {
				t.Error("it is told though it has expired")
			}
			if _, err := s.Get(id); !errors.Is(err, ErrNone) {
				t.Errorf("expired: %v", err)
			}
			if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
				t.Errorf("%v stays, %v", left, err)
			}
		})
	})
}

func TestConcurrentUseEvictionAndRemoval(t *testing.T) {
	forEachKind(t, func(t *testing.T, o Options) {
		s := open(t, o)
		mustMake(t, s, s.ID(0))
		info, _ := s.Info(s.ID(0))
		s.opts.MaxBytes, s.opts.MaxHeld = 4*info.Size, 3*info.Size
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 40 {
					id := s.ID(rand.IntN(7))
					u, err := s.Get(id)
					switch {
					case err == nil:
						if err := check(u, id); err != nil {
							t.Error(err)
						}
						u.Release()
					case errors.Is(err, ErrNone):
						if err := makeOne(s, id); err != nil && !errors.Is(err, ErrNoRoom) {
							t.Error(err)
						}
					case errors.Is(err, ErrNotReady):
						if err := s.Await(t.Context(), id); err != nil && !errors.Is(err, ErrNone) && !errors.Is(err, ErrNotReady) {
							t.Error(err)
						}
					default:
						t.Error(err)
					}
					if rand.IntN(10) == 0 {
						s.Remove(id)
					}
				}
			})
		}
		wg.Wait()
		if s.used > s.opts.MaxBytes || s.held > s.opts.MaxHeld {
			t.Errorf("%d bytes are used, %d held", s.used, s.held)
		}
	})
}

func TestFullDiskGivesUpTheDraftAlone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	forEachKind(t, func(t *testing.T, o Options) {
		o.Dir = t.TempDir()
		if err := unix.Mount("snapshot-test", o.Dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Skip("mounting a small disk:", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(o.Dir, 0); err != nil {
				t.Error(err)
			}
		})
		o.MaxBytes = 1 << 30
		s := open(t, o)
		if _, err := s.Create(s.ID("large"), nil, 2<<20); !errors.Is(err, ErrNoRoom) {
			t.Errorf("more than there is: %v", err)
		}
		d, err := s.Create(s.ID("larger than told"), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		noise := make([]byte, 2<<20)
		for i := range noise {
			noise[i] = byte(rand.Uint32())
		}
		if _, err = d.Memory.Write(noise); err == nil {
			err = d.Commit(t.Context(), nil)
		} else {
			d.Discard()
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("a full disk: %v", err)
		}
		if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
			t.Errorf("%v stays, %v", left, err)
		}
		id := s.ID("small")
		d, err = s.Create(id, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(t.Context(), nil); err != nil {
			t.Errorf("a small one does not fit: %v", err)
		}
		s.Close()
	})
}

// makeUntilKilled makes snapshots, and prints the id of each once it is there.
func makeUntilKilled(dir string) error {
	o := Options{Dir: dir, Logger: slog.New(slog.DiscardHandler), Base: "b"}
	if strings.HasSuffix(dir, "sealed") {
		o.Key = testKey
	}
	s, err := Open(o)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		id := s.ID(i % 5)
		if err := makeOne(s, id); err != nil {
			return err
		}
		fmt.Println(id)
		if i%3 == 0 {
			s.Remove(s.ID(rand.IntN(5)))
		}
	}
}

func TestKillLeavesWholeSnapshotsOrNone(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 4
	}
	for name, key := range kinds {
		dir := filepath.Join(t.TempDir(), name)
		for range rounds {
			p := killtest.Start(t, dir)
			for range p.Lines() {
				break // it makes some
			}
			time.Sleep(time.Duration(rand.IntN(int(60 * time.Millisecond))))
			p.Kill()
			p.Wait()
			s := open(t, Options{Dir: dir, Key: key, Base: "b", Logger: slog.New(slog.DiscardHandler)})
			list, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) != len(s.entries) {
				t.Errorf("%d directories and %d snapshots", len(list), len(s.entries))
			}
			var ids []string
			for id := range s.entries {
				ids = append(ids, id)
			}
			for _, id := range ids {
				expect(t, s, id).Release()
			}
			s.Close()
		}
	}
}

func FuzzUnseal(f *testing.F) {
	plain, err := memoryBacked("plain")
	if err != nil {
		f.Fatal(err)
	}
	plain.WriteAt([]byte("content"), 3*block)
	var sealed bytes.Buffer
	if err := seal(f.Context(), &sealed, plain, testKey, "x"); err != nil {
		f.Fatal(err)
	}
	f.Add(sealed.Bytes())
	f.Add(sealed.Bytes()[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		to, err := memoryBacked("to")
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		if unseal(t.Context(), to, bytes.NewReader(b), 3*block+7, testKey, "x") == nil && !bytes.HasPrefix(b, sealed.Bytes()) {
			t.Error("what nobody sealed was opened")
		}
	})
}
