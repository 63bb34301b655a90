package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/edge/location"
	"lapwing.dev/lapwing/internal/edge/trigger"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/metrics"
	"lapwing.dev/lapwing/internal/state"
)

// Roles of a process.
const (
	roleAll  = "all"  // the core, with an edge location of its own
	roleEdge = "edge" // an edge location of a core elsewhere
)

// nodeOptions are the flags of `lapwing up` that are about what this process is.
type nodeOptions struct {
	roles    string
	location string
	region   string // of the location
	core     string
	token    string
}

func (o *nodeOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.roles, "roles", roleAll, "what this process is, by `ROLE`: all, or edge, an edge location of a Lapwing elsewhere")
	f.StringVar(&o.location, "location", "", "`NAME` of this edge location, e.g. FRA56-P1 (for the role edge, its token says it)")
	f.StringVar(&o.region, "location-region", "", "`NAME` of the AWS Region that this edge location is in, which its functions see (role edge; default the core's)")
	f.StringVar(&o.core, "join", "", "`HOST:PORT` of the Lapwing whose edge location this is: its --edge-join (role edge)")
	f.StringVar(&o.token, "join-token", "", "`TOKEN` of 'lapwing edge token', or @FILE with it, to join for the first time (role edge; LAPWING_JOIN_TOKEN sets it too)")
}

func (o *nodeOptions) check(up *upOptions) error {
	if o.location != "" && !cluster.ValidName(o.location) {
		return usageError{fmt.Errorf("--location %q: want up to 32 letters, digits and hyphens", o.location)}
	}
	switch o.roles {
	case roleAll:
		if o.core != "" || o.token != "" || o.region != "" {
			return usageError{errors.New("--join, --join-token and --location-region are for --roles edge")}
		}
		return nil
	case roleEdge:
	default:
		return usageError{fmt.Errorf("--roles %q: want all or edge", o.roles)}
	}
	if up.locations.join != "" || up.locations.dns != "" {
		return usageError{errors.New("--edge-join and --edge-dns are for the Lapwing that edge locations join, not for them")}
	}
	if o.core != "" {
		if _, _, err := net.SplitHostPort(o.core); err != nil {
			return usageError{fmt.Errorf("--join %q: want HOST:PORT, e.g. core.example.org:7422", o.core)}
		}
	}
	if o.region != "" && !regionName.MatchString(o.region) {
		return usageError{fmt.Errorf("--location-region %q: want the name of an AWS Region, e.g. eu-central-1", o.region)}
	}
	o.token = cmp.Or(o.token, os.Getenv("LAPWING_JOIN_TOKEN"))
	if file, ok := strings.CutPrefix(o.token, "@"); ok {
		b, err := os.ReadFile(file)
		if err != nil {
			return usageError{fmt.Errorf("--join-token: %w", err)}
		}
		o.token = string(b)
	}
	if o.token != "" {
		if _, err := cluster.ParseToken(o.token); err != nil {
			return usageError{fmt.Errorf("--join-token: %w", err)}
		}
	}
	return nil
}

// issuer issues the credentials of functions' roles and of CloudFront: the
// credential store, or at an edge location the core.
type issuer interface {
	location.Credentials
	AccountID() string
}

var _ issuer = (*credentials.Store)(nil)

// openNode joins the core, for the role edge.
func (s *server) openNode(ctx context.Context) (err error) {
	if err := makeDataDir(s.opts.data); err != nil {
		return err
	}
	o := s.opts.node
	s.member, err = location.OpenNode(ctx, location.NodeOptions{
		Dir: filepath.Join(s.opts.data, nodeDir), Region: o.region, Version: version, Logger: s.log, Core: o.core, Token: o.token, Name: o.location,
	})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.member.Close() })
	s.issuer = s.member
	if core := s.member.CoreRegion(); s.opts.region != defaultRegion && s.opts.region != core {
		return usageError{fmt.Errorf("--region %s: that of an edge location is its core's, %s; --location-region says where the location is", s.opts.region, core)}
	}
	s.opts.region = s.member.CoreRegion()
	return nil
}

// region is the AWS Region in which this process runs functions.
func (s *server) region() string {
	if s.member != nil {
		return s.member.Region()
	}
	return s.opts.region
}

// location is the name of the edge location of this process.
func (s *server) location() string {
	if s.member != nil {
		return s.member.Name()
	}
	return cmp.Or(s.opts.node.location, defaultLocation)
}

// nodeLogs keeps log events at an edge location, and hands them on to the core.
type nodeLogs struct {
	*logstore.Store
	node *location.Node
}

// Append implements worker.Logs.
func (l nodeLogs) Append(group, stream string, events []logstore.Event) error {
	return errors.Join(l.Store.Append(group, stream, events), l.node.Append(group, stream, events))
}

// edgeMetrics is where the metrics of distributions go: to the core's from whatever
// location.
func (s *server) edgeMetrics() metrics.Collector {
	if s.member != nil {
		return s.member
	}
	return s.metrics
}

// nodePackages are the code packages of functions, from the core.
type nodePackages struct{ node *location.Node }

// OpenPackage implements trigger.Packages.
func (p nodePackages) OpenPackage(ctx context.Context, digest string) (trigger.Package, int64, error) {
	f, size, err := p.node.OpenPackage(ctx, digest)
	if err != nil {
		return nil, 0, err // not f: a nil file in an interface is not nil
	}
	return f, size, nil
}

// leaf returns how the store mirrors the core's; nil: it does not.
func (s *server) leaf() *state.Leaf {
	if s.member == nil {
		return nil
	}
	return s.member.Leaf()
}

// serveNode starts the listeners of an edge location, and its connection to the
// core.
func (s *server) serveNode(listener net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_lapwing/health", s.nodeHealth)
	mux.Handle("GET "+metricsPath, s.metering.exporter.Handler())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if s.edge.server.Serves(r.Host) {
			s.edge.server.ServeHTTP(w, r)
			return
		}
		http.Error(w, "This is an edge location. The AWS APIs are at the core.", http.StatusNotFound)
	})
	inside, err := s.network.Listen()
	if err != nil {
		return err
	}
	s.listen(mux, listener, nil)
	aws := s.member.AWS()
	s.listen(aws, inside, nil)
	if err := s.serveEdge(aws); err != nil {
		return err
	}
	address, err := s.servePeers()
	if err != nil {
		return err
	}
	s.member.Start(location.StartOptions{Applied: s.edge.Applied, Address: address, Regional: s.opts.tiers.regional})
	s.onClose(func(context.Context) error { s.member.Stop(); return nil })
	s.endpoint = endpoint{URL: "http://" + reachable(listener.Addr()), Region: s.region()}
	return nil
}

// nodeHealth answers whether the location serves, and how it stands to the core:
// it serves without that.
func (s *server) nodeHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	h := s.member.Health()
	_ = json.NewEncoder(w).Encode(struct { // who asked may be gone
		Status   string          `json:"status"`
		Version  string          `json:"version"`
		Location string          `json:"location"`
		Core     location.Health `json:"core"`
	}{"ok", version, s.member.Name(), h})
}
