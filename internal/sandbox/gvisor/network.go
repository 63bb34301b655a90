package gvisor

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/apart"
	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// packetBuffer is the size of the packet socket's buffers. The defaults drop
// packets at speed.
const packetBuffer = 4 << 20

// openNetwork opens a packet socket on the interface of n and takes the addresses
// off it, so that the host's stack does not answer beside gVisor's.
func openNetwork(n *sandbox.Network) (device *os.File, b *wire.Network, err error) {
	err = inNamespace(n.NamespacePath, func() error {
		device, b, err = openInterface(n)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("network namespace %s: %w", n.NamespacePath, err)
	}
	return device, b, nil
}

func openInterface(n *sandbox.Network) (_ *os.File, _ *wire.Network, err error) {
	link, err := netlink.LinkByName(n.Interface)
	if err != nil {
		return nil, nil, fmt.Errorf("interface %s: %w", n.Interface, err)
	}
	addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, nil, fmt.Errorf("addresses of %s: %w", n.Interface, err)
	}
	for _, a := range addresses {
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, nil, fmt.Errorf("taking %v off %s: %w", a, n.Interface, err)
		}
	}
	// Protocol 0: no packets until it is bound to the interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("packet socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	// Segments larger than the MTU pass between the stacks in one piece.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return nil, nil, fmt.Errorf("packet socket: %w", err)
	}
	for _, option := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, packetBuffer); err != nil {
			return nil, nil, fmt.Errorf("packet socket buffer: %w", err)
		}
	}
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network byte order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}); err != nil {
		return nil, nil, fmt.Errorf("packet socket on %s: %w", n.Interface, err)
	}
	mtu := n.MTU
	if mtu == 0 {
		mtu = link.Attrs().MTU
	}
	return os.NewFile(uintptr(fd), "packet socket"), &wire.Network{
		MAC:        link.Attrs().HardwareAddr,
		MTU:        mtu,
		GSOMaxSize: link.Attrs().GSOMaxSize,
		Address:    n.Address,
		Gateway:    n.Gateway,
	}, nil
}

// inNamespace calls f on a thread in the network namespace at path.
func inNamespace(path string, f func() error) error {
	result := make(chan error, 1)
	apart.Thread(func() {
		result <- func() error {
			ns, err := os.Open(path)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("setns: %w", err)
			}
			return f()
		}()
	})
	return <-result
}
