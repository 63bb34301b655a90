package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/spf13/pflag"

	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/edge/location"
	"lapwing.dev/lapwing/internal/edge/tier"
)

// tierOptions are the flags of `lapwing up` that are about what edge locations ask of
// one another.
type tierOptions struct {
	regional bool
	listen   string
	address  string
	handOver bool
}

func (o *tierOptions) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.regional, "regional", false, "make this edge location a regional edge cache: those of its Region ask it before they ask origins, and all ask it for origins whose shield is in its Region")
	f.BoolVar(&o.handOver, "edge-location-header", false, "let viewers choose the edge location that serves them by X-Lapwing-Edge-Location: NAME (for tests)")
	f.StringVar(&o.listen, "node-listen", "", "`HOST:PORT` where other edge locations reach this one (role edge; the core is reached at --edge-join)")
	f.StringVar(&o.address, "node-address", "", "`HOST:PORT` that other edge locations connect to, where that is not --node-listen: of a NAT or a balancer before this one (role edge)")
}

func (o *tierOptions) check(up *upOptions) error {
	if up.node.roles != roleEdge {
		if o.listen != "" || o.address != "" {
			return usageError{errors.New("--node-listen and --node-address are for --roles edge")}
		}
		if o.regional && up.locations.join == "" {
			return usageError{errors.New("--regional: other edge locations reach this one at --edge-join, which is not given")}
		}
		return nil
	}
	if _, _, err := net.SplitHostPort(o.listen); o.listen != "" && err != nil {
		return usageError{fmt.Errorf("--node-listen %q: want HOST:PORT, e.g. 0.0.0.0:7424", o.listen)}
	}
	if o.address != "" {
		host, port, err := net.SplitHostPort(o.address)
		n, badPort := strconv.ParseUint(port, 10, 16)
		if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() || badPort != nil || n == 0 {
			return usageError{fmt.Errorf("--node-address %q: want the HOST:PORT that others connect to, e.g. edge.example.org:7424", o.address)}
		}
		if o.listen == "" {
			return usageError{errors.New("--node-address says where --node-listen is reached, which is not given")}
		}
	}
	if o.regional && o.listen == "" {
		return usageError{errors.New("--regional: other edge locations reach this one at --node-listen, which is not given")}
	}
	return nil
}

// place is the edge location of this process, as the others are told.
func (s *server) place() tier.Place {
	return tier.Place{Name: s.location(), Region: s.region(), Regional: s.opts.tiers.regional, Core: s.member == nil}
}

// tiers returns what asks other edge locations; nil: there are none.
func (s *server) tiers() *tier.Network {
	o := tier.Options{Self: s.place(), Logger: s.log}
	switch {
	case s.member != nil:
		o.Others = s.member.Others
		o.Transport = func(p tier.Place) http.RoundTripper { return s.member.Identity().TransportTo(location.IdentityOf(p)) }
	case s.node != nil:
		o.Others = func() []tier.Place {
			if core := s.locations.Load(); core != nil {
				return core.Others()
			}
			return nil // it opens later
		}
		o.Transport = func(p tier.Place) http.RoundTripper { return s.node.TransportTo(location.IdentityOf(p)) }
	default:
		return nil
	}
	return tier.New(o)
}

// servePeers lets other edge locations reach this one, which is not the core's; it
// returns where they do.
func (s *server) servePeers() (address string, err error) {
	if s.opts.tiers.listen == "" {
		return "", nil
	}
	l, err := net.Listen("tcp", s.opts.tiers.listen)
	if err != nil {
		return "", fmt.Errorf("%w: choose another address with --node-listen", err)
	}
	s.run(func(ctx context.Context) error {
		return s.member.Identity().Serve(ctx, cluster.ServerOptions{Listener: l, Handler: s.member.Members(s.edge.server.Peers()), Drain: drainTimeout, Logger: s.log})
	})
	return cmp.Or(s.opts.tiers.address, l.Addr().String()), nil
}
