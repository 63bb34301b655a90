package worker

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"lapwing.dev/lapwing/internal/sandbox"
)

// HostMemory is the memory of this host. It implements invoke.Memory.
type HostMemory struct{}

// Available implements invoke.Memory.
func (HostMemory) Available() (int64, error) {
	n, err := sandbox.MemInfo("MemAvailable")
	return int64(n), err
}

// HostProcessors tells how busy the host's processors are. It implements
// invoke.Processors.
type HostProcessors struct{}

// Demand implements invoke.Processors.
func (HostProcessors) Demand() (int, error) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	// proc_loadavg(5): the fourth field is the number of threads that run or could,
	// a slash, and the number of all there are.
	f := bytes.Fields(b)
	if len(f) < 4 {
		return 0, fmt.Errorf("/proc/loadavg: %q", b)
	}
	n, _, _ := bytes.Cut(f[3], []byte{'/'})
	return strconv.Atoi(string(n))
}
