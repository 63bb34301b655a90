package sentry

import (
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"unsafe"

	"gvisor.dev/gvisor/pkg/atomicbitops"
	"gvisor.dev/gvisor/pkg/sentry/arch/fpu"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/socket/netstack"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// gVisor saves and loads each byte of an array as an object of its own. What is long
// is kept beside the kernel, or left out where a new kernel has as good.

// strip takes these things out of a kernel, which is of no more use then, and
// returns the floating point registers of its tasks: those of one after the other,
// after its id and their length.
func strip(k *kernel.Kernel) (registers []byte) {
	tasks := k.TaskSet().Root
	for _, t := range tasks.Tasks() {
		if t.Arch() == nil {
			continue // it has ended
		}
		s := t.Arch().FloatingPointData()
		registers = binary.BigEndian.AppendUint32(registers, uint32(tasks.IDOfTask(t)))
		registers = binary.BigEndian.AppendUint32(registers, uint32(len(*s)))
		registers = append(registers, *s...)
		*s = make(fpu.State, registersMark)
	}
	if s, ok := k.RootNetworkNamespace().Stack().(*netstack.Stack); ok {
		*packetIDs(s) = nil
	}
	return registers
}

// registersMark is how many bytes of a task's registers gVisor takes for a mark at
// their end, and looks for when it loads them.
const registersMark = 4

// complete gives a kernel that was loaded what strip has taken out of it. fresh is
// a new network stack.
func complete(k *kernel.Kernel, registers []byte, fresh *netstack.Stack) error {
	if s, ok := k.RootNetworkNamespace().Stack().(*netstack.Stack); ok {
		*packetIDs(s) = *packetIDs(fresh)
	}
	for len(registers) > 0 {
		if len(registers) < 8 {
			return errRegisters
		}
		id, n := binary.BigEndian.Uint32(registers), binary.BigEndian.Uint32(registers[4:])
		t := k.TaskSet().Root.TaskWithID(kernel.ThreadID(id))
		if t == nil || n < registersMark || uint64(n) > uint64(len(registers)-8) {
			return errRegisters
		}
		s := t.Arch().FloatingPointData()
		*s = slices.Clone(fpu.State(registers[8 : 8+n]))
		// On amd64 this checks and aligns them; arm64 does without.
		if l, ok := any(s).(interface{ AfterLoad() }); ok {
			l.AfterLoad()
		}
		registers = registers[8+n:]
	}
	return nil
}

var errRegisters = errors.New("the registers of the snapshot are not those of its tasks")

// packetIDs returns where a stack has the identifiers of IPv4 packets, by routes:
// 2,048 random numbers, with which it counts on.
func packetIDs(s *netstack.Stack) *[]atomicbitops.Uint32 {
	ids := reflect.ValueOf(s.Stack.NetworkProtocolInstance(ipv4.ProtocolNumber)).Elem().FieldByName("ids")
	return (*[]atomicbitops.Uint32)(unsafe.Pointer(ids.UnsafeAddr()))
}
