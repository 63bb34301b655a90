package sentry

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/socket/netstack"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"lapwing.dev/lapwing/internal/guest"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// takeOrders does what the driver asks for while the guest runs: to tell what it has
// touched, or a snapshot, after which the process is of no more use.
func (j *job) takeOrders(k *kernel.Kernel) {
	for {
		order, files, err := wire.Receive()
		switch {
		case err != nil:
			return // the driver is gone, and so is this process in a moment
		case order.Footprint && j.memory != nil:
			j.report(wire.Report{Footprint: footprintOf(k, j.memory).marshal()})
		case order.Save && len(files) == 2:
			j.obey(k, os.NewFile(uintptr(files[0]), "state"), os.NewFile(uintptr(files[1]), "memory"))
			return
		default:
			j.report(wire.Report{Error: "an order that cannot be obeyed"})
			return
		}
	}
}

// obey makes a snapshot and tells of it.
func (j *job) obey(k *kernel.Kernel, state, memory *os.File) {
	err := j.save(k, state, memory)
	var unfit guest.Unfit
	switch {
	case err == nil:
		j.report(wire.Report{Saved: true})
	case errors.As(err, &unfit):
		j.report(wire.Report{Unfit: unfit.Error()})
	default:
		log.Warningf("No snapshot: %v", err)
		j.report(wire.Report{Error: err.Error()})
		os.Exit(1)
	}
}

// save stops the kernel for good and writes it to two files: the memory of
// processes to one, which clones map, everything else to the other.
func (j *job) save(k *kernel.Kernel, state, memory *os.File) error {
	k.Pause()
	k.ReceiveTaskStates()
	if err := checkConnections(k); err != nil {
		return err
	}
	var kept []byte
	if j.guest != nil {
		var err error
		if kept, err = j.guest.Park(); err != nil {
			return err
		}
	}
	if err := moveMemory(k, memory); err != nil {
		return fmt.Errorf("writing the memory: %w", err)
	}
	return saveKernel(k, state, kept)
}

// saveKernel writes a kernel that is paused to a file, after what is kept of the guest.
func saveKernel(k *kernel.Kernel, state *os.File, kept []byte) error {
	if err := detachVirtual(k); err != nil {
		return err
	}
	w := &stateWriter{bufio.NewWriterSize(state, 1<<20), state}
	for _, b := range [][]byte{kept, strip(k)} {
		if err := w.part(b); err != nil {
			return fmt.Errorf("writing the state: %w", err)
		}
	}
	// It closes w.
	if err := k.SaveTo(k.SupervisorContext(), w, nil, nil, true, false); err != nil {
		return fmt.Errorf("saving the guest kernel: %w", err)
	}
	return nil
}

// checkConnections refuses a kernel with connections to the outside: the other end
// would have to be copied too.
func checkConnections(k *kernel.Kernel) error {
	s, ok := k.RootNetworkNamespace().Stack().(*netstack.Stack)
	if !ok {
		return nil
	}
	for _, e := range s.Stack.RegisteredEndpoints() {
		endpoint, ok := e.(*tcp.Endpoint)
		if !ok {
			continue
		}
		switch endpoint.EndpointState() {
		case tcp.StateInitial, tcp.StateBound, tcp.StateListen, tcp.StateClose, tcp.StateError, tcp.StateTimeWait:
			continue
		}
		id := endpoint.Info().(*stack.TransportEndpointInfo).ID
		if to := id.RemoteAddress; !header.IsV4LoopbackAddress(to) && to != header.IPv6Loopback && to != id.LocalAddress {
			return guest.Unfit(fmt.Sprintf("its initialisation left a connection open, to %s:%d", to, id.RemotePort))
		}
	}
	return nil
}
