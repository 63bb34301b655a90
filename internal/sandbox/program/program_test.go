package program

import (
	"debug/elf"
	"os"
	"path/filepath"
	"testing"
)

func mustInstall(t *testing.T, dir string) string {
	t.Helper()
	p, err := Install(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestInstalledProgramCanBeExecutedByEveryone(t *testing.T) {
	path := mustInstall(t, t.TempDir())
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o755 {
		t.Errorf("%s has mode %v", path, st.Mode())
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestInstallKeepsItsOwnAndRemovesOtherBuilds(t *testing.T) {
	dir := t.TempDir()
	earlier := filepath.Join(dir, "lapwing-sandbox-0123456789abcdef")
	bystander := filepath.Join(dir, "lock")
	for _, path := range []string{earlier, bystander} {
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := mustInstall(t, dir)
	if _, err := os.Stat(earlier); err == nil {
		t.Error("the program of another build is still there")
	}
	before, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	if again := mustInstall(t, dir); again != p {
		t.Errorf("first %s, then %s", p, again)
	}
	after, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("the program was written again")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("the directory holds %v", entries)
	}
}
