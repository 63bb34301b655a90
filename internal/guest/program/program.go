// Package program holds the guest program, the built cmd/lapwing-init, inside
// the lapwing binary: `make build` puts it here before it builds lapwing, so
// that one file is all there is to install.
package program

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// files has the program under the name below, where it has been built: a plain
// `go build ./...` works without.
//
//go:embed *
var files embed.FS

const name = "lapwing-init"

// ErrNotBuilt reports a lapwing binary that was not built by make.
var ErrNotBuilt = errors.New("this lapwing was built without its guest program: build it with `make build`")

// Install writes the program into dir, unless it is there already, and returns
// its path.
func Install(dir string) (string, error) {
	b, err := files.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrNotBuilt
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	path := filepath.Join(dir, name+"-"+hex.EncodeToString(sum[:8]))
	if old, err := os.ReadFile(path); err == nil && sha256.Sum256(old) == sum {
		return path, nil
	}
	tmp, err := os.CreateTemp(dir, name+"-*.tmp")
	if err != nil {
		return "", fmt.Errorf("install guest program: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Chmod(0o755), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("install guest program: %w", err)
	}
	return path, nil
}
