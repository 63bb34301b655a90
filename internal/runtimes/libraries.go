package runtimes

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// checkLibraries makes sure that the sandbox has every shared library that the
// program at path needs: in the base's /usr or in the program's own prefix.
func (r *Registry) checkLibraries(path, prefix string) error {
	dirs, err := filepath.Glob(filepath.Join(r.base.usr, "lib", "*-linux-gnu"))
	if err != nil {
		return err
	}
	dirs = append(dirs, filepath.Join(r.base.usr, "lib64"), filepath.Join(r.base.usr, "lib"))
	if prefix != "/usr" && prefix != "/usr/local" {
		dirs = append(dirs, filepath.Join(prefix, "lib"))
	}
	return checkClosure(path, dirs)
}

// checkClosure follows the needed libraries of an ELF file through dirs.
func checkClosure(path string, dirs []string) error {
	seen := map[string]bool{}
	todo := []string{path}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		needed, err := neededLibraries(path)
		if err != nil {
			return err
		}
		for _, name := range needed {
			if seen[name] {
				continue
			}
			seen[name] = true
			found := ""
			for _, dir := range dirs {
				if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
					found = filepath.Join(dir, name)
					break
				}
			}
			if found == "" {
				return fmt.Errorf("%s needs %s, which is in none of %s", path, name, strings.Join(dirs, ", "))
			}
			todo = append(todo, found)
		}
	}
	return nil
}

func neededLibraries(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	needed, err := f.ImportedLibraries()
	return needed, errors.Join(err, f.Close())
}
