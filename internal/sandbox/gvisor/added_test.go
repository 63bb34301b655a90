package gvisor

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"lapwing.dev/lapwing/internal/sandbox"
)

func TestClonesGetImagesThatTheirSnapshotHadOnlyPlacesFor(t *testing.T) {
	d := newDriver(t)
	with := func(text string) func(*sandbox.Spec) {
		return func(s *sandbox.Spec) {
			s.Places = []string{"/var/task"}
			if text == "" {
				return
			}
			s.Added = []sandbox.Mount{
				{Source: imageOf(t, fstest.MapFS{"own": {Data: []byte(text), Mode: 0o644}}), Target: "/var/task", Image: true},
				{Source: imageOf(t, fstest.MapFS{"bin/tool": {Mode: 0o755}}), Target: "/opt", Image: true},
			}
		}
	}
	g := newGuest(t, d, with(""))
	for _, path := range []string{"/var/task", "/opt"} {
		if got := g.must("list", path, 0).Text; got != "" { // and is remembered as empty
			t.Errorf("%s holds %q", path, got)
		}
	}
	snap := takeSnapshot(t, g)
	for _, text := range []string{"one", "another"} {
		c := restore(t, d, snap, with(text))
		if got := c.must("read", "/var/task/own", 0).Text; got != text {
			t.Errorf("a clone reads %q, not %q", got, text)
		}
		if got := c.must("list", "/opt", 0).Text; got != "bin " {
			t.Errorf("/opt holds %q", got)
		}
		if r := c.as(993, "write", "/var/task/new", 1); !strings.Contains(r.Error, "read-only file system") {
			t.Errorf("write: %+v", r)
		}
	}
	if got := restore(t, d, snap, with("")).must("list", "/var/task", 0).Text; got != "" {
		t.Errorf("a clone without images has another's: %q", got)
	}
}

func TestWhatCannotBeAddedIsRefused(t *testing.T) {
	d := newDriver(t)
	image := imageOf(t, fstest.MapFS{"x": {Mode: fs.ModeDir | 0o755}})
	for what, change := range map[string]func(*sandbox.Spec){
		"on no place": func(s *sandbox.Spec) { s.Added = []sandbox.Mount{{Source: image, Target: "/var/task", Image: true}} },
		"no image":    func(s *sandbox.Spec) { s.Added = []sandbox.Mount{{Source: "/usr", Target: "/opt"}} },
		"to a root": func(s *sandbox.Spec) {
			s.Root, s.Added = image, []sandbox.Mount{{Source: image, Target: "/opt", Image: true}}
		},
		"to a new one":  func(s *sandbox.Spec) { s.Added = []sandbox.Mount{{Source: image, Target: "/opt", Image: true}} },
		"a place twice": func(s *sandbox.Spec) { s.Places = []string{"/var/task", "/var/task"} },
	} {
		if s, err := d.Create(t.Context(), testSpec(change)); err == nil {
			t.Errorf("%s: it was made", what)
			s.Destroy(t.Context())
		}
	}
}
