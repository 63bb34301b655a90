package location

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/state"
)

const (
	membershipFile = "membership.json"
	packagesSet    = "edge-packages"

	// reportEvery is how often a location reports where nothing changes, and
	// lookEvery how soon after a change.
	reportEvery = time.Second
	lookEvery   = 50 * time.Millisecond
	// retryEvery is the wait after a report that did not reach the core.
	retryEvery = 500 * time.Millisecond
	// joinRetry is the wait between attempts to join.
	joinRetry = 2 * time.Second
)

// NodeOptions configures a Node. Those above the blank line are required.
type NodeOptions struct {
	Dir     string // for what the node keeps of its own
	Version string // of the program
	Logger  *slog.Logger

	// Region is the one that the location is in; empty: the core's.
	Region string

	// Core is the HOST:PORT at which the core takes nodes; empty: as at the last
	// start.
	Core string
	// Token is the join token; needed where the node has not joined yet. One that
	// it has not joined with has it join again.
	Token string
	// Name is who the location must be; empty: whoever the token says.
	Name string
}

// facts are what a location keeps with its membership.
type facts struct {
	Core       string // HOST:PORT
	LeafPort   int
	AccountID  string
	CoreRegion string
	Token      string // the key of the token that it joined with
}

// Node is a location's side of its connection to the core. OpenNode joins; Start,
// once the store is open, keeps the connection up.
type Node struct {
	opts NodeOptions
	log  *slog.Logger

	mu         sync.Mutex // guards the next two, and the file
	membership *cluster.Membership[facts]
	node       *cluster.Node
	transport  http.RoundTripper

	roles  *roles
	spool  *spool
	counts *counts

	store    *state.Store
	records  *distribution.Records
	packages *state.Blobs
	fetching chan struct{} // bounds the packages that are fetched at once
	applied  func() distribution.Revisions
	address  string // for other locations; empty: none
	regional bool

	health  atomic.Pointer[Health]
	peersMu sync.Mutex
	peers   []peer

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// OpenNode opens a location's membership, and joins the core where it has none. It
// waits for a core that cannot be reached, until ctx ends.
func OpenNode(ctx context.Context, o NodeOptions) (*Node, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	n := &Node{opts: o, log: o.Logger, fetching: make(chan struct{}, 2)}
	path := filepath.Join(o.Dir, membershipFile)
	m, err := cluster.ReadMembership[facts](path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.Token == "":
		return nil, errors.New("this location has not joined yet: it needs a token, which `lapwing edge token NAME` makes at the core")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("edge location: %w", err)
	}
	if m, err = n.joinIfNeeded(ctx, m); err != nil {
		return nil, fmt.Errorf("join the core: %w", err)
	}
	if o.Name != "" && o.Name != m.Name {
		return nil, fmt.Errorf("this location is %s, not %s: use another data directory, or that location's token", m.Name, o.Name)
	}
	if o.Core != "" {
		m.Facts.Core = o.Core
	}
	n.opts.Region = cmp.Or(o.Region, m.Facts.CoreRegion)
	if err := m.Write(path); err != nil {
		return nil, fmt.Errorf("edge location: %w", err)
	}
	if err := n.use(m); err != nil {
		return nil, fmt.Errorf("edge location: %w", err)
	}
	if n.roles, err = openRoles(filepath.Join(o.Dir, rolesFile), n); err != nil {
		return nil, fmt.Errorf("edge location: %w", err)
	}
	if n.spool, err = openSpool(filepath.Join(o.Dir, spoolDir), n.log); err != nil {
		return nil, fmt.Errorf("edge location: %w", err)
	}
	if n.peers, err = readPeers(filepath.Join(o.Dir, peersFile)); err != nil {
		return nil, fmt.Errorf("edge location: %w", err)
	}
	if n.counts, err = openCounts(filepath.Join(o.Dir, countsFile), n.log); err != nil {
		return nil, fmt.Errorf("edge location: %w", err)
	}
	return n, nil
}

// use has the node act by a membership.
func (n *Node) use(m *cluster.Membership[facts]) error {
	node, err := m.Node()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.membership = m
	if n.node != nil {
		n.node.Renew(node)
	} else {
		n.node, n.transport = node, node.Transport(cluster.Core)
	}
	return nil
}

// joinIfNeeded returns the membership m, or a new one where there is none or the
// token is another than it was made with.
func (n *Node) joinIfNeeded(ctx context.Context, m *cluster.Membership[facts]) (*cluster.Membership[facts], error) {
	if n.opts.Token == "" {
		return m, nil
	}
	token, err := cluster.ParseToken(n.opts.Token)
	if err != nil {
		return nil, err
	}
	if m != nil && m.Facts.Token == token.Key() {
		return m, nil
	}
	if n.opts.Core == "" {
		return nil, errors.New("a token is of no use without the core's address")
	}
	private, public, err := cluster.NewKey()
	if err != nil {
		return nil, err
	}
	t := cluster.JoiningTransport(token.CA)
	defer t.CloseIdleConnections()
	for {
		var j joined
		err := call(ctx, t, http.MethodPost, n.opts.Core, pathJoin, joinRequest{Secret: token.Secret, PublicKey: public, Region: n.opts.Region}, &j)
		if err == nil {
			return &cluster.Membership[facts]{
				Role: cluster.Edge, Name: token.Name, Key: private, Certificate: j.Certificate, CA: j.CA,
				Facts: facts{Core: n.opts.Core, LeafPort: j.LeafPort, AccountID: j.AccountID, CoreRegion: j.CoreRegion, Token: token.Key()},
			}, nil
		}
		if _, refused := errors.AsType[*refusal](err); refused {
			return nil, err
		}
		n.log.Warn("the core cannot be reached to join; trying again", "core", n.opts.Core, "error", err)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(joinRetry):
		}
	}
}

