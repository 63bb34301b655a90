package cache

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/killtest"
)

func TestMain(m *testing.M) { killtest.Main(m, workUntilKilled) }

// workUntilKilled stores, refreshes and reads objects of all sizes.
func workUntilKilled(dir string) error {
	s, err := Open(Options{Dir: dir, Memory: 4 << 20, Disk: 64 << 20})
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		n := []int{10, 5000, 200_000, 3 << 20}[i%4]
		name := fmt.Sprintf("%d-%d", i, n)
		f, leader := s.Fill(key(name), 0)
		if !leader {
			return fmt.Errorf("%s is there", name)
		}
		f.Begin(head("/" + name))
		for body := bodyOf(name, n); len(body) > 0; {
			piece := min(50_000, len(body))
			if _, err := f.Write(body[:piece]); err != nil {
				return err
			}
			body = body[piece:]
		}
		if err := f.Commit(); err != nil {
			return err
		}
		f.Leave()
		if o, ok := s.Get(key(name)); ok {
			refresh(s, key(name), o, *o.Head).Release()
			o.Release()
		}
		fmt.Println(name)
	}
}

func TestKillLeavesWholeObjectsOrNone(t *testing.T) {
	for range 8 {
		dir := t.TempDir()
		p := killtest.Start(t, dir)
		var names []string
		end := time.Now().Add(time.Duration(50+rand.IntN(150)) * time.Millisecond)
		for name := range p.Lines() {
			if names = append(names, name); time.Now().After(end) {
				p.Kill()
			}
		}
		s := openOnDisk(t, Options{Dir: dir, Disk: 64 << 20})
		found := 0
		for _, name := range names {
			o, ok := s.Get(key(name))
			if !ok {
				continue
			}
			_, size, _ := strings.Cut(name, "-")
			n, err := strconv.Atoi(size)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(o.Body(t.Context(), 0, -1))
			if err != nil || !bytes.Equal(got, bodyOf(name, n)) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			o.Release()
			found++
		}
		// What waits for a writer is lost, and what was being refreshed may be.
		if lost := len(names) - found; lost > maxWaiting+10 || found == 0 && len(names) > 100 {
			t.Errorf("%d of %d objects are lost", lost, len(names))
		}
		if left := files(t, filepath.Join(dir, "tmp")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		s.Close()
	}
}
