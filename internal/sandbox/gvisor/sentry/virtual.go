package sentry

import (
	"fmt"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/proc"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/sys"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// /proc and /sys hold nothing that is not the kernel's, but hundreds of files, each
// of dozens of objects: more than half of all that there is to save and load. So
// they are left out of snapshots, and mounted anew in clones. A file of theirs that
// somebody has open stays, on a mount that has no place any more, as Linux has it.

// productName is what the guest finds in /sys.
const productName = "Lapwing"

var virtualMounts = []struct {
	path, kind string
	options    vfs.MountOptions
}{
	{"/proc", proc.Name, vfs.MountOptions{
		Flags:                vfs.MountFlags{NoSUID: true, NoExec: true},
		GetFilesystemOptions: vfs.GetFilesystemOptions{InternalData: &proc.InternalData{}},
	}},
	{"/sys", sys.Name, vfs.MountOptions{
		ReadOnly: true, Flags: vfs.MountFlags{NoSUID: true, NoExec: true},
		GetFilesystemOptions: vfs.GetFilesystemOptions{InternalData: &sys.InternalData{ProductName: productName}},
	}},
}

// detachVirtual takes /proc and /sys off. The kernel must not run.
func detachVirtual(k *kernel.Kernel) error {
	return eachVirtual(k, func(at *vfs.PathOperation, ctx *kernel.Task, i int) error {
		return k.VFS().UmountAt(ctx.AsyncContext(), rootCredentials(k), at, &vfs.UmountOptions{Flags: unix.MNT_DETACH})
	})
}

// attachVirtual puts them in place again.
func attachVirtual(k *kernel.Kernel) error {
	return eachVirtual(k, func(at *vfs.PathOperation, t *kernel.Task, i int) error {
		m := &virtualMounts[i]
		_, err := k.VFS().MountAt(t.AsyncContext(), rootCredentials(k), m.kind, at, m.kind, &m.options)
		return err
	})
}

func rootCredentials(k *kernel.Kernel) *auth.Credentials {
	return auth.NewRootCredentials(k.RootUserNamespace())
}

// eachVirtual calls f for each place, with the task of process 1.
func eachVirtual(k *kernel.Kernel, f func(at *vfs.PathOperation, t *kernel.Task, i int) error) error {
	t := k.GlobalInit().Leader()
	ctx := k.SupervisorContext()
	root := t.MountNamespace().Root(ctx)
	defer root.DecRef(ctx)
	for i, m := range virtualMounts {
		at := &vfs.PathOperation{Root: root, Start: root, Path: fspath.Parse(m.path)}
		if err := f(at, t, i); err != nil {
			return fmt.Errorf("mount of %s: %w", m.path, err)
		}
	}
	return nil
}
