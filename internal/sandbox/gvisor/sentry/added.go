package sentry

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/erofs"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// mountAdded mounts what a clone gets that the sandbox of its snapshot did not have,
// on places that were empty there. The kernel must not run. Such a clone cannot be
// saved: its images have no names by which they would be found again.
func (j *job) mountAdded(k *kernel.Kernel) error {
	if len(j.Added) == 0 {
		return nil
	}
	t := k.GlobalInit().Leader()
	ctx := k.SupervisorContext()
	root := t.MountNamespace().Root(ctx)
	defer root.DecRef(ctx)
	for i, m := range j.Added {
		at := &vfs.PathOperation{Root: root, Start: root, Path: fspath.Parse(m.Target)}
		// The image takes the descriptor over.
		_, err := k.VFS().MountAt(t.AsyncContext(), rootCredentials(k), "", at, erofs.Name, &vfs.MountOptions{
			ReadOnly: true, Flags: vfs.MountFlags{NoSUID: true},
			GetFilesystemOptions: vfs.GetFilesystemOptions{InternalMount: true, Data: fmt.Sprintf("ifd=%d", j.descriptors[j.AddedAt+i])},
		})
		if err != nil {
			return fmt.Errorf("mount of %s: %w", m.Target, err)
		}
	}
	return nil
}
