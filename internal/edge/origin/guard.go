package origin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// ErrForbidden is an address that no origin may have unless the operator allows
// it.
var ErrForbidden = errors.New("the address is not public")

// guard refuses connections to addresses that are not public. It sees the address
// itself, after names are resolved, so that no name leads around it.
type guard struct{ allow []netip.Prefix }

// special are blocks that are not public beside those that package netip knows
// (RFC 6890 and its updates).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carriers' NAT
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), // benchmarks
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("192.88.99.0/24"),   // relays of 6to4
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's services for its own machines
	netip.MustParsePrefix("::/96"),            // IPv4-compatible
	netip.MustParsePrefix("100::/64"),         // discard
	netip.MustParsePrefix("64:ff9b::/96"),     // NAT64, which leads to IPv4
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"), // 6to4
	netip.MustParsePrefix("2001::/32"), // Teredo
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("fec0::/10"),
}

func public(a netip.Addr) bool {
	if a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

func (g guard) allows(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range g.allow {
		if p.Contains(a) {
			return true
		}
	}
	return public(a)
}

// control is net.Dialer's ControlContext.
func (g guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %q", ErrForbidden, address)
	}
	if !g.allows(ap.Addr()) {
		return fmt.Errorf("%w: %s; the operator may allow it with --origin-allow", ErrForbidden, ap.Addr())
	}
	return nil
}
