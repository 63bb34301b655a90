package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// userlandCommand returns a command that runs the interpreter of a user land on this
// host, by the user land's own loader and libraries.
func userlandCommand(ctx context.Context, s spec, usr string, args ...string) (*exec.Cmd, error) {
	loaders, _ := filepath.Glob(filepath.Join(usr, "lib64", "ld-linux-*.so.*"))
	if len(loaders) == 0 {
		loaders, _ = filepath.Glob(filepath.Join(usr, "lib", "ld-linux-*.so.*"))
	}
	if len(loaders) == 0 {
		return nil, errors.New("the user land has no dynamic loader")
	}
	// The loader is a link to /lib/…, which here would be the host's.
	loader, err := filepath.Glob(filepath.Join(usr, "lib", "*-linux-gnu", filepath.Base(loaders[0])))
	if err != nil || len(loader) == 0 {
		loader = loaders
	}
	args = append([]string{"--library-path", strings.Join(userlandLibraries(usr), ":"), filepath.Join(usr, "bin", s.language.executable(s))}, args...)
	cmd := exec.CommandContext(ctx, loader[0], args...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}, s.language.relocated(s, usr)...)
	return cmd, nil
}

// userlandLibraries returns the directories of a user land's libraries.
func userlandLibraries(usr string) []string {
	dirs, _ := filepath.Glob(filepath.Join(usr, "lib", "*-linux-gnu"))
	return append(dirs, filepath.Join(usr, "lib"))
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// checkUserland makes sure that the user land's interpreter runs, says the
// version that it should, and that every library that it or one of its
// extension modules needs is there.
func checkUserland(s spec, m manifest, dir string) error {
	usr := filepath.Join(dir, "usr")
	prefix := filepath.Join(dir, m.Prefix)
	version, err := s.language.version(s, filepath.Join(prefix, "bin", s.language.executable(s)), func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		cmd, err := userlandCommand(ctx, s, usr, args...)
		if err != nil {
			return "", err
		}
		return output(cmd)
	})
	if err != nil {
		return err
	}
	if version != m.Version {
		return fmt.Errorf("the program says that it is version %s, not %s", version, m.Version)
	}
	dirs := append(userlandLibraries(usr), filepath.Join(prefix, "lib"), filepath.Join(prefix, "lib/server"))
	return filepath.WalkDir(usr, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if filepath.Base(filepath.Dir(path)) != "bin" && !strings.HasSuffix(path, ".so") {
			return nil
		}
		if elfFile, err := isELF(path); err != nil || !elfFile {
			return err
		}
		return checkClosure(path, dirs)
	})
}

func isELF(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	magic := make([]byte, 4)
	n, _ := f.Read(magic) // an empty file is no ELF file
	return string(magic[:n]) == "\x7fELF", nil
}
