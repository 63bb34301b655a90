package loops

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pause is how a loop lets others run: the goroutines of this program, those that wait
// for Go's poller among them, and then other threads.
//
// runtime.Gosched would not do. Where all of Go's processors have a loop that never
// sleeps, it goes on with the next goroutine that can run, be it the other loop, and
// looks at the poller only where there is none; what comes on other connections was
// noticed every 10 ms only. So the loop waits for the poller itself, for something
// that it does just then.
type pause struct {
	file *os.File // an eventfd
	raw  syscall.RawConn
}

func newPause() (*pause, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	file := os.NewFile(uintptr(fd), "pause")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("a pause: %w", err)
	}
	return &pause{file, raw}, nil
}

// rest lets others run.
func (p *pause) rest() {
	one, asked := uint64(1), false
	err := p.raw.Read(func(fd uintptr) (done bool) {
		if asked {
			return true
		}
		asked = true
		// Each write is an event of its own, whether the one before it was read or not.
		_, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
		return errno != 0 // there would be nothing to wait for
	})
	if err != nil {
		runtime.Gosched()
	}
	syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
}
