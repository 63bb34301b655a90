package network

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace that lives as long as its descriptor.
type namespace struct{ f *os.File }

// hostNamespace returns the namespace of this process.
func hostNamespace() (*namespace, error) {
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	return &namespace{f}, nil
}

// enterNew moves the calling thread, which must be locked, into a new
// namespace, with IPv6 off, and returns it.
func enterNew() (*namespace, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("new network namespace: %w", err)
	}
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	for _, which := range []string{"all", "default"} {
		if err := setSysctl("net/ipv6/conf/"+which+"/disable_ipv6", "1"); err != nil && !os.IsNotExist(err) {
			f.Close()
			return nil, err
		}
	}
	return &namespace{f}, nil
}

// newNamespace returns a new namespace.
func newNamespace() (ns *namespace, err error) {
	onThread(func() { ns, err = enterNew() })
	return ns, err
}

// Path is where the namespace can be opened while it is held.
func (n *namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.f.Fd())
}

func (n *namespace) fd() int { return int(n.f.Fd()) }

// Close lets go of the namespace.
func (n *namespace) Close() { n.f.Close() }

// Do calls f on a thread in the namespace.
func (n *namespace) Do(f func() error) (err error) {
	onThread(func() {
		if err = unix.Setns(n.fd(), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("setns: %w", err)
			return
		}
		err = f()
	})
	return err
}

// netlink returns a netlink handle in the namespace.
func (n *namespace) netlink() (*netlink.Handle, error) {
	return netlink.NewHandleAt(netns.NsHandle(n.fd()), unix.NETLINK_ROUTE)
}

// onThread calls f on a thread of its own, which ends with it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		f()
	}()
	<-done
}

// setSysctl sets a value in the namespace of the calling thread. Keys are
// paths below /proc/sys.
func setSysctl(key, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
}