// Name returns the location's name.
func (n *Node) Name() string { return n.membership.Name }

// AccountID returns the account of the installation.
func (n *Node) AccountID() string { return n.membership.Facts.AccountID }

// CoreRegion returns the AWS Region of the core.
func (n *Node) CoreRegion() string { return n.membership.Facts.CoreRegion }

// Region returns the AWS Region of the location.
func (n *Node) Region() string { return n.opts.Region }

// Identity returns the node among the others.
func (n *Node) Identity() *cluster.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.node
}

// Leaf returns how the location's store mirrors the core's.
func (n *Node) Leaf() *state.Leaf {
	n.mu.Lock()
	defer n.mu.Unlock()
	host, _, err := net.SplitHostPort(n.membership.Facts.Core)
	if err != nil {
		host = n.membership.Facts.Core
	}
	return &state.Leaf{
		Name: n.membership.Name, Hub: net.JoinHostPort(host, strconv.Itoa(n.membership.Facts.LeafPort)), TLS: n.node.Client(cluster.Core),
	}
}

// StartOptions are what a Node needs once the location's other parts are there.
type StartOptions struct {
	Store   *state.Store
	Records *distribution.Records
	// Applied returns how far the location serves them.
	Applied func() distribution.Revisions
	// Address is the HOST:PORT at which other locations reach this one; empty: they
	// do not. Where it has no host, that is the one from which the core is reached.
	Address string
	// Regional tells that it is a regional edge cache.
	Regional bool
}

// Prepare gives the node its store: packages can be opened from then on.
func (n *Node) Prepare(store *state.Store, records *distribution.Records) (err error) {
	n.store, n.records = store, records
	n.packages, err = store.BlobSet(packagesSet)
	return err
}

// Start begins to report to the core and to fetch from it, until Stop. Prepare
// goes before.
func (n *Node) Start(o StartOptions) {
	n.applied, n.address, n.regional = o.Applied, o.Address, o.Regional
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(context.Background())
	n.wg.Go(func() { n.run(ctx) })
	n.wg.Go(func() { n.roles.run(ctx, n.records.Replicas) })
	n.wg.Go(func() { n.spool.run(ctx, n.sendLogs) })
	n.wg.Go(func() { n.counts.run(ctx, n.sendCounts) })
	n.wg.Go(func() { n.collectPackages(ctx) })
}

// Stop ends what Start began: the store can be closed then.
func (n *Node) Stop() {
	if n.cancel != nil {
		n.cancel()
		n.wg.Wait()
	}
}

// Close is for when nobody has any more logs and metrics. Those that have not been
// handed on stay for the next start.
func (n *Node) Close() error { return errors.Join(n.spool.Close(), n.counts.close()) }

// call makes a call to the core.
func (n *Node) call(ctx context.Context, path string, in, out any) error {
	n.mu.Lock()
	t, address := n.transport, n.membership.Facts.Core
	n.mu.Unlock()
	return call(ctx, t, http.MethodPost, address, path, in, out)
}

// AWS returns a handler that hands requests for the AWS endpoint on to the core:
// those of functions, which sign them.
func (n *Node) AWS() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "https", n.core()
			r.Out.Host = r.In.Host
			r.Out.Header.Set(awsHeader, "1")
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v, ok := r.In.Header[name]; ok { // they may be signed
					r.Out.Header[name] = v
				}
			}
		},
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			n.mu.Lock()
			t := n.transport
			n.mu.Unlock()
			return t.RoundTrip(r)
		}),
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			// What AWS clients take for a failure that may be over soon.
			http.Error(w, "The core of this installation cannot be reached.", http.StatusServiceUnavailable)
		},
	}
}

func (n *Node) core() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.membership.Facts.Core
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
