package sentry

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/gomaxprocs"
	"gvisor.dev/gvisor/pkg/memutil"
	"gvisor.dev/gvisor/pkg/rand"
	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/sentry/checkpoint"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/host"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/socket/netstack"
	sentrytime "gvisor.dev/gvisor/pkg/sentry/time"
	"gvisor.dev/gvisor/pkg/sentry/usage"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/sighandling"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/config"

	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// containerName is what gVisor's loader calls the only container of a sandbox, and
// part of the names of what a saved kernel needs from outside.
const containerName = "__no_name_0"

// resource names what a kernel that is loaded needs from outside.
func resource(path string) checkpoint.ResourceID {
	return checkpoint.ResourceID{ContainerName: containerName, Path: path}
}

// resume loads a kernel from a snapshot and lets it run on. It does without gVisor's
// loader, which would first build a kernel, to throw it away.
func (j *job) resume(conf *config.Config) (unix.WaitStatus, error) {
	clocks := sentrytime.NewCalibratedClocks()
	clocks.Update() // the first sample; see settleClocks
	k, ctx, err := j.emptyKernel(conf)
	if err != nil {
		return 0, err
	}
	network, err := j.network(k)
	if err != nil {
		return 0, fmt.Errorf("setting up the network: %w", err)
	}
	if err := j.takeHostConnection(); err != nil {
		return 0, err
	}
	memory, err := openMemory(j.descriptors[j.Memory])
	if err != nil {
		return 0, err
	}
	program, compiled, err := j.systemCalls()
	if err != nil {
		return 0, err
	}
	// The filter comes before anything that a guest has had a part in.
	if err := seccomp.SetFilter(program); err != nil {
		return 0, fmt.Errorf("installing the system call filter: %w", err)
	}
	j.steps.over("resources")
	state, err := readState(j.descriptors[j.State])
	if err != nil {
		return 0, fmt.Errorf("reading the state: %w", err)
	}
	earlier := unmarshalFootprint(j.Footprint, uint64(len(memory.data)))
	copied := earlier.copyAhead(memory, k.MemoryFile())
	if err := k.LoadFrom(ctx, state.kernel, nil, nil, network, clocks, &vfs.CompleteRestoreOptions{}, nil); err != nil {
		return 0, fmt.Errorf("loading the guest kernel: %w", err)
	}
	if err := complete(k, state.registers, network); err != nil {
		return 0, err
	}
	if err := attachVirtual(k); err != nil {
		return 0, err
	}
	if err := j.mountAdded(k); err != nil {
		return 0, err
	}
	j.steps.over("guest kernel")
	if j.copied, err = copied(); err != nil {
		return 0, fmt.Errorf("copying memory: %w", err)
	}
	j.memory = memory
	if err := memory.lend(k, earlier); err != nil {
		return 0, err
	}
	watch := j.watchMemory(k, memory.held)
	earlier.retrace(k)
	j.steps.over("memory")
	if j.Held {
		if err := j.hold(); err != nil {
			return 0, err
		}
	}
	watchStubs(func() { os.Exit(1) })
	watch()
	if err := recoverPlainly(k); err != nil {
		return 0, err
	}
	if err := k.Start(); err != nil {
		return 0, err
	}
	j.steps.over("processes")
	return j.serve(k, compiled, state.guest)
}

// emptyKernel returns a kernel to load into, and a context for that, with all that
// it needs from outside.
func (j *job) emptyKernel(conf *config.Config) (*kernel.Kernel, context.Context, error) {
	// What gVisor's loader does beside building a kernel.
	if err := rand.Init(); err != nil {
		return nil, nil, err
	}
	if err := usage.Init(); err != nil {
		return nil, nil, err
	}
	if err := sighandling.IgnoreChildStop(); err != nil {
		return nil, nil, err
	}
	gomaxprocs.SetBase(j.CPUs)
	usage.MinimumTotalMemoryBytes, usage.MaximumTotalMemoryBytes = j.MemoryBytes, j.MemoryBytes
	tmpfs.SetTotalHostMem(j.HostMemory)

	p, err := newPlatform(conf, j.CPUs)
	if err != nil {
		return nil, nil, err
	}
	k := &kernel.Kernel{Platform: p}
	fd, err := memutil.CreateMemFD("memory", 0)
	if err != nil {
		return nil, nil, err
	}
	memory, err := pgalloc.NewMemoryFile(os.NewFile(uintptr(fd), "memory"), pgalloc.MemoryFileOpts{})
	if err != nil {
		return nil, nil, err
	}
	k.SetMemoryFile(memory)

	files := make(map[checkpoint.ResourceID]int)
	sources, err := j.serveMounts()
	if err != nil {
		return nil, nil, err
	}
	files[resource("/")] = sources[0]
	for i, m := range j.Mounts {
		files[resource(m.Target)] = sources[i+1]
	}
	standard, err := j.standardFiles()
	if err != nil {
		return nil, nil, err
	}
	for number, fd := range standard {
		files[host.MakeResourceID(containerName, number)] = fd
	}
	tmp, err := j.duplicate(wire.Tmp)
	if err != nil {
		return nil, nil, err
	}
	tmpMemory, err := pgalloc.NewMemoryFile(os.NewFile(uintptr(tmp), "tmp"), pgalloc.MemoryFileOpts{
		DiskBackedFile: true, DecommitOnDestroy: true, DisableIMAWorkAround: true, ResourceID: resource("/tmp"),
	})
	if err != nil {
		return nil, nil, err
	}
	return k, context.WithValues(k.SupervisorContext(), map[any]any{
		vfs.CtxRestoreFilesystemFDMap: files,
		pgalloc.CtxMemoryFileMap:      map[checkpoint.ResourceID]*pgalloc.MemoryFile{resource("/tmp"): tmpMemory},
	}), nil
}

// network returns a network stack with the sandbox's interfaces, addresses and
// routes, which the loaded one takes over.
func (j *job) network(k *kernel.Kernel) (*netstack.Stack, error) {
	s := netstack.NewStack(stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		Clock:              tcpip.NewStdClock(),
		HandleLocal:        true,
	}), 0)
	n := &boot.Network{Stack: s.Stack, Kernel: k}
	return s, n.CreateLinksAndRoutes(j.links(), nil)
}
