package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"lapwing.dev/lapwing/internal/deploy/archive"
)

// ignoreFile names what is left out of a package, in the syntax of .dockerignore.
const ignoreFile = ".lapwingignore"

// never lists what no function needs.
var never = []string{"**/.git", "**/.hg", "**/.svn", "**/.aws-sam", "**/.DS_Store", "**/__pycache__", "**/*.pyc", "**/.venv", "**/venv", ignoreFile}

// ignore returns what is left out of a folder.
func ignore(dir string) (archive.Skip, error) {
	patterns := append([]string{}, never...)
	f, err := os.Open(filepath.Join(dir, ignoreFile))
	if err == nil {
		defer f.Close()
		own, err := ignorefile.ReadAll(bufio.NewReader(io.LimitReader(f, 1<<20)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ignoreFile, err)
		}
		patterns = append(patterns, own...)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ignoreFile, err)
	}
	return func(name string, dir bool) (bool, error) {
		matched, err := m.MatchesOrParentMatches(name)
		if err != nil {
			return false, fmt.Errorf("%s: %w", ignoreFile, err)
		}
		// A folder that has exceptions below it is looked into.
		return matched && !(dir && m.Exclusions()), nil
	}, nil
}

// copyTree copies a folder. Links are copied as links.
func copyTree(to, from string, skip archive.Skip) error {
	root, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if rel == "." {
			return os.MkdirAll(to, 0o700)
		}
		if left, err := skip(filepath.ToSlash(rel), d.IsDir()); err != nil || left {
			if err == nil && d.IsDir() {
				err = fs.SkipDir
			}
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case d.Type().IsRegular():
			info, err := d.Info()
			if err != nil {
				return err
			}
			return copyFile(target, path, info.Mode().Perm())
		}
		return fmt.Errorf("%s is neither a file nor a folder: leave it out in %s", strings.TrimPrefix(path, root+"/"), ignoreFile)
	})
}

func copyFile(to, from string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode|0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
