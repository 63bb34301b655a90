package sentry

import (
	"encoding/binary"
	"reflect"
	"slices"
	"unsafe"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// All clones of a snapshot do the same until their first event, and touch the same
// memory. Each first touch of a mapping is a fault that gVisor answers: two switches
// between processes for it, and two more for each call of the host that it makes in
// the stub, to map or unmap. Where it is a write it copies what surrounds it, too. So
// the first clone tells what it has touched, its footprint, and in all later ones that is
// in place before their processes go on.
//
// A footprint decides nothing but when memory is mapped or copied: whatever is in it,
// processes find the same.

// footprint is what a clone had touched at some time.
type footprint []touch

// touch is a range of a process's addresses that was read or written to, or a part of
// the snapshot's memory to copy.
type touch struct {
	Process    int32 // see process
	Kind       uint8
	_          [3]byte
	Start, End uint64
}

// Kinds of touches.
const (
	touchRead = iota
	touchWrite
	touchCopy
)

const (
	// mostTouched bounds a footprint.
	mostTouched = 2048
	// copyPart is how much of a mapping an earlier clone must have copied for the
	// whole to be copied ahead, as one part in so many.
	copyPart = 2
)

// copyAhead begins to copy what is to be copied from the memory of a snapshot to the
// same places of a memory file, which may be in the midst of its loading: nobody else
// writes there. wait waits for the end of that, and tells how many bytes it were.
func (f footprint) copyAhead(from *lentMemory, to *pgalloc.MemoryFile) (wait func() (uint64, error)) {
	type result struct {
		bytes uint64
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		// One for all parts: no collector runs meanwhile, and a clone would keep them.
		buf := make([]byte, copyBuffer)
		for i := 0; i < len(f) && r.err == nil; i++ {
			if f[i].Kind == touchCopy {
				var n uint64
				n, r.err = copyData(to.File(), from.fd, f[i].part(), buf)
				r.bytes += n
			}
		}
		done <- r
	}()
	return func() (uint64, error) {
		r := <-done
		return r.bytes, r.err
	}
}

func (t *touch) part() memmap.FileRange { return memmap.FileRange{Start: t.Start, End: t.End} }

// copies tells whether a part is copied ahead.
func (f footprint) copies(part memmap.FileRange) bool {
	return slices.ContainsFunc(f, func(t touch) bool { return t.Kind == touchCopy && t.part().IsSupersetOf(part) })
}

// retrace touches what f has, in a kernel that has not started. What cannot be had any
// more, or was never, is left to the processes.
func (f footprint) retrace(k *kernel.Kernel) {
	for _, p := range processes(k) {
		ctx := p.task.AsyncContext()
		for i := range f {
			t := &f[i]
			if t.Process != int32(p.id) || t.Kind == touchCopy {
				continue
			}
			for _, at := range []hostarch.AccessType{{Write: t.Kind == touchWrite, Read: t.Kind == touchRead}, {Execute: true}} {
				if p.memory.HandleUserFault(ctx, hostarch.Addr(t.Start), at, 0) == nil {
					break
				}
			}
		}
	}
}

// footprintOf returns what the processes of a kernel that runs have touched since it
// was loaded.
func footprintOf(k *kernel.Kernel, lent *lentMemory) (f footprint) {
	copied := make([]hostarch.Addr, len(lent.lent)) // bytes, by lending
	for _, p := range processes(k) {
		note := func(kind uint8, at hostarch.AddrRange) {
			f = append(f, touch{Process: int32(p.id), Kind: kind, Start: uint64(at.Start), End: uint64(at.End)})
		}
		unlock := p.lock()
		err := p.mappings(func(m *platformMapping, at hostarch.AddrRange) error {
			switch {
			case m.file == memmap.File(lent):
				if lent.wasMapped(m.part(at)) {
					note(touchRead, at)
				}
			case m.private:
				for i, l := range lent.lent {
					if both := l.addresses.Intersect(at); l.process == p.id && both.Length() > 0 {
						note(touchWrite, both)
						copied[i] += both.Length()
					}
				}
			default:
				note(touchRead, at)
			}
			return nil
		})
		unlock()
		if err != nil {
			log.Warningf("What was touched is not told: %v", err)
			return nil
		}
	}
	for i, l := range lent.lent {
		if copied[i] > 0 && copied[i] >= l.addresses.Length()/copyPart {
			f = append(f, touch{Kind: touchCopy, Start: l.part.Start, End: l.part.End})
		}
	}
	return f[:min(len(f), mostTouched)]
}

// lock keeps the mappings of a process as they are.
func (p *process) lock() (unlock func()) {
	mu := reflect.ValueOf(p.memory).Elem().FieldByName("activeMu")
	l := reflect.NewAt(mu.Type(), unsafe.Pointer(mu.UnsafeAddr())).Interface().(interface {
		RLock()
		RUnlock()
	})
	l.RLock()
	return l.RUnlock
}

// marshal returns the bytes of a footprint.
func (f footprint) marshal() []byte {
	b, err := binary.Append(nil, binary.LittleEndian, []touch(f))
	if err != nil {
		panic(err) // of a type of fixed size
	}
	return b
}

// unmarshalFootprint undoes marshal, for a snapshot with so many bytes of memory. It
// leaves out what makes no sense: a process that runs guest code has told it.
func unmarshalFootprint(b []byte, size uint64) footprint {
	f := make(footprint, min(len(b)/binary.Size(touch{}), mostTouched))
	if _, err := binary.Decode(b, binary.LittleEndian, []touch(f)); err != nil {
		return nil
	}
	left := size // nothing is copied twice
	return slices.DeleteFunc(f, func(t touch) bool {
		switch {
		case t.Start >= t.End || t.Start%hostarch.PageSize != 0 || t.End%hostarch.PageSize != 0 || t.Kind > touchCopy:
			return true
		case t.Kind != touchCopy:
			return false
		case t.End > size || t.End-t.Start > left:
			return true
		}
		left -= t.End - t.Start
		return false
	})
}
