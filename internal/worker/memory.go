package worker

import "lapwing.dev/lapwing/internal/sandbox"

// HostMemory is the memory of this host. It implements invoke.Memory.
type HostMemory struct{}

// Available implements invoke.Memory.
func (HostMemory) Available() (int64, error) {
	n, err := sandbox.MemInfo("MemAvailable")
	return int64(n), err
}
