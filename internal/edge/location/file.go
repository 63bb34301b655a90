package location

import (
	"errors"
	"os"
	"path/filepath"

	"lapwing.dev/lapwing/internal/fsync"
)

// replaceFile writes a file that only its owner reads, so that after a crash it is
// there whole, or as it was before.
func replaceFile(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return fsync.Dir(filepath.Dir(path))
}
