// Package program holds the programs that every sandbox consists of, inside the
// lapwing binary, so that one file is all there is to install: lapwing-init,
// which is process 1 in a sandbox, and lapwing-sandbox, which is gVisor's kernel
// around it. `make build` puts them here, compressed, before it builds lapwing.
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

// files has the programs where they have been built: a plain `go build ./...`
// works without.
//
//go:embed *
var files embed.FS

// ErrNotBuilt reports a lapwing binary, or a test, that was not preceded by make.
var ErrNotBuilt = errors.New("this was built without the programs of sandboxes: run `make build` first")

// Programs are the paths of installed programs.
type Programs struct{ Init, Sandbox string }

// Install writes the programs into dir, where they are not there already, and
// removes those of other builds. Everyone may execute them, if dir allows it.
func Install(dir string) (p Programs, err error) {
	if p.Init, err = install(dir, "lapwing-init"); err != nil {
		return Programs{}, err
	}
	p.Sandbox, err = install(dir, "lapwing-sandbox")
	return p, err
}

// install writes one program. Its name there tells its contents, and it has that
// name only once it is whole.
func install(dir, name string) (string, error) {
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
	if err := unpack(path, name); err != nil {
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

// unpack writes the program called name to path.
func unpack(path, name string) error {
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
