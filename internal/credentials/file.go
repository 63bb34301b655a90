package credentials

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"regexp"

	"lapwing.dev/lapwing/internal/fsync"
)

// fileName is the file within the directory.
const fileName = "credentials.json"

// fileVersion is the version of the file's format.
const fileVersion = 1

// Root is the root user of the account.
type Root struct {
	AccountID       string `json:"accountId"`
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
}

type file struct {
	Version int `json:"version"`
	Root
	// SealKey is what session tokens are sealed with. Who changes it ends all
	// sessions.
	SealKey []byte `json:"sealKey"`
}

// Read returns the root user's credentials that Open made in a directory. It
// fails with fs.ErrNotExist when there are none.
func Read(dir string) (Root, error) {
	f, err := readFile(filepath.Join(dir, fileName))
	if err != nil {
		return Root{}, fmt.Errorf("credentials: %w", err)
	}
	return f.Root, nil
}

func openFile(dir string) (*file, error) {
	path := filepath.Join(dir, fileName)
	f, err := readFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := writeFile(path, newFile()); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readFile(path) // what we wrote, or who was faster
}

// newFile makes new credentials. The account id has no leading zero: too many
// tools take it for a number.
func newFile() *file {
	n, err := rand.Int(rand.Reader, big.NewInt(9e11))
	if err != nil {
		panic(err) // crypto/rand's reader never fails
	}
	account := fmt.Sprint(n.Int64() + 1e11)
	f := &file{Version: fileVersion, SealKey: make([]byte, 32)}
	rand.Read(f.SealKey)
	f.AccountID = account
	f.AccessKeyID, f.SecretAccessKey = NewAccessKey(account)
	return f
}

var accountIDPattern = regexp.MustCompile(`^\d{12}$`)

func readFile(path string) (*file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others; keep it to its owner with: chmod 600 %s", path, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := new(file)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case f.Version != fileVersion:
		return nil, fmt.Errorf("%s has version %d of its format; this program knows version %d", path, f.Version, fileVersion)
	case !accountIDPattern.MatchString(f.AccountID):
		return nil, fmt.Errorf("%s: the account id %q is not twelve digits", path, f.AccountID)
	case f.AccessKeyID == "" || f.SecretAccessKey == "" || len(f.SealKey) != 32:
		return nil, fmt.Errorf("%s is incomplete", path)
	}
	return f, nil
}

// writeFile creates the file whole and durably, or fails with fs.ErrExist.
func writeFile(path string, f *file) (err error) {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, fileName+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.Write(append(b, '\n'))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return fsync.Dir(dir)
}
