// Package archive makes zip packages of code. The same files make the same bytes,
// on any machine at any time, so that a package's hash tells whether code changed.
package archive

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// epoch is the time of every file in a package: the earliest that zip has.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// Package is a zip file of code.
type Package struct {
	// Path is where the zip file lies.
	Path string
	// SHA256 is its hash in base64, Lambda's CodeSha256.
	SHA256 string
	// Size is in bytes.
	Size int64
}

// MarshalJSON writes the hash alone: it is what a package is.
func (p Package) MarshalJSON() ([]byte, error) { return json.Marshal("sha256:" + p.SHA256) }

// Skip tells whether a file or folder, by its path with slashes, is left out.
type Skip func(name string, dir bool) (bool, error)

// Folder packs a folder into the new file at target. Symbolic links stay links
// where they point into the folder, and are refused where they do not.
func Folder(target, dir string, skip Skip) (Package, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Package{}, err
	}
	var names []string
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		name, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if skip != nil {
			if left, err := skip(name, d.IsDir()); err != nil || left {
				if err == nil && d.IsDir() {
					err = fs.SkipDir
				}
				return err
			}
		}
		if !d.IsDir() {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return Package{}, err
	}
	return write(target, func(z *zip.Writer) error {
		slices.Sort(names)
		for _, name := range names {
			if err := add(z, root, name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
}

// Text packs one file with a text into the new file at target.
func Text(target, name, text string) (Package, error) {
	return write(target, func(z *zip.Writer) error {
		w, err := z.CreateHeader(header(name, 0o644))
		if err != nil {
			return err
		}
		_, err = io.WriteString(w, text)
		return err
	})
}

// Existing is a zip file or jar that is there already.
func Existing(path string) (Package, error) {
	f, err := os.Open(path)
	if err != nil {
		return Package{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return Package{Path: path, SHA256: base64.StdEncoding.EncodeToString(h.Sum(nil)), Size: n}, err
}

func write(target string, fill func(*zip.Writer) error) (_ Package, err error) {
	f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return Package{}, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	z := zip.NewWriter(f)
	if err := fill(z); err != nil {
		return Package{}, err
	}
	if err := z.Close(); err != nil {
		return Package{}, err
	}
	if err := f.Close(); err != nil {
		return Package{}, err
	}
	return Existing(target)
}

// header describes a file. Permissions are what matters of a mode: whether it can
// be executed.
func header(name string, mode fs.FileMode) *zip.FileHeader {
	h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: epoch}
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	h.SetMode(mode.Type() | perm)
	return h
}

func add(z *zip.Writer, root, name string) error {
	file := filepath.Join(root, filepath.FromSlash(name))
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		link, err := os.Readlink(file)
		if err != nil {
			return err
		}
		link = filepath.ToSlash(link)
		if to := path.Join(path.Dir(name), link); path.IsAbs(link) || to == ".." || strings.HasPrefix(to, "../") {
			return fmt.Errorf("the symbolic link points out of the folder, to %s: copy what it points to, or leave it out in .lapwingignore", link)
		}
		w, err := z.CreateHeader(header(name, fs.ModeSymlink))
		if err != nil {
			return err
		}
		_, err = io.WriteString(w, link)
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("neither a file nor a folder: leave it out in .lapwingignore")
	}
	w, err := z.CreateHeader(header(name, info.Mode()))
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
