package gvisor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/config"

	"lapwing.dev/lapwing/internal/sandbox"
)

// bootNetwork is the network of a sandbox as its process is told. gVisor's own
// network stack speaks to the interface through a packet socket that the driver
// opened in the namespace, so the process itself is never in there.
type bootNetwork struct {
	Device     int // descriptor of the packet socket
	MAC        net.HardwareAddr
	MTU        int
	GSOMaxSize uint32
	Address    netip.Prefix
	Gateway    netip.Addr
}

// packetBuffer is the size of the packet socket's buffers. The defaults drop
// packets at speed.
const packetBuffer = 4 << 20

// openNetwork opens a packet socket on the interface of n and takes the addresses
// off it, so that the host's stack does not answer beside gVisor's.
func openNetwork(n *sandbox.Network) (device *os.File, b *bootNetwork, err error) {
	err = inNamespace(n.NamespacePath, func() error {
		device, b, err = openInterface(n)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("network namespace %s: %w", n.NamespacePath, err)
	}
	return device, b, nil
}

func openInterface(n *sandbox.Network) (_ *os.File, _ *bootNetwork, err error) {
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
	return os.NewFile(uintptr(fd), "packet socket"), &bootNetwork{
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
	onOwnThread(func() {
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

// links describes the interfaces and routes of a sandbox to gVisor's loader:
// loopback, and eth0 if there is a network.
func (n *bootNetwork) links() *boot.CreateLinksAndRoutesArgs {
	args := &boot.CreateLinksAndRoutesArgs{LoopbackLinks: []boot.LoopbackLink{boot.DefaultLoopbackLink}}
	if n == nil {
		return args
	}
	const name = "eth0"
	subnet := n.Address.Masked()
	args.FilePayload = urpc.FilePayload{Files: []*os.File{os.NewFile(uintptr(n.Device), "packet socket")}}
	args.FDBasedLinks = []boot.FDBasedLink{{
		Name:              name,
		MTU:               n.MTU,
		Addresses:         []boot.IPWithPrefix{{Address: n.Address.Addr().AsSlice(), PrefixLen: n.Address.Bits()}},
		Routes:            []boot.Route{{Destination: ipNet(subnet)}},
		GSOMaxSize:        n.GSOMaxSize,
		RXChecksumOffload: true,
		LinkAddress:       n.MAC,
		QDisc:             config.QDiscFIFO,
		NumChannels:       1,
	}}
	if n.Gateway.IsValid() {
		everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if n.Gateway.Is6() {
			everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		route := boot.DefaultRoute{Name: name, Route: boot.Route{Destination: ipNet(everywhere), Gateway: n.Gateway.AsSlice()}}
		if n.Gateway.Is6() {
			args.Defaultv6Gateway = route
		} else {
			args.Defaultv4Gateway = route
		}
	}
	return args
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
