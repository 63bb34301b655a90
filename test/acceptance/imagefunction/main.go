// Command imagefunction is a function that tells what it finds itself in.
package main

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/aws/aws-lambda-go/lambda"
)

// about is what the function sees.
type about struct {
	Args     []string
	Env      map[string]string
	Dir      string
	UID, GID int
	Root     []string          // names in /
	Writes   map[string]string // what came of writing a file, by its path
	Files    map[string]string // contents
	Links    map[string]string // targets
	Modes    map[string]string
}

// event says what to look at.
type event struct {
	Write, Read []string
}

func main() {
	lambda.Start(func(e event) (about, error) {
		a := about{Args: os.Args, UID: os.Getuid(), GID: os.Getgid(), Env: map[string]string{}, Writes: map[string]string{},
			Files: map[string]string{}, Links: map[string]string{}, Modes: map[string]string{}}
		var err error
		if a.Dir, err = os.Getwd(); err != nil {
			return a, err
		}
		for _, v := range os.Environ() {
			name, value, _ := strings.Cut(v, "=")
			a.Env[name] = value
		}
		entries, err := os.ReadDir("/")
		if err != nil {
			return a, err
		}
		for _, entry := range entries {
			a.Root = append(a.Root, entry.Name())
		}
		for _, path := range e.Write {
			a.Writes[path] = "ok"
			var errno syscall.Errno
			if err := os.WriteFile(path, nil, 0o600); errors.As(err, &errno) {
				a.Writes[path] = errno.Error()
			}
		}
		for _, path := range e.Read {
			if b, err := os.ReadFile(path); err == nil {
				a.Files[path] = string(b)
			}
			if target, err := os.Readlink(path); err == nil {
				a.Links[path] = target
			}
			if fi, err := os.Lstat(path); err == nil {
				a.Modes[path] = fi.Mode().String()
			}
		}
		return a, nil
	})
}
