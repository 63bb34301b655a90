package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// linkPrefix and tablePrefix begin the names of what is on the host; the
	// id of the data directory follows.
	linkPrefix  = "lapw-"
	tablePrefix = "lapwing-"

	// forwardingFile lists the interfaces whose forwarding a Lapwing on this
	// machine switched on, so that the last one to close switches it off.
	forwardingFile = "/run/lapwing/forwarding"
)

// uplinks are the addresses that the link between host and router takes, the
// first two of which nothing on the host uses.
var uplinks = netip.MustParsePrefix("100.127.254.0/23")

// host is what the pool has on the host:
//   - one end of a veth, lapw-<id>, with an address of its own;
//   - an nftables table, lapwing-<id>, which refuses what comes from the veth to
//     the host or private networks, and translates the rest;
//   - forwarding, switched on for the veth, and for the interfaces of default
//     routes where it was off. Their forwarding to interfaces other than the
//     veth stays closed by the table.
type host struct {
	id     string
	ns     *namespace
	nl     *netlink.Handle
	link   string
	opened []string // interfaces whose forwarding was switched on
	log    *slog.Logger
	own    bool // ns is to be closed
}

func newHost(opts Options, r *router) (h *host, err error) {
	h = &host{id: opts.id(), ns: opts.hostNS, log: opts.Logger}
	h.link = linkPrefix + h.id
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
			h = nil
		}
	}()
	if h.ns == nil {
		if h.ns, err = hostNamespace(); err != nil {
			return h, err
		}
		h.own = true
	}
	if h.nl, err = h.ns.netlink(); err != nil {
		return h, err
	}
	if err = h.sweep(); err != nil {
		return h, err
	}
	ours, theirs, err := h.freeAddresses()
	if err != nil {
		return h, err
	}
	defaults, err := h.defaultLinks()
	if err != nil {
		return h, err
	}
	for _, l := range defaults {
		r.mtu = min(r.mtu, l.Attrs().MTU)
	}
	// The rules first: nothing passes before they are there.
	closing, err := h.forward(defaults)
	if err != nil {
		return h, err
	}
	if err = h.filter(opts, theirs.Addr(), closing); err != nil {
		return h, err
	}
	return h, h.connect(r, ours, theirs)
}

// sweep removes what an earlier process left for the same directory.
func (h *host) sweep() error {
	if link, err := h.nl.LinkByName(h.link); err == nil {
		if err := h.nl.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("left-over interface %s: %w", h.link, err)
		}
	}
	conn, err := nftables.New(nftables.WithNetNSFd(h.ns.fd()))
	if err != nil {
		return err
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, t := range tables {
		if t.Name == tablePrefix+h.id {
			conn.DelTable(t)
			if err := conn.Flush(); err != nil {
				return fmt.Errorf("left-over table %s: %w", t.Name, err)
			}
		}
	}
	return nil
}

// freeAddresses returns two addresses for the link that no route or address of
// the host covers.
func (h *host) freeAddresses() (ours, theirs netip.Prefix, err error) {
	var used []netip.Prefix
	addrs, err := h.nl.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return ours, theirs, err
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet.IP, a.IPNet.Mask); ok {
			used = append(used, p)
		}
	}
	routes, err := h.nl.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return ours, theirs, err
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p, ok := prefixOf(r.Dst.IP, r.Dst.Mask); ok && p.Bits() > 0 {
			used = append(used, p)
		}
	}
	for n := 0; n < 1<<(32-uplinks.Bits()); n += 2 {
		a := netip.PrefixFrom(addrAt(uplinks, n), 31)
		if !slices.ContainsFunc(used, a.Overlaps) {
			return a, netip.PrefixFrom(a.Addr().Next(), 31), nil
		}
	}
	return ours, theirs, fmt.Errorf("every address of %s is in use on this host", uplinks)
}

func prefixOf(ip, mask []byte) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(ip)
	ones := 0
	for _, b := range mask {
		for ; b&0x80 != 0; b <<= 1 {
			ones++
		}
	}
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

// defaultLinks returns the interfaces of the host's IPv4 default routes.
func (h *host) defaultLinks() ([]netlink.Link, error) {
	routes, err := h.nl.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	var links []netlink.Link
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones > 0 {
				continue
			}
		}
		indexes := []int{r.LinkIndex}
		for _, hop := range r.MultiPath {
			indexes = append(indexes, hop.LinkIndex)
		}
		for _, i := range indexes {
			if i == 0 {
				continue
			}
			link, err := h.nl.LinkByIndex(i)
			if err != nil {
				return nil, err
			}
			links = append(links, link)
		}
	}
	if len(links) == 0 {
		h.log.Warn("the host has no default route: functions reach only what its other routes lead to")
	}
	return links, nil
}

// forward switches forwarding on for the interfaces of default routes, where
// it is off; answers to functions come in by them. It returns the interfaces
// between which nothing may be forwarded because of that: those that are there
// now. (Whoever adds one later and wants forwarding will have said so.)
func (h *host) forward(defaults []netlink.Link) (closing []string, err error) {
	for _, l := range defaults {
		name := l.Attrs().Name
		changed, err := h.switchForwarding(name)
		if err != nil {
			return nil, err
		}
		if changed {
			h.opened = append(h.opened, name)
		}
	}
	if err := h.record(); err != nil {
		return nil, err
	}
	if len(h.opened) == 0 {
		return nil, nil
	}
	links, err := h.nl.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if name := l.Attrs().Name; name != "lo" && name != h.link && !strings.HasPrefix(name, linkPrefix) {
			closing = append(closing, name)
		}
	}
	return closing, nil
}

