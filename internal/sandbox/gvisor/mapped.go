package gvisor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// mappedFiles keeps the most memory that a guest had together with what its largest
// process has of mapped files: its program and libraries, and in a clone what it has
// not yet written to of the snapshot. A cgroup cannot tell: these are pages of the
// host's cache, which sandboxes share and which count for whoever was first to
// read them, if for any. Nor can gVisor, which counts whole mappings: 92 MB for
// Node, of which 34 MB are ever in memory.
type mappedFiles struct {
	mu    sync.Mutex
	asked int64 // the peak of other memory at the last look
	files int64 // at the last look: a page that a clone writes to is none any more
	most  int64 // with other memory
}

const (
	// mostLooks bounds how many processes are looked at: the first are the runtime.
	mostLooks = 64
	// lookStep is by how much other memory has to rise for another look.
	lookStep = mib
)

// peak returns the most so far in bytes, where other is the peak of other memory. It
// looks where that has risen: that of a process that comes to use more of its program
// rarely has not.
func (m *mappedFiles) peak(s *instance, other int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.asked == 0 || other >= m.asked+lookStep {
		m.asked = other
		err = m.look(s)
	}
	m.most = max(m.most, other+m.files)
	return m.most, err
}

// look sees what the processes have of files now.
func (m *mappedFiles) look(s *instance) error {
	pids, err := s.group.Processes()
	if err != nil {
		return err
	}
	m.files = 0
	for _, pid := range pids[:min(len(pids), mostLooks)] {
		if pid != s.process.Pid { // whose files are gVisor's
			m.files = max(m.files, residentFiles(pid))
		}
	}
	return nil
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
