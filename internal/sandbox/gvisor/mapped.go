package gvisor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// mappedFiles keeps the most memory that one process of the guest had of mapped
// files: its program and libraries. A cgroup cannot tell: these are pages of the
// host's cache, which sandboxes share and which count for whoever was first to
// read them, if for any. Nor can gVisor, which counts whole mappings: 92 MB for
// Node, of which 34 MB are ever in memory.
type mappedFiles struct {
	mu    sync.Mutex
	asked int64 // the peak of other memory at the last look
	most  int64
}

const (
	// mostLooks bounds how many processes are looked at: the first are the runtime.
	mostLooks = 64
	// lookStep is by how much other memory has to rise for another look.
	lookStep = mib
)

// peak returns the most so far in bytes. It looks where the peak of other memory has
// risen: that of a process that comes to use more of its program rarely has not.
func (m *mappedFiles) peak(s *instance, other int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked > 0 && other < m.asked+lookStep {
		return m.most, nil
	}
	m.asked = other
	pids, err := s.group.Processes()
	if err != nil {
		return m.most, err
	}
	for _, pid := range pids[:min(len(pids), mostLooks)] {
		if pid != s.process.Pid { // whose files are gVisor's
			m.most = max(m.most, residentFiles(pid))
		}
	}
	return m.most, nil
}

// residentFiles returns how many bytes of files a process has mapped that are in
// memory; none where it has ended.
func residentFiles(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "\nRssFile:")
	line, _, _ := strings.Cut(after, "\n")
	kB, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(line, "kB")), 10, 64)
	if err != nil { // a process without memory
		return 0
	}
	return kB << 10
}
