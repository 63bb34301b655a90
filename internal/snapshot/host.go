package snapshot

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Host describes what a snapshot depends on of this host: a program finds out what
// its processor can do when it starts, and a clone goes on with that.
func Host() (string, error) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("snapshot: %w", err)
	}
	defer f.Close()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("snapshot: %w", err)
	}
	parts := []string{unix.ByteSliceToString(u.Machine[:]), unix.ByteSliceToString(u.Release[:])}
	seen := make(map[string]bool)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, _, _ := strings.Cut(lines.Text(), ":")
		switch name = strings.TrimSpace(name); name {
		case "vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU implementer", "CPU part":
			if !seen[name] { // of one processor
				seen[name] = true
				parts = append(parts, lines.Text())
			}
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("snapshot: /proc/cpuinfo: %w", err)
	}
	return strings.Join(parts, "\n"), nil
}