// switchForwarding switches IPv4 forwarding of one interface on and tells
// whether it was off, or on by the hand of another Lapwing.
func (h *host) switchForwarding(name string) (changed bool, err error) {
	err = h.ns.Do(func() error {
		key := forwardingKey(name)
		old, err := os.ReadFile(filepath.Join("/proc/sys", key))
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(old)) == "1" {
			return nil
		}
		changed = true
		return setSysctl(key, "1")
	})
	if err != nil {
		err = fmt.Errorf("forwarding of %s: %w", name, err)
	}
	return changed, err
}

func forwardingKey(name string) string { return "net/ipv4/conf/" + name + "/forwarding" }

// filter sets the host's rules.
func (h *host) filter(opts Options, guest netip.Addr, closing []string) error {
	conn, err := nftables.New(nftables.WithNetNSFd(h.ns.fd()))
	if err != nil {
		return err
	}
	set := &ruleset{conn: conn, table: conn.AddTable(&nftables.Table{Name: tablePrefix + h.id, Family: nftables.TableFamilyIPv4})}
	early := nftables.ChainPriority(*nftables.ChainPriorityFilter - 10)

	in := set.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, early, nftables.ChainPolicyAccept)
	set.rule(in, from(h.link), refuse())

	// After translation by rules of others a destination may be a container:
	// the private networks are looked at again here.
	forward := set.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, early, nftables.ChainPolicyAccept)
	set.rule(forward, out(h.link), known(), accept())
	set.rule(forward, out(h.link), drop())
	set.rule(forward, from(h.link), known(), accept())
	set.open(forward, opts.Allow, from(h.link), refuse())
	for _, a := range h.opened {
		for _, b := range closing {
			set.rule(forward, from(a), out(b), drop())
		}
	}

	nat := set.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource, nftables.ChainPolicyAccept)
	set.rule(nat, by(netip.PrefixFrom(guest, 32)), masquerade())
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	h.warnOfOthers(conn)
	return nil
}

// warnOfOthers tells of a firewall that drops forwarded packets by default: no
// rule of ours can overrule it.
func (h *host) warnOfOthers(conn *nftables.Conn) {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		h.log.Warn("the host's other firewall rules are unknown", "error", err)
	}
	for _, c := range chains {
		if c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			h.log.Warn("a firewall of this host drops forwarded packets by default: let it accept those from and to the interface, or functions have no internet access",
				"table", c.Table.Name, "chain", c.Name, "interface", h.link)
		}
	}
}

// connect joins the router to the host.
func (h *host) connect(r *router, ours, theirs netip.Prefix) error {
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: h.link, MTU: r.mtu},
		PeerName:      uplinkName,
		PeerNamespace: netlink.NsFd(r.ns.fd()),
	}
	if err := h.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("interface %s: %w", h.link, err)
	}
	err := h.ns.Do(func() error {
		if err := setSysctl("net/ipv6/conf/"+h.link+"/disable_ipv6", "1"); err != nil && !os.IsNotExist(err) {
			return err
		}
		return setSysctl(forwardingKey(h.link), "1")
	})
	if err != nil {
		return err
	}
	if err := setUp(h.nl, h.link, ours); err != nil {
		return err
	}
	if err := r.up(uplinkName, theirs); err != nil {
		return err
	}
	if err := waitUp(h.nl, h.link); err != nil {
		return err
	}
	return r.nl.RouteAdd(&netlink.Route{Gw: ours.Addr().AsSlice()})
}

// Close removes everything from the host.
func (h *host) Close() error {
	var errs []error
	if h.nl != nil {
		errs = append(errs, h.sweep(), h.restore())
		h.nl.Close()
	}
	if h.ns != nil && h.own {
		h.ns.Close()
	}
	return errors.Join(errs...)
}

// record adds the interfaces that were switched on to those that Lapwings on
// this machine have, and takes over what the list holds: an earlier process may
// have been killed.
func (h *host) record() error {
	return h.locked(func(list []string) []string {
		for _, name := range h.opened {
			if !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
		h.opened = slices.Clone(list)
		return list
	})
}

// restore switches forwarding off again where a Lapwing switched it on, if this
// is the last one.
func (h *host) restore() error {
	conn, err := nftables.New(nftables.WithNetNSFd(h.ns.fd()))
	if err != nil {
		return err
	}
	return h.locked(func(list []string) []string {
		tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
		if err != nil || slices.ContainsFunc(tables, func(t *nftables.Table) bool { return strings.HasPrefix(t.Name, tablePrefix) }) {
			return list
		}
		h.ns.Do(func() error {
			for _, name := range list {
				if err := setSysctl(forwardingKey(name), "0"); err != nil && !os.IsNotExist(err) {
					h.log.Warn("forwarding was left on", "interface", name, "error", err)
				}
			}
			return nil
		})
		return nil
	})
}

// locked changes the machine's list of interfaces under its lock.
func (h *host) locked(change func([]string) []string) error {
	path := forwardingFile
	if !h.own {
		path += "-" + h.id // a namespace of a test
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	var list []string
	if err := json.NewDecoder(f).Decode(&list); err != nil {
		list = nil // new, or cut short: nothing to restore
	}
	b, err := json.Marshal(change(list))
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return err
}
