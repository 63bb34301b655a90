package sentry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/mm"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// gVisor saves memory of processes with the state and reads it back whole. Here it
// is in a file of its own, from which clones map it: a page is in memory once,
// however many clones read it, in memory at all only once one did, and copied by
// the clone that writes to it. gVisor knows such mappings, from fork and from files
// that are mapped privately; only that a kernel is loaded with some it does not
// know. So what it loads, mappings of its memory file in which nothing is any more,
// is pointed to the file here, at the same places: the file is as the memory file
// was, with holes for what is zero or somebody else's.

// platformMapping is gVisor's pma in package mm: what a range of a process's
// addresses is mapped to. Its fields must be as there, which a test checks.
type platformMapping struct {
	file             memmap.File
	off              uint64
	translatePerms   hostarch.AccessType
	effectivePerms   hostarch.AccessType
	maxPerms         hostarch.AccessType
	needCOW          bool
	private          bool
	huge             bool
	internalMappings safemem.BlockSeq
}

// mappings calls f for each mapping of memory that a process has to itself. The
// kernel must not run.
func mappings(k *kernel.Kernel, f func(*platformMapping, memmap.FileRange) error) error {
	for _, p := range processes(k) {
		err := p.mappings(func(m *platformMapping, at hostarch.AddrRange) error {
			if !m.private {
				return nil
			}
			return f(m, m.part(at))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// part returns the part of the file that is mapped at these addresses.
func (m *platformMapping) part(at hostarch.AddrRange) memmap.FileRange {
	return memmap.FileRange{Start: m.off, End: m.off + uint64(at.Length())}
}

// process is a guest process, or several that share their memory.
type process struct {
	id     kernel.ThreadID // the same in all clones
	task   *kernel.Task
	memory *mm.MemoryManager
}

func processes(k *kernel.Kernel) (all []process) {
	seen := make(map[*mm.MemoryManager]bool)
	for _, t := range k.TaskSet().Root.Tasks() {
		m := t.MemoryManager()
		if m == nil || seen[m] {
			continue
		}
		seen[m] = true
		all = append(all, process{k.TaskSet().Root.IDOfThreadGroup(t.ThreadGroup()), t, m})
	}
	return all
}

// mappings calls f for each mapping of a process that does not run, or whose
// mappings are locked.
func (p *process) mappings(f func(*platformMapping, hostarch.AddrRange) error) error {
	return eachMapping(reflect.ValueOf(p.memory).Elem().FieldByName("pmas").FieldByName("root"), f)
}

// eachMapping goes through a node of a set of mappings, which is a B-tree.
func eachMapping(node reflect.Value, f func(*platformMapping, hostarch.AddrRange) error) error {
	n := int(node.FieldByName("nrSegments").Int())
	keys, values := node.FieldByName("keys"), node.FieldByName("values")
	children := node.FieldByName("children")
	inner := node.FieldByName("hasChildren").Bool()
	for i := range n + 1 {
		if inner {
			if err := eachMapping(children.Index(i).Elem(), f); err != nil {
				return err
			}
		}
		if i == n {
			break
		}
		addresses := *(*hostarch.AddrRange)(unsafe.Pointer(keys.Index(i).UnsafeAddr()))
		if err := f((*platformMapping)(unsafe.Pointer(values.Index(i).UnsafeAddr())), addresses); err != nil {
			return err
		}
	}
	return nil
}

// moveMemory writes the private memory of all processes to a file and drops it.
func moveMemory(k *kernel.Kernel, to *os.File) error {
	memory := k.MemoryFile()
	if err := to.Truncate(fileSize(memory.FD())); err != nil {
		return err
	}
	buf := make([]byte, copyBuffer)
	return mappings(k, func(m *platformMapping, part memmap.FileRange) error {
		if m.file != memmap.File(memory) {
			return errors.New("memory that is not in the memory file") // a clone's
		}
		if _, err := copyData(to, memory.FD(), part, buf); err != nil {
			return err
		}
		memory.Decommit(part) // what two processes share is zero the second time
		return nil
	})
}

func fileSize(fd int) int64 {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0
	}
	return st.Size
}

// copyBuffer is what copyData is to be given, of which one does for all parts.
const copyBuffer = 256 << 10

// copyData copies the pages of a part of a file that are not zero, and tells how many
// bytes these are.
func copyData(to *os.File, from int, part memmap.FileRange, buf []byte) (copied uint64, err error) {
	for at := int64(part.Start); at < int64(part.End); {
		data, err := unix.Seek(from, at, unix.SEEK_DATA)
		if err == unix.ENXIO || err == nil && data >= int64(part.End) {
			return copied, nil // zeros to the end
		}
		if err != nil {
			return copied, err
		}
		hole, err := unix.Seek(from, data, unix.SEEK_HOLE)
		if err != nil {
			return copied, err
		}
		end := min(hole, int64(part.End))
		for at = data; at < end; {
			n, err := unix.Pread(from, buf[:min(int64(len(buf)), end-at)], at)
			if err != nil {
				return copied, err
			}
			if n == 0 {
				return copied, io.ErrUnexpectedEOF
			}
			written, err := writePages(to, buf[:n], at)
			if err != nil {
				return copied, err
			}
			copied += written
			at += int64(n)
		}
	}
	return copied, nil
}

var zeroPage [hostarch.PageSize]byte

// writePages writes runs of pages that are not zero, and tells how many bytes these
// are.
func writePages(to *os.File, b []byte, at int64) (written uint64, err error) {
	zero := func(page int) bool { return bytes.Equal(b[page:page+hostarch.PageSize], zeroPage[:]) }
	for start := 0; start < len(b); {
		if zero(start) {
			start += hostarch.PageSize
			continue
		}
		end := start + hostarch.PageSize
		for end < len(b) && !zero(end) {
			end += hostarch.PageSize
		}
		n, err := to.WriteAt(b[start:end], at+int64(start))
		written += uint64(n)
		if err != nil {
			return written, err
		}
		start = end
	}
	return written, nil
}

// lentMemory is the memory of a snapshot, mapped by all its clones and written to by
// none. It implements memmap.File.
type lentMemory struct {
	memmap.DefaultMemoryType
	memmap.NoBufferedIOFallback
	fd   int
	data []byte
	left atomic.Int64 // bytes that nobody has given back
	lent []lending    // where, at first

	mu     sync.Mutex
	mapped []memmap.FileRange // for processes, the first mostTouched
}

// lending is a part of a process's memory that was lent to it.
type lending struct {
	process   kernel.ThreadID
	addresses hostarch.AddrRange
	part      memmap.FileRange
}

func openMemory(fd int) (*lentMemory, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size == 0 {
		return nil, errors.New("the memory of the snapshot is empty")
	}
	data, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping the memory of the snapshot: %w", err)
	}
	l := &lentMemory{fd: fd, data: data}
	l.left.Store(st.Blocks * 512) // not what is zero
	return l, nil
}

// held returns how many bytes of the file the guest still has, at least: where a
// process has forked, what the child gives back is not told from its parent's.
func (l *lentMemory) held() uint64 { return uint64(max(0, l.left.Load())) }

// lend points the private memory of all processes of k to the file, but for what was
// copied ahead.
func (l *lentMemory) lend(k *kernel.Kernel, earlier footprint) error {
	for _, p := range processes(k) {
		err := p.mappings(func(m *platformMapping, at hostarch.AddrRange) error {
			if !m.private {
				return nil
			}
			if m.file != memmap.File(k.MemoryFile()) || m.part(at).End > uint64(len(l.data)) {
				return errors.New("the snapshot has not the memory of its processes")
			}
			if earlier.copies(m.part(at)) {
				l.DecRef(m.part(at))
				return nil
			}
			l.lent = append(l.lent, lending{p.id, at, m.part(at)})
			return l.lendMapping(m, m.part(at), k.MemoryFile())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lendMapping points one mapping to the file, where there is something.
func (l *lentMemory) lendMapping(m *platformMapping, part memmap.FileRange, memory *pgalloc.MemoryFile) error {
	data, err := unix.Seek(l.fd, int64(part.Start), unix.SEEK_DATA)
	if err == unix.ENXIO || err == nil && data >= int64(part.End) {
		return nil // zeros
	}
	if err != nil {
		return err
	}
	// The mapping keeps its place in the memory file. A second reference to
	// that makes gVisor copy, where it would take a private mapping that
	// nobody shares for the process's own.
	memory.IncRef(part, 0)
	m.file = l
	m.needCOW, m.huge = true, false
	m.effectivePerms.Write, m.maxPerms.Write = false, false
	m.internalMappings = safemem.BlockSeq{}
	return nil
}

// IncRef implements memmap.File. The file stays open.
func (l *lentMemory) IncRef(memmap.FileRange, uint32) {}

// DecRef implements memmap.File. It is called for what was unmapped or copied.
func (l *lentMemory) DecRef(part memmap.FileRange) { l.left.Add(-int64(part.Length())) }

// MapInternal implements memmap.File.
func (l *lentMemory) MapInternal(part memmap.FileRange, at hostarch.AccessType) (safemem.BlockSeq, error) {
	if at.Write {
		return safemem.BlockSeq{}, errors.New("writing to the memory of a snapshot")
	}
	return safemem.BlockSeqOf(safemem.BlockFromUnsafeSlice(l.data[part.Start:part.End])), nil
}

// DataFD implements memmap.File. It is called for what is mapped for a process.
func (l *lentMemory) DataFD(part memmap.FileRange) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mapped) < mostTouched {
		l.mapped = append(l.mapped, part)
	}
	return l.fd, nil
}

// wasMapped tells whether a process has looked at a part, or at some of it.
func (l *lentMemory) wasMapped(part memmap.FileRange) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.mapped, part.Overlaps)
}

// FD implements memmap.File.
func (l *lentMemory) FD() int { return l.fd }
