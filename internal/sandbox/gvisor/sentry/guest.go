package sentry

import (
	"net"
	"reflect"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/runsc/boot"

	"lapwing.dev/lapwing/internal/guest"
)

// serveGuest runs a guest in this process until it ends, and returns its exit
// status as if it had been process 1. saved, where it is not empty, is what Park
// returned in the snapshot that the kernel comes from.
func serveGuest(g *guest.Supervisor, conn *hostConn, saved []byte) unix.WaitStatus {
	serve := g.Run
	if len(saved) > 0 {
		serve = func(conn net.Conn) error { return g.Resume(conn, saved) }
	}
	if err := serve(conn); err != nil {
		log.Warningf("The guest ended: %v", err)
		return failed
	}
	return 0
}

// failed is the wait status of a process that exits with status 1.
const failed unix.WaitStatus = 1 << 8

// kernelOf returns the kernel of a loader, which keeps it to itself.
func kernelOf(l *boot.Loader) *kernel.Kernel {
	field := reflect.ValueOf(l).Elem().FieldByName("k")
	return *(**kernel.Kernel)(unsafe.Pointer(field.UnsafeAddr()))
}
