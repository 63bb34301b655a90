package sentry

import (
	"net"
	"net/netip"
	"os"

	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/config"
)

// links describes the interfaces and routes of a sandbox to gVisor's loader:
// loopback, and eth0 if there is a network.
func (j *job) links() *boot.CreateLinksAndRoutesArgs {
	args := &boot.CreateLinksAndRoutesArgs{LoopbackLinks: []boot.LoopbackLink{boot.DefaultLoopbackLink}}
	n := j.Network
	if n == nil {
		return args
	}
	const name = "eth0"
	subnet := n.Address.Masked()
	args.FilePayload = urpc.FilePayload{Files: []*os.File{os.NewFile(uintptr(j.descriptors[n.Device]), "packet socket")}}
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
