package sandbox

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// MemInfo reads a value of the host's /proc/meminfo, such as MemAvailable, in
// bytes.
func MemInfo(key string) (uint64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == key+":" {
			n, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/meminfo: %w", err)
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("/proc/meminfo: no %s", key)
}
