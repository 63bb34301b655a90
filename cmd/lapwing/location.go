package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/edge/location"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/state"
)

// Names below the data directory.
const (
	nodesDir = "nodes" // the authority of an installation's nodes
	nodeDir  = "node"  // what a node that joined keeps
)

// locationOptions are the flags of `lapwing up` that are about edge locations
// elsewhere: those that join this core.
type locationOptions struct {
	join string
	away time.Duration
	// dns and dnsConfig are of the DNS server that brings viewers to locations.
	dns, dnsConfig string
}

func (o *locationOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.join, "edge-join", "", "`HOST:PORT` where edge locations join, with tokens that 'lapwing edge token' makes; their records come from the port after it")
	f.StringVar(&o.dns, "edge-dns", "", "`HOST:PORT` of a DNS server that answers for the names of distributions with the edge location nearest to the viewer, by --edge-dns-config")
	f.StringVar(&o.dnsConfig, "edge-dns-config", "", "`FILE` with the zones, the addresses of edge locations and the networks near to them, in JSON (docs/edge-locations.md)")
	f.DurationVar(&o.away, "edge-away", location.DefaultAway, "`TIME` that an edge location may be silent before nothing waits for it any more")
}

func (o *locationOptions) check() error {
	if (o.dns == "") != (o.dnsConfig == "") {
		return usageError{errors.New("--edge-dns and --edge-dns-config go together")}
	}
	if _, _, err := net.SplitHostPort(o.dns); o.dns != "" && err != nil {
		return usageError{fmt.Errorf("--edge-dns %q: want HOST:PORT, e.g. 127.0.0.1:5353", o.dns)}
	}
	if o.join == "" {
		return nil
	}
	if _, err := leafAddress(o.join); err != nil {
		return usageError{fmt.Errorf("--edge-join %q: want HOST:PORT, e.g. 127.0.0.1:7422", o.join)}
	}
	if o.away < time.Second {
		return usageError{fmt.Errorf("--edge-away %v: want at least 1s", o.away)}
	}
	return nil
}

// leafAddress returns where leaf nodes connect: the port after that where nodes
// join, or any where that is any.
func leafAddress(join string) (string, error) {
	host, text, err := net.SplitHostPort(join)
	if err != nil {
		return "", err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err == nil && port == 65535 {
		err = errors.New("there is no port after it")
	}
	if err != nil {
		return "", err
	}
	if port != 0 {
		port++
	}
	return net.JoinHostPort(host, strconv.FormatUint(port, 10)), nil
}

// openHub prepares what lets edge locations join; nil: nothing does.
func (s *server) openHub() (*state.Hub, error) {
	if s.opts.locations.join == "" {
		return nil, nil
	}
	leaves, err := leafAddress(s.opts.locations.join)
	if err != nil {
		return nil, err
	}
	if s.nodes, err = cluster.OpenAuthority(filepath.Join(s.opts.data, nodesDir)); err != nil {
		return nil, err
	}
	if s.node, err = s.nodes.Node(cluster.Identity{Role: cluster.Core, Name: location.CoreName}); err != nil {
		return nil, err
	}
	return &state.Hub{Listen: leaves, TLS: s.node.Server(false), Leaf: func(c *x509.Certificate) (string, error) {
		core := s.locations.Load()
		if core == nil {
			return "", errors.New("the core is starting")
		}
		return core.Member(c)
	}}, nil
}

// openLocations opens the core's side of edge locations. Without --edge-join none
// can reach it, and those that have joined earlier are away.
func (s *server) openLocations(ctx context.Context) error {
	core, err := location.OpenCore(ctx, location.CoreOptions{
		Store: s.store, Records: s.edge.records, Authority: s.nodes, Packages: packages{s}, Credentials: s.credentials,
		Logs: metricLogs{s.events, s.metrics}, Metrics: s.metrics, AWS: awsFrom{s},
		Self: s.place(), Peers: s.edge.server.Peers(),
		AccountID: s.credentials.AccountID(), Region: s.opts.region, Away: s.opts.locations.away, Logger: s.log,
	})
	if err != nil {
		return err
	}
	core.AddLocal(s.edge.Applied)
	s.locations.Store(core)
	return nil
}

// packages are the code packages of the Lambda service, which opens later.
type packages struct{ s *server }

// OpenPackage implements location.Packages.
func (p packages) OpenPackage(digest string) (io.ReadSeekCloser, error) {
	return p.s.functions.OpenPackage(digest)
}

// awsFrom serves the AWS endpoint, which opens later, to functions at edge
// locations. As for those here, what others do is not their business.
type awsFrom struct{ s *server }

// ServeFrom implements location.AWS.
func (a awsFrom) ServeFrom(region string, w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, metricsPath) {
		http.NotFound(w, r)
		return
	}
	a.s.gateway.ServeHTTP(w, r.WithContext(gateway.From(r.Context(), region)))
}

// serveNodes lets edge locations join and call.
func (s *server) serveNodes() error {
	if s.node == nil {
		return nil
	}
	l, err := net.Listen("tcp", s.opts.locations.join)
	if err != nil {
		return fmt.Errorf("%w: choose another address with --edge-join", err)
	}
	s.endpoint.Nodes = reachable(l.Addr())
	s.run(func(ctx context.Context) error {
		return s.node.Serve(ctx, cluster.ServerOptions{Listener: l, Handler: s.locations.Load().Handler(), Joining: true, Drain: drainTimeout, Logger: s.log})
	})
	return nil
}
