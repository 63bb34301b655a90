package gvisor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// makeRoot returns the directory below dir that is the root of sandboxes with
// these mounts, places and symlinks: empty but for symlinks and mount points. It is
// made once for each distinct set of them and never changes.
func makeRoot(dir string, mounts []wire.Mount, places []string, symlinks []sandbox.Symlink) (string, error) {
	mounts = slices.Clone(mounts)
	for _, p := range places {
		mounts = append(mounts, wire.Mount{Target: p})
	}
	key, err := json.Marshal(struct {
		Mounts   []wire.Mount
		Symlinks []sandbox.Symlink
	}{mounts, symlinks})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(key)
	root := filepath.Join(dir, hex.EncodeToString(sum[:16]))
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	building, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(building)
	if err := fillRoot(building, mounts, symlinks); err != nil {
		return "", fmt.Errorf("making the root directory: %w", err)
	}
	// Another Create may have been faster.
	if err := os.Rename(building, root); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("making the root directory: %w", err)
	}
	return root, nil
}

func fillRoot(root string, mounts []wire.Mount, symlinks []sandbox.Symlink) error {
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	// Symlinks come last: with paths that make no sense together, such as a
	// mount point below a symlink, this fails and cannot reach out of root.
	// /opt is there without a mount too: programs list it.
	for _, p := range append([]string{"/opt"}, sandbox.RootDirs...) {
		if err := os.Mkdir(filepath.Join(root, p), 0o755); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		path := filepath.Join(root, m.Target)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if m.File {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
		} else if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	for _, l := range symlinks {
		path := filepath.Join(root, l.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(l.Dest, path); err != nil {
			return err
		}
	}
	return nil
}
