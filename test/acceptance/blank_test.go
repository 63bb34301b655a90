package acceptance_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// blankSnapshots returns the directories of the snapshots of runtimes alone.
func blankSnapshots(t *testing.T, s *harness.Server) (dirs []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.Data, "snapshots", "[0-9a-f]*", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if b, err := os.ReadFile(path); err == nil && !strings.Contains(string(b), ":function:") {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	return dirs
}

func TestFirstStartsAreMadeFromTheRuntimeAloneWhateverBecomesOfItsSnapshot(t *testing.T) {
	s := startWithRuntimes(t, "--snapshots", "runtimes")
	f := deploySnapshotFunction(t, s, types.RuntimeNodejs22x)
	seen := map[string]bool{}
	check := func(n int) {
		t.Helper()
		for _, a := range f.cold(n) {
			if a.InitType != "on-demand" || a.Own != "value" || a.Count != 1 || seen[a.Random] || seen[a.Stream] || seen[a.Key] {
				t.Errorf("an environment has %+v, or what another had", a)
			}
			seen[a.Random], seen[a.Stream], seen[a.Key] = true, true, true
			log := f.log(a.Stream)
			for word, times := range map[string]int{"INIT_START": 1, "init prints this": 1, "Init Duration": 1, "RESTORE": 0} {
				if strings.Count(log, word) != times {
					t.Errorf("%q is not %d times in the log:\n%s", word, times, log)
				}
			}
		}
	}
	check(4)
	dirs := blankSnapshots(t, s)
	if len(dirs) != 1 {
		t.Fatalf("there are %v", dirs)
	}
	if strings.Contains(s.Log(), "not restored") {
		t.Errorf("log:\n%s", s.Log())
	}
	if err := errors.Join(s.Kill(), s.Restart()); err != nil {
		t.Fatal(err)
	}
	f.reconnect()
	check(2)
	if again := blankSnapshots(t, s); len(again) != 1 || again[0] != dirs[0] {
		t.Errorf("after a crash there are %v, not %v", again, dirs)
	}
	for _, name := range []string{"memory", "state"} {
		dir := blankSnapshots(t, s)[0]
		if err := os.Truncate(filepath.Join(dir, name), 1); err != nil {
			t.Fatal(err)
		}
		check(2)
		waitFor(t, "another snapshot", func() bool {
			f.cold(1)
			again := blankSnapshots(t, s)
			return len(again) == 1 && again[0] != dir
		})
	}
}
