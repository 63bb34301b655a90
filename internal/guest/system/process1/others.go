package process1

import (
	"os"
	"strconv"
)

// OthersRun implements system.System.
func (l *Linux) OthersRun() bool {
	entries, err := os.ReadDir("/proc")
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		pid, notOne := strconv.Atoi(e.Name())
		if _, ours := l.procs[pid]; notOne == nil && pid != os.Getpid() && !ours {
			return true
		}
	}
	return err != nil
}
