// Package fsync makes names durable: a file that was made, renamed or removed is so
// after a loss of power once its directory was synced. Whatever keeps files below
// the data directory uses it.
package fsync

import (
	"errors"
	"os"
)

// Dir syncs a directory, or a file.
func Dir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
