package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MergedDigest names the image that Merge makes of the given ones: of one, that
// image itself; of none, the empty string.
func MergedDigest(digests []string) string {
	if len(digests) < 2 {
		return strings.Join(digests, "")
	}
	sum := sha256.Sum256([]byte("lapwing merged image 1\n" + strings.Join(digests, "\n")))
	return hex.EncodeToString(sum[:])
}

// Merge makes the image in which the given ones lie over each other, or finds
// it: of entries of the same path the later image's counts, and directories are
// joined. Its files are hard links to those of the images, so that it costs no
// room; it stays whole when one of them is removed.
//
// The given images must exist. Merge of one image does nothing.
func (s *Store) Merge(ctx context.Context, digests []string) error {
	digest := MergedDigest(digests)
	unlock, err := s.locks.lock(ctx, digest)
	if err != nil {
		return err
	}
	defer unlock()
	if len(digests) < 2 || s.Has(digest) {
		return nil
	}
	m := merge{}
	for _, d := range slices.Backward(digests) {
		if err := m.add(ctx, s.Dir(d)); err != nil {
			return fmt.Errorf("image: merge: %w", err)
		}
	}
	return s.make(s.Dir(digest), func(root string) error { return m.write(ctx, root) })
}

// merge is what a merged image will consist of: for each path, relative to its
// root, the host's file to link there, or nothing for a directory. The parent
// of every path is a directory, so that writing never goes through a symbolic
// link.
type merge map[string]string

// add lays the image in dir under what is there, which hides what it covers.
func (m merge) add(ctx context.Context, dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || name == dir {
			return err
		}
		path := strings.TrimPrefix(name, dir+"/")
		over, covered := m[path]
		switch {
		case !covered && d.IsDir():
			m[path] = ""
		case !covered:
			m[path] = name
		case over != "" && d.IsDir():
			return fs.SkipDir
		}
		return nil
	})
}

// write makes the merged image in root, an empty directory that nobody else
// knows, and brings it to disk.
func (m merge) write(ctx context.Context, root string) error {
	dirs := []string{root}
	for _, path := range slices.Sorted(maps.Keys(m)) { // parents come before children
		if err := ctx.Err(); err != nil {
			return err
		}
		to := filepath.Join(root, path)
		if m[path] == "" {
			if err := os.Mkdir(to, 0o755); err != nil {
				return fmt.Errorf("image: merge: %w", err)
			}
			dirs = append(dirs, to)
		} else if err := os.Link(m[path], to); err != nil { // of a symbolic link itself
			return fmt.Errorf("image: merge: %w", err)
		}
	}
	return syncAll(root, dirs)
}

// maxFsync is up to how many files are synced one by one. Beyond it one syncfs
// is cheaper, although it also brings to disk what others have written: a
// package can have thousands of files, and a flush of the device for each would
// take minutes on a slow disk.
const maxFsync = 64

// syncAll brings the given files and directories, all those of a new image, to
// disk.
func syncAll(root string, names []string) error {
	if len(names) > maxFsync {
		names = nil
		if err := syncPath(root, func(d *os.File) error { return unix.Syncfs(int(d.Fd())) }); err != nil {
			return fmt.Errorf("image: sync: %w", err)
		}
	}
	for _, name := range names {
		if err := syncPath(name, (*os.File).Sync); err != nil {
			return fmt.Errorf("image: sync: %w", err)
		}
	}
	return nil
}
