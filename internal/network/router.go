package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox"
)

// uplinkName is the router's interface to the host; sandboxes' interfaces are
// s and a number.
const (
	uplinkName   = "uplink"
	fromSandbox  = "s*"
	defaultMTU   = 1500
	maxConnsEach = 2048 // connections of one sandbox that are tracked at a time
	maxCallsEach = 512  // of these, connections to the endpoint, which serves some thousands
)

// router is the namespace that all sandboxes are connected to.
type router struct {
	ns  *namespace
	mtu int

	mu sync.Mutex // of nl: a handle's requests are answered in turn
	nl *netlink.Handle
}

func newRouter(opts Options) (r *router, err error) {
	r = &router{mtu: defaultMTU}
	defer func() {
		if err != nil {
			r.Close()
			r, err = nil, fmt.Errorf("router: %w", err)
		}
	}()
	if r.ns, err = newNamespace(); err != nil {
		return r, err
	}
	if r.nl, err = r.ns.netlink(); err != nil {
		return r, err
	}
	lo, err := r.nl.LinkByName("lo")
	if err != nil {
		return r, err
	}
	if err = r.nl.AddrAdd(lo, address32(endpointAddr)); err != nil {
		return r, err
	}
	if err = r.nl.LinkSetUp(lo); err != nil {
		return r, err
	}
	if opts.Egress == EgressOn {
		if err = r.ns.Do(func() error { return setSysctl("net/ipv4/ip_forward", "1") }); err != nil {
			return r, err
		}
	}
	return r, r.filter(opts)
}

// filter sets the router's rules, before any interface is there.
func (r *router) filter(opts Options) error {
	conn, err := nftables.New(nftables.WithNetNSFd(r.ns.fd()))
	if err != nil {
		return err
	}
	set := &ruleset{conn: conn, table: conn.AddTable(&nftables.Table{Name: "lapwing", Family: nftables.TableFamilyIPv4})}

	raw := set.chain("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw, nftables.ChainPolicyAccept)
	set.rule(raw, from(fromSandbox), spoofed(), drop())

	in := set.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter, nftables.ChainPolicyDrop)
	set.rule(in, from("lo"), accept())
	set.rule(in, known(), accept())
	here := netip.PrefixFrom(endpointAddr, 32)
	calls, err := set.countPerSource("calls", maxCallsEach)
	if err != nil {
		return err
	}
	set.rule(in, from(fromSandbox), to(here), port(unix.IPPROTO_TCP, EndpointPort), calls, refuse())
	set.rule(in, from(fromSandbox), to(here), port(unix.IPPROTO_TCP, EndpointPort), accept())
	set.rule(in, from(fromSandbox), to(here), port(unix.IPPROTO_UDP, dnsPort), accept())
	set.rule(in, from(fromSandbox), to(here), port(unix.IPPROTO_TCP, dnsPort), accept())
	set.rule(in, from(fromSandbox), refuse())

	forward := set.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter, nftables.ChainPolicyDrop)
	set.rule(forward, known(), accept())
	set.rule(forward, notOut(uplinkName), refuse()) // neighbours
	count, err := set.countPerSource("connections", maxConnsEach)
	if err != nil {
		return err
	}
	set.rule(forward, from(fromSandbox), count, refuse())
	set.open(forward, opts.Allow, from(fromSandbox), refuse())
	set.rule(forward, from(fromSandbox), accept())

	nat := set.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource, nftables.ChainPolicyAccept)
	set.rule(nat, out(uplinkName), masquerade())
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// countPerSource returns a match of new connections of a source that has more
// than n already: one function must not use up the table of all.
func (r *ruleset) countPerSource(name string, n uint32) ([]expr.Any, error) {
	s := &nftables.Set{Table: r.table, Name: name, KeyType: nftables.TypeIPAddr, Dynamic: true, Size: 1 << 16}
	if err := r.conn.AddSet(s, nil); err != nil {
		return nil, err
	}
	const over = 1 // NFT_CONNLIMIT_F_INV
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Dynset{
			SrcRegKey: 1, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_ADD,
			Exprs: []expr.Any{&expr.Connlimit{Count: n, Flags: over}},
		},
	}, nil
}

// attach makes a namespace with an interface that is connected to the router's
// interface of that name. It moves the calling thread there, which must be
// locked. Where the name is taken it returns os.ErrExist.
func (r *router) attach(name string, n sandbox.Network) (_ *namespace, err error) {
	ns, err := enterNew()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			ns.Close() // and the interfaces with it
		}
	}()
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: n.Interface, MTU: n.MTU},
		PeerName:      name,
		PeerNamespace: netlink.NsFd(r.ns.fd()),
	}
	if err := nl.LinkAdd(veth); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil, os.ErrExist
		}
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	if err := setUp(nl, n.Interface, n.Address); err != nil {
		return nil, err
	}
	if err := r.up(name, netip.PrefixFrom(n.Gateway, n.Address.Bits())); err != nil {
		return nil, err
	}
	if err := waitUp(nl, n.Interface); err != nil {
		return nil, err
	}
	lo, err := nl.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	if err := nl.LinkSetUp(lo); err != nil {
		return nil, err
	}
	return ns, nl.RouteAdd(&netlink.Route{Gw: n.Gateway.AsSlice()})
}

// waitUp waits until the kernel has put the interface to use, which it does
// some time after the other end of the veth has come up. Until then it drops
// packets, and the first connection would be late by a second.
func waitUp(nl *netlink.Handle, name string) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		link, err := nl.LinkByName(name)
		if err != nil {
			return err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("interface %s does not come up", name)
		}
	}
}

// up gives the router's interface its address and brings it up.
func (r *router) up(name string, addr netip.Prefix) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return setUp(r.nl, name, addr)
}

func setUp(nl *netlink.Handle, name string, addr netip.Prefix) error {
	link, err := nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	ip := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), 32)}
	if err := nl.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("address %s of %s: %w", addr, name, err)
	}
	if err := nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}

func address32(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}}
}

// Close lets go of the namespace, which ends with its listeners.
func (r *router) Close() {
	if r.nl != nil {
		r.nl.Close()
	}
	if r.ns != nil {
		r.ns.Close()
	}
}
