package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	reader "github.com/erofs/go-erofs"

	"lapwing.dev/lapwing/internal/image/erofs"
	"lapwing.dev/lapwing/internal/sandbox/apart"
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
// joined. It stays whole when one of them is removed.
//
// The given images must exist. Merge of one image does nothing.
func (s *Store) Merge(ctx context.Context, digests []string) error {
	if len(digests) < 2 {
		return nil
	}
	return s.buildWhole(ctx, MergedDigest(digests), func(w *erofs.Writer) (err error) {
		m := merge{}
		for _, d := range slices.Backward(digests) {
			tree, done, err := s.open(d)
			if err != nil {
				return fmt.Errorf("image: merge: %w", err)
			}
			defer done()
			if err := m.add(ctx, tree); err != nil {
				return fmt.Errorf("image: merge: %w", err)
			}
		}
		return m.write(ctx, w)
	})
}

// open opens what is in an image.
func (s *Store) open(digest string) (tree fs.FS, done func(), err error) {
	f, err := apart.Open(s.Path(digest))
	if err != nil {
		return nil, nil, err
	}
	if tree, err = reader.Open(f); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return tree, func() { f.Close() }, nil
}

// merge is what a merged image will consist of: for each path, the tree that it
// comes from, and what it is there. The parent of every path is a directory.
type merge map[string]merged

type merged struct {
	tree fs.FS
	info fs.FileInfo
}

// add lays a tree under what is there, which hides what it covers.
func (m merge) add(ctx context.Context, tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || path == "." {
			return err
		}
		over, covered := m[path]
		switch {
		case covered && d.IsDir() && !over.info.IsDir():
			return fs.SkipDir
		case covered:
			return nil
		}
		info, err := d.Info()
		m[path] = merged{tree, info}
		return err
	})
}

// write adds everything to an image.
func (m merge) write(ctx context.Context, w *erofs.Writer) error {
	for _, path := range slices.Sorted(maps.Keys(m)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.Add(m[path].tree, path, m[path].info); err != nil {
			return fmt.Errorf("image: merge: %w", err)
		}
	}
	return nil
}
