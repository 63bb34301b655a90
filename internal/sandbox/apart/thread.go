package apart

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Thread calls f on a goroutine and thread of its own, which end with f, so
// that f may change what belongs to a thread, such as its namespaces.
func Thread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f() // the runtime ends a thread whose goroutine ends locked
			return
		}
		// Not so the main thread. Hold on to it while another is found.
		defer runtime.UnlockOSThread()
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			f()
		}()
		<-done
	}()
}
