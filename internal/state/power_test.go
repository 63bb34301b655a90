package state

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPowerLossLosesNothingAcknowledged runs a store on a file system of its
// own, in a file by way of a loop device. What the kernel has not been told to
// sync is not in that file; so a copy of it, taken while the store runs, is
// what a machine would find after its power failed.
func TestPowerLossLosesNothingAcknowledged(t *testing.T) {
	if testing.Short() {
		t.Skip("makes and mounts file systems")
	}
	disk := newDisk(t, 512<<20)
	root := mount(t, disk)
	// Round 2 writes enough to fill several of JetStream's block files.
	for round, value := range []int{10, 2_000, 50_000} {
		dir := filepath.Join(root, fmt.Sprint(round))
		s := open(t, dir)
		c := collect(t, s)
		want, digests := writeAndDelete(t, s, c, strings.Repeat("x", value))

		lost := filepath.Join(t.TempDir(), "disk")
		if out, err := exec.Command("cp", "--sparse=always", disk, lost).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		after := open(t, filepath.Join(mount(t, lost), fmt.Sprint(round)))
		records := collect(t, after)
		if records.Len() != len(want) {
			t.Errorf("round %d: %d records of %d are there", round, records.Len(), len(want))
		}
		for key, count := range want {
			if item, ok := records.Get(key); !ok || item.Value.Count != count {
				t.Errorf("round %d: %s has count %d (there: %v), acknowledged was %d", round, key, item.Value.Count, ok, count)
			}
		}
		for _, d := range digests {
			if err := after.Blobs().Verify(d); err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := after.Close(); err != nil {
			t.Error(err)
		}
	}
}

// writeAndDelete makes 200 writes and some blobs, and returns what is to be
// there afterwards.
func writeAndDelete(t *testing.T, s *Store, c *Collection[record], value string) (want map[string]int, digests []Digest) {
	t.Helper()
	want = map[string]int{}
	for i := range 200 {
		key := fmt.Sprint(i * i % 53)
		item, err := c.Put(t.Context(), key, record{Count: i, Name: value})
		if err != nil {
			t.Fatal(err)
		}
		want[key] = i
		if i%7 != 0 {
			continue
		}
		if err := c.Delete(t.Context(), key, item.Revision); err != nil {
			t.Fatal(err)
		}
		delete(want, key)
		d, _, err := s.Blobs().Put(t.Context(), strings.NewReader(fmt.Sprint(i, value)))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d)
	}
	return want, digests
}

// newDisk makes a file with an empty file system.
func newDisk(t *testing.T, size int64) string {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", disk).CombinedOutput(); err != nil {
		t.Skipf("cannot make a file system: %v: %s", err, out)
	}
	return disk
}

// mount mounts a file system for the time of the test.
func mount(t *testing.T, disk string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", disk, dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

func TestAFullDiskFailsWritesAndKeepsWhatWasAcknowledged(t *testing.T) {
	if testing.Short() {
		t.Skip("makes and mounts file systems")
	}
	root := mount(t, newDisk(t, 64<<20))
	s := open(t, root)
	c := collect(t, s)
	want := map[string]int{}
	value := strings.Repeat("x", 100_000)
	var full error
	for i := range 2000 {
		key := fmt.Sprint(i)
		if _, full = c.Put(t.Context(), key, record{Count: i, Name: value}); full != nil {
			break
		}
		want[key] = i
	}
	if full == nil {
		t.Fatal("the disk never became full")
	}
	t.Logf("after %d writes: %v", len(want), full)
	if _, _, err := s.Blobs().Put(t.Context(), strings.NewReader(strings.Repeat("y", 80<<20))); err == nil {
		t.Error("a blob fitted on the full disk")
	}
	for key := range want {
		if _, ok := c.Get(key); !ok {
			t.Errorf("%s cannot be read while the disk is full", key)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	// The disk grows, or somebody makes room; here: a larger file system.
	roomy := t.TempDir()
	if err := os.CopyFS(roomy, os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	after := collect(t, open(t, roomy))
	for key, count := range want {
		if item, ok := after.Get(key); !ok || item.Value.Count != count {
			t.Errorf("%s is lost", key)
		}
	}
	if _, err := after.Put(t.Context(), "new", record{}); err != nil {
		t.Error(err)
	}
}
