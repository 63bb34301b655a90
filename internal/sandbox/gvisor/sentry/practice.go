package sentry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/cpuid"
	"gvisor.dev/gvisor/pkg/sentry/checkpoint"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/state"

	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// A process that loads a kernel for the first time takes twice as long as for the
// second: its code and heap come into its memory page by page, and each type is
// looked at by reflection. So a prepared sandbox practises with the kernel of the
// driver's first sandbox, of which nothing is anybody's, and throws it away.

// teach saves a kernel for others to practise with. It is of no more use then.
func teach(k *kernel.Kernel, to int) error {
	k.Pause()
	k.ReceiveTaskStates()
	// Without the memory of processes, which would come last.
	err := mappings(k, func(_ *platformMapping, part memmap.FileRange) error {
		k.MemoryFile().Decommit(part)
		return nil
	})
	if err != nil {
		return err
	}
	return saveKernel(k, os.NewFile(uintptr(to), "practice"), nil)
}

// practise loads what teach has saved, if there is something. The kernel never comes
// to life: gVisor reads all objects before it lets any of them act, and here the last
// ones are missing.
func practise() error {
	defer unix.Close(wire.Practice)
	saved, err := readState(wire.Practice)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // an empty file: somebody waits
	}
	if err != nil {
		return err
	}
	b, err := io.ReadAll(saved.kernel)
	if err != nil {
		return err
	}
	err = loadPart(b[:len(b)/4*3]) // the rest has more than the last objects
	runtime.GC()                   // the heap stays for the real load
	return err
}

// loadPart loads a kernel that is incomplete.
func loadPart(b []byte) error {
	k := &kernel.Kernel{}
	ctx := context.WithValues(k.SupervisorContext(), map[any]any{
		vfs.CtxRestoreFilesystemFDMap: map[checkpoint.ResourceID]int{},
		pgalloc.CtxMemoryFileMap:      map[checkpoint.ResourceID]*pgalloc.MemoryFile{resource("/tmp"): new(pgalloc.MemoryFile)},
	})
	from := bytes.NewReader(b)
	var features cpuid.FeatureSet
	_, err := state.Load(ctx, from, &features)
	if err == nil {
		_, err = state.Load(ctx, from, k)
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("an incomplete kernel was loaded: %w", err)
	}
	return nil
}
