package cgroup

import (
	"os"
	"path/filepath"
	"sync"

	"lapwing.dev/lapwing/internal/quiet"
)

// heldFile is a control file that is read again and again while a function is
// invoked. So it stays open, which leaves one of four system calls: the kernel makes
// its content anew for each read.
type heldFile struct {
	mu   sync.Mutex
	file *os.File // once it has been read
}

// read reads the file called name in dir into b, which has room for all of it.
func (h *heldFile) read(dir, name string, b []byte) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		h.file = f
	}
	n, err := quiet.ReadAt(h.file, b, 0)
	return b[:n], err
}

// readInt is read of a file that holds one number.
func (h *heldFile) readInt(dir, name string) (int64, error) {
	var buf [32]byte
	b, err := h.read(dir, name, buf[:])
	if err != nil {
		return 0, err
	}
	return parseInt(b, name)
}

// close closes it. It is not read any more.
func (h *heldFile) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file != nil {
		h.file.Close()
	}
}
