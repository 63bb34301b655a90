package worker

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"

	"lapwing.dev/lapwing/internal/quiet"
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
// invoke.Processors; the zero value is ready for use.
type HostProcessors struct {
	once sync.Once
	file *os.File
	err  error
}

// Demand implements invoke.Processors.
func (p *HostProcessors) Demand() (int, error) {
	// It is asked hundreds of times a second.
	p.once.Do(func() { p.file, p.err = os.Open("/proc/loadavg") })
	if p.err != nil {
		return 0, p.err
	}
	var b [128]byte
	n, err := quiet.ReadAt(p.file, b[:], 0)
	if err != nil {
		return 0, err
	}
	// proc_loadavg(5): the fourth field is the number of threads that run or could,
	// a slash, and the number of all there are.
	f := bytes.Fields(b[:n])
	if len(f) < 4 {
		return 0, fmt.Errorf("/proc/loadavg: %q", b[:n])
	}
	threads, _, _ := bytes.Cut(f[3], []byte{'/'})
	return strconv.Atoi(string(threads))
}
