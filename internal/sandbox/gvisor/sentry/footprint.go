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

// touch is a range of addresses of a process whose mapping was used.
type touch struct {
	Process    int32 // see process
	Copied     bool  // of the snapshot's memory, to be written to
	_          [3]byte
	Start, End uint64
}

func (t *touch) addresses() hostarch.AddrRange {
	return hostarch.AddrRange{Start: hostarch.Addr(t.Start), End: hostarch.Addr(t.End)}
}

const (
	// mostTouched bounds a footprint.
	mostTouched = 2048
	// copyPart is how much of a mapping an earlier clone must have copied for the
	// whole to be copied ahead, as one part in so many.
	copyPart = 2
)

// copied tells whether a mapping is to be copied ahead.
func (f footprint) copied(process kernel.ThreadID, at hostarch.AddrRange) bool {
	var n hostarch.Addr
	for i := range f {
		if t := &f[i]; t.Copied && t.Process == int32(process) {
			n += t.addresses().Intersect(at).Length()
		}
	}
	return n >= at.Length()/copyPart
}

// retrace puts what f has in place, in a kernel that has not started. What cannot be
// had any more, or was never, is left to the processes.
func (f footprint) retrace(k *kernel.Kernel) {
	for _, p := range processes(k) {
		ctx := p.task.AsyncContext()
		for i := range f {
			t := &f[i]
			if t.Process != int32(p.id) {
				continue
			}
			for _, at := range []hostarch.AccessType{{Write: t.Copied, Read: !t.Copied}, {Execute: true}} {
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
	for _, p := range processes(k) {
		unlock := p.lock()
		err := p.mappings(func(m *platformMapping, at hostarch.AddrRange) error {
			switch {
			case len(f) >= mostTouched:
			case m.file == memmap.File(lent):
				if lent.wasMapped(m.part(at)) {
					f = append(f, touch{Process: int32(p.id), Start: uint64(at.Start), End: uint64(at.End)})
				}
			case m.private:
				for _, l := range lent.lent {
					if both := l.addresses.Intersect(at); l.process == p.id && both.Length() > 0 {
						f = append(f, touch{Process: int32(p.id), Copied: true, Start: uint64(both.Start), End: uint64(both.End)})
					}
				}
			default:
				f = append(f, touch{Process: int32(p.id), Start: uint64(at.Start), End: uint64(at.End)})
			}
			return nil
		})
		unlock()
		if err != nil {
			log.Warningf("What was touched is not told: %v", err)
			return nil
		}
	}
	return f
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

// unmarshalFootprint undoes marshal. It returns nothing where that cannot be.
func unmarshalFootprint(b []byte) footprint {
	f := make(footprint, min(len(b)/binary.Size(touch{}), mostTouched))
	if _, err := binary.Decode(b, binary.LittleEndian, []touch(f)); err != nil {
		return nil
	}
	return slices.DeleteFunc(f, func(t touch) bool { return t.Start >= t.End })
}
