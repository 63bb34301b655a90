package network

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// closed lists what functions never reach: other addresses of this or that
// machine, link-local addresses (metadata services), multicast and reserved.
var closed = prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")

// private lists the networks that functions reach only where allowed.
var private = prefixes("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")

func prefixes(list ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// ruleset builds one nftables table.
type ruleset struct {
	conn  *nftables.Conn
	table *nftables.Table
}

func (r *ruleset) chain(name string, typ nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority, policy nftables.ChainPolicy) *nftables.Chain {
	return r.conn.AddChain(&nftables.Chain{
		Name: name, Table: r.table, Type: typ, Hooknum: hook, Priority: &priority, Policy: &policy,
	})
}

// rule adds a rule of the given matches and what to do.
func (r *ruleset) rule(c *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: c, Exprs: all})
}

// open adds rules to chain c for new connections that match: closed networks
// and private ones that are not allowed are refused, all else goes on.
func (r *ruleset) open(c *nftables.Chain, allow []netip.Prefix, match []expr.Any, refuse []expr.Any) {
	for _, p := range closed {
		r.rule(c, match, to(p), refuse)
	}
	for _, p := range allow {
		r.rule(c, match, to(p), accept())
	}
	for _, p := range private {
		r.rule(c, match, to(p), refuse)
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() []expr.Any   { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// refuse tells the sender that its packet is not wanted.
func refuse() []expr.Any {
	const adminProhibited = 13
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: adminProhibited}}
}

// from and out match the interface that a packet came in by and leaves by.
func from(name string) []expr.Any { return iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }
func out(name string) []expr.Any  { return iface(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }

func notOut(name string) []expr.Any { return iface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, name) }

func iface(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	data := append([]byte(name), 0)
	if name[len(name)-1] == '*' { // every name that begins so
		data = []byte(name[:len(name)-1])
	} else {
		data = append(data, make([]byte, unix.IFNAMSIZ-len(data))...)
	}
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

// known matches packets of connections that exist.
func known() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED),
			Xor:  make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// to and by match the destination and source addresses.
func to(p netip.Prefix) []expr.Any { return address(16, p) }
func by(p netip.Prefix) []expr.Any { return address(12, p) }

func address(offset uint32, p netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: net.CIDRMask(p.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// port matches a transport protocol and destination port.
func port(proto byte, n uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, n)},
	}
}

// spoofed matches packets whose source is not behind the interface that they
// came in by.
func spoofed() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}

// masquerade gives packets the address of the interface that they leave by.
func masquerade() []expr.Any { return []expr.Any{&expr.Masq{FullyRandom: true}} }
