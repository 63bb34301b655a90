package cgroup

import (
	"path/filepath"
	"slices"
	"strings"
)

// hierarchy is one mounted cgroup hierarchy.
type hierarchy struct {
	mount string // where it is mounted
	own   string // the directory of this process's own cgroup, below mount
}

type layout struct {
	v1 map[string]hierarchy // by controller
	v2 hierarchy
}

// findLayout reads which hierarchies are mounted where, and this process's place
// in them, from the texts of /proc/self/mountinfo and /proc/self/cgroup.
func findLayout(mountinfo, own string) layout {
	l := layout{v1: make(map[string]hierarchy)}
	paths := make(map[string]string) // controller, or "" for version 2 -> path
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 {
			for c := range strings.SplitSeq(f[1], ",") {
				paths[c] = f[2]
			}
		}
	}
	for line := range strings.Lines(mountinfo) {
		// ID parent major:minor root mountpoint options [optional...] - type source super-options
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		root, mount := f[3], f[4]
		at := func(path string) hierarchy {
			// In a container the mount may show only a part of the tree, and
			// paths may lie outside of it.
			rel, err := filepath.Rel(root, path)
			if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
				rel = "."
			}
			return hierarchy{mount, filepath.Join(mount, rel)}
		}
		switch g[0] {
		case "cgroup2":
			if l.v2.mount == "" {
				l.v2 = at(paths[""])
			}
		case "cgroup":
			for o := range strings.SplitSeq(g[2], ",") {
				if _, seen := l.v1[o]; !seen && slices.Contains(wanted, o) {
					l.v1[o] = at(paths[o])
				}
			}
		}
	}
	return l
}
