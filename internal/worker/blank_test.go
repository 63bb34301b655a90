package worker

import (
	"context"
	"errors"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/function"
)

// blankable is a version whose runtime can boot before it is known for what.
func blankable(name string) *function.Version {
	v := node()
	v.Name, v.Runtime, v.Code = name, "nodejs20.x", "/code/"+name
	return v
}

// blanks waits until no snapshot is being made, and returns how many there are of
// runtimes alone.
func (r *rig) blanks() (n int) {
	r.t.Helper()
	waitFor(r.t, func() bool {
		r.snapshots.mu.Lock()
		defer r.snapshots.mu.Unlock()
		n = 0
		for key, t := range r.snapshots.tracks {
			if t.building != nil {
				return false
			}
			if _, there := r.store.Info(t.id); there && key.initType == "blank" {
				n++
			}
		}
		return true
	})
	return n
}

func TestFirstStartOfAnotherVersionIsMadeFromTheRuntimeAlone(t *testing.T) {
	r := newRig(t)
	fresh, first := r.run(blankable("a"))
	if n := r.blanks(); n != 1 {
		t.Fatalf("%d snapshots of runtimes alone\n%s", n, r.own)
	}
	v := blankable("b")
	v.Env = map[string]string{"OWN": "value", "NODE_ENV": "production"}
	if st := r.Status(v); st.Ready || !st.Runtime {
		t.Errorf("status: %+v", st)
	}
	clone, second := r.run(v)
	if _, restores := r.driver.counts(); restores != 1 {
		t.Errorf("%d sandboxes were restored", restores)
	}
	if clone["OWN"] != "value" || clone["AWS_LAMBDA_FUNCTION_NAME"] != "b" || clone["AWS_LAMBDA_INITIALIZATION_TYPE"] != "on-demand" || clone["AWS_ACCESS_KEY_ID"] == fresh["AWS_ACCESS_KEY_ID"] {
		t.Errorf("variables: %v", clone)
	}
	for what, log := range map[string]string{"fresh": first, "from the runtime's": second} {
		if strings.Count(log, "INIT_START") != 1 || strings.Count(log, "hello from init\n") != 1 || !strings.Contains(log, "Init Duration: ") || strings.Contains(log, "after restore") {
			t.Errorf("log, %s:\n%s", what, log)
		}
	}
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	for _, spec := range r.driver.made {
		if len(spec.Places) > 0 && len(spec.Added) > 0 {
			t.Errorf("the runtime alone has something of a function: %+v", spec)
		}
	}
	spec := r.driver.restored[0]
	if len(spec.Added) != 1 || spec.Added[0].Source != "/code/b" || spec.Places[0] != spec.Added[0].Target {
		t.Errorf("restored as %+v", spec)
	}
}

func TestWhatStartsFreshAllTheSame(t *testing.T) {
	for what, change := range map[string]func(v *function.Version){
		"another size of memory":            func(v *function.Version) { v.MemoryMB = 256 },
		"another size of /tmp":              func(v *function.Version) { v.EphemeralMB = 1024 },
		"another runtime":                   func(v *function.Version) { v.Runtime = "nodejs22.x" },
		"a variable that Node.js reads":     func(v *function.Version) { v.Env = map[string]string{"NODE_OPTIONS": "--no-warnings"} },
		"a variable that the linker reads":  func(v *function.Version) { v.Env = map[string]string{"LD_PRELOAD": "x"} },
		"a wrapper script":                  func(v *function.Version) { v.Env = map[string]string{"AWS_LAMBDA_EXEC_WRAPPER": "/opt/w"} },
		"snapshots that the owner wants no": func(v *function.Version) { v.SnapshotsOff = true },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.run(blankable("a"))
			if n := r.blanks(); n != 1 {
				t.Fatalf("%d snapshots of runtimes alone", n)
			}
			v := blankable("b")
			change(v)
			if st := r.Status(v); st.Runtime {
				t.Errorf("status: %+v", st)
			}
			r.run(v)
			if _, restores := r.driver.counts(); restores != 0 {
				t.Errorf("%d sandboxes were restored", restores)
			}
		})
	}
}

func TestSameCallStartsFreshWhereTheRuntimesSnapshotFails(t *testing.T) {
	r := newRig(t)
	r.driver.restore = func(context.Context, int) error { return errors.New("it is damaged") }
	r.run(blankable("a"))
	if n := r.blanks(); n != 1 {
		t.Fatalf("%d snapshots of runtimes alone", n)
	}
	for n, name := range []string{"b", "c", "d"} {
		_, log := r.run(blankable(name))
		if strings.Count(log, "hello from init\n") != 1 {
			t.Errorf("log:\n%s", log)
		}
		if there := r.blanks(); (there == 1) != (n < maxFailures-1) {
			t.Errorf("after %d failures there are %d", n+1, there)
		}
	}
	if n := strings.Count(r.own.String(), "an environment was not restored"); n != 1 {
		t.Errorf("it was logged %d times:\n%s", n, r.own)
	}
}

func TestStartsWaitForTheRuntimesSnapshotWhereTheyAreToldTo(t *testing.T) {
	r := newRig(t, func(o *Options) { o.BlanksFirst = true })
	v := blankable("a")
	r.run(v)
	r.run(v)
	if creates, restores := r.driver.counts(); creates != 1 || restores != 2 {
		t.Errorf("%d sandboxes were created and %d restored", creates, restores)
	}
}
