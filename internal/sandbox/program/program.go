// Package program holds the program of sandboxes, lapwing-sandbox, which is
// gVisor's kernel and the guest's supervisor, inside the lapwing binary, so that
// one file is all there is to install. `make build` puts it here, compressed,
// before it builds lapwing.
package program

import (
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// files has the program where it has been built: a plain `go build ./...`
// works without.
//
//go:embed *
var files embed.FS

// ErrNotBuilt reports a lapwing binary, or a test, that was not preceded by make.
var ErrNotBuilt = errors.New("this was built without the program of sandboxes: run `make build` first")

// name is what the program is called.
const name = "lapwing-sandbox"

// Install writes the program into dir, where it is not there already, removes
// those of other builds, and returns its path. Everyone may execute it, if dir
// allows it. Its name there tells its contents, and it has that name only once it
// is whole.
func Install(dir string) (string, error) {
	compressed, err := files.ReadFile(name + ".gz")
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrNotBuilt
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(compressed)
	path := filepath.Join(dir, name+"-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := unpack(path); err != nil {
		return "", fmt.Errorf("installing %s: %w", name, err)
	}
	others, err := filepath.Glob(filepath.Join(dir, name+"-*"))
	if err != nil {
		return "", err
	}
	for _, other := range others {
		if other != path {
			if err := os.Remove(other); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", fmt.Errorf("removing an earlier %s: %w", name, err)
			}
		}
	}
	return path, nil
}

// unpack writes the program to path.
func unpack(path string) error {
	f, err := files.Open(name + ".gz")
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+name+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, z)
	err = errors.Join(err, tmp.Chmod(0o755), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	return err
}
