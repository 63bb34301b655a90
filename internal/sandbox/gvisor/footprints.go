package gvisor

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// footprints is what the first clone of each snapshot has touched of its memory until
// its first event, so that later ones find it in place (see footprint.go of package
// sentry). Nothing depends on it but time, so it is forgotten with the driver.
type footprints struct {
	mu  sync.Mutex
	all map[memoryID][]byte
}

// memoryID tells the memory of one snapshot from that of others.
type memoryID struct {
	dev, inode uint64
	written    unix.Timespec
}

// mostFootprints bounds how many are kept, of some 4 KB each.
const mostFootprints = 1024

func memoryIDOf(f *os.File) (memoryID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return memoryID{}, err
	}
	return memoryID{dev: st.Dev, inode: st.Ino, written: st.Mtim}, nil
}

// of returns the footprint of a snapshot, nil where there is none.
func (f *footprints) of(id memoryID) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all[id]
}

// keep keeps a footprint.
func (f *footprints) keep(id memoryID, footprint []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = make(map[memoryID][]byte)
	}
	for other := range f.all {
		if len(f.all) < mostFootprints {
			break
		}
		delete(f.all, other)
	}
	f.all[id] = footprint
}

// askFootprint asks a clone for its footprint, once, where none is known.
func (s *instance) askFootprint() error {
	if s.from == nil || !s.pioneer {
		return nil
	}
	s.pioneer = false
	return wire.Send(s.control, &wire.Order{Footprint: true}, nil)
}
