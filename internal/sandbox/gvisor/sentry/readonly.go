package sentry

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/dev"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// On Lambda, as on Linux, whoever may write nothing because the file system is
// read-only is told so (EROFS). gVisor looks at permissions first and answers
// EACCES or EPERM, which programs take for a mistake in a file's mode. So the
// answer of a call that failed this way is set right afterwards; calls that
// succeed pay nothing.

// pathCall is a system call that may write to a path: which arguments hold the
// path and the directory that it is relative to (-1: the working directory).
type pathCall struct {
	dirfd, path int
	// writes tells whether a call with these arguments writes, given whether the
	// path exists. nil means always.
	writes func(t *kernel.Task, args arch.SyscallArguments, exists bool) bool
}

var pathCalls = map[string]pathCall{
	"open":       {-1, 0, opensForWriting(1)},
	"openat":     {0, 1, opensForWriting(2)},
	"creat":      {-1, 0, nil},
	"mkdir":      {-1, 0, nil},
	"mkdirat":    {0, 1, nil},
	"mknod":      {-1, 0, nil},
	"mknodat":    {0, 1, nil},
	"unlink":     {-1, 0, nil},
	"unlinkat":   {0, 1, nil},
	"rmdir":      {-1, 0, nil},
	"rename":     {-1, 1, nil}, // of the new path: the old one is on the same mount
	"renameat":   {2, 3, nil},
	"renameat2":  {2, 3, nil},
	"link":       {-1, 1, nil},
	"linkat":     {2, 3, nil},
	"symlink":    {-1, 1, nil},
	"symlinkat":  {1, 2, nil},
	"truncate":   {-1, 0, nil},
	"chmod":      {-1, 0, nil},
	"fchmodat":   {0, 1, nil},
	"fchmodat2":  {0, 1, nil},
	"chown":      {-1, 0, nil},
	"lchown":     {-1, 0, nil},
	"fchownat":   {0, 1, nil},
	"utime":      {-1, 0, nil},
	"utimes":     {-1, 0, nil},
	"futimesat":  {0, 1, nil},
	"utimensat":  {0, 1, nil},
	"access":     {-1, 0, asksForWriting(1)},
	"faccessat":  {0, 1, asksForWriting(2)},
	"faccessat2": {0, 1, asksForWriting(2)},
}

// opensForWriting looks at the flags of open, which are in an argument.
func opensForWriting(flags int) func(*kernel.Task, arch.SyscallArguments, bool) bool {
	return func(_ *kernel.Task, args arch.SyscallArguments, exists bool) bool {
		f := args[flags].Uint()
		return f&linux.O_ACCMODE != linux.O_RDONLY || f&linux.O_TRUNC != 0 || f&linux.O_CREAT != 0 && !exists
	}
}

// asksForWriting looks at the mode of access, which is in an argument.
func asksForWriting(mode int) func(*kernel.Task, arch.SyscallArguments, bool) bool {
	return func(_ *kernel.Task, args arch.SyscallArguments, _ bool) bool { return args[mode].Uint()&unix.W_OK != 0 }
}

// tellReadOnly makes system calls answer EROFS where they do on Linux. It must be
// called before the guest runs.
func tellReadOnly() {
	table := syscallTable()
	for number, call := range table.Table {
		c, ok := pathCalls[call.Name]
		if !ok {
			continue
		}
		fn := call.Fn
		call.Fn = func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
			n, control, err := fn(t, sysno, args)
			if err != nil && (linuxerr.Equals(linuxerr.EACCES, err) || linuxerr.Equals(linuxerr.EPERM, err)) && c.readOnly(t, args) {
				err = linuxerr.EROFS
			}
			return n, control, err
		}
		table.Table[number] = call
	}
	table.Init()
}

// syscallTable returns the table that the guest's system calls go by. After a
// change its Init must be called.
func syscallTable() *kernel.SyscallTable {
	table, ok := kernel.LookupSyscallTable(abi.Linux, arch.Host)
	if !ok {
		panic("gVisor has no system call table for this machine")
	}
	return table
}

// readOnly tells whether a call writes to a read-only file system.
func (c *pathCall) readOnly(t *kernel.Task, args arch.SyscallArguments) bool {
	name, err := t.CopyInString(args[c.path].Pointer(), linux.PATH_MAX)
	if err != nil || name == "" {
		return false
	}
	root := t.FSContext().RootDirectory()
	defer root.DecRef(t)
	start := root
	switch {
	case strings.HasPrefix(name, "/"):
	case c.dirfd < 0 || args[c.dirfd].Int() == linux.AT_FDCWD:
		start = t.FSContext().WorkingDirectory()
		defer start.DecRef(t)
	default:
		file := t.GetFile(args[c.dirfd].Int())
		if file == nil {
			return false
		}
		defer file.DecRef(t)
		start = file.VirtualDentry()
	}
	find := func(name string) (vfs.VirtualDentry, error) {
		pop := &vfs.PathOperation{Root: root, Start: start, Path: fspath.Parse(name), FollowFinalSymlink: true}
		return t.Kernel().VFS().GetDentryAt(t, t.Credentials(), pop, &vfs.GetDentryOptions{})
	}
	at, err := find(name)
	exists := err == nil
	if linuxerr.Equals(linuxerr.ENOENT, err) {
		at, err = find(path.Dir(strings.TrimRight(name, "/")))
	}
	if err != nil {
		return false // the call failed on its way there
	}
	defer at.DecRef(t)
	if c.writes != nil && !c.writes(t, args, exists) {
		return false
	}
	// /dev is not mounted read-only, as gVisor would then refuse to open
	// devices for writing, but nothing can be made there.
	return at.Mount().ReadOnly() || !exists && at.Mount().Filesystem().FilesystemType().Name() == dev.Name
}
