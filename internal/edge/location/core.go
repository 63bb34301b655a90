package location

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/tier"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/state"
)

const (
	// silentAfter is when a location that does not report is said to be silent.
	silentAfter = 5 * time.Second
	// DefaultAway is Options.Away where nobody says otherwise.
	DefaultAway = 2 * time.Minute
	// tokenTTL is how long a token can be used, at most.
	tokenTTL = 30 * 24 * time.Hour
)

// mirrored are the collections that locations mirror, those of Records.
var mirrored = []string{
	"edge-distributions", "edge-certificates", "edge-functions", "edge-replicas", "edge-invalidations", "edge-realtime-logs",
	"edge-key-values",
	"edge-challenges",
}

// Packages opens code packages by their SHA-256, in hexadecimal; fs.ErrNotExist
// where there is none.
type Packages interface {
	OpenPackage(digest string) (io.ReadSeekCloser, error)
}

// Credentials issues credentials for roles, and for CloudFront.
type Credentials interface {
	Issue(roleARN, sessionName string, ttl time.Duration) (credentials.Session, error)
	IssueFor(user aws.Identity, ttl time.Duration) (credentials.Session, error)
}

// CloudFront is who signs requests to origins with an access control, and takes
// the place of a role in credentials' requests.
const CloudFront = "cloudfront.amazonaws.com"

// LogDelivery is who puts the access logs of distributions into buckets.
const LogDelivery = "delivery.logs.amazonaws.com"

// Logs keeps log events.
type Logs interface {
	Append(group, stream string, events []logstore.Event) error
}

// AWS is the AWS endpoint. It takes requests that are signed for the Region of the
// location that they come from.
type AWS interface {
	ServeFrom(region string, w http.ResponseWriter, r *http.Request)
}

// CoreOptions configures a Core. Those above the blank line are required.
type CoreOptions struct {
	Store       *state.Store // a hub, where locations can join
	Records     *distribution.Records
	Authority   *cluster.Authority // nil where they cannot
	Packages    Packages
	Credentials Credentials
	Logs        Logs
	Metrics     Metrics
	AWS         AWS // for functions at locations
	AccountID   string
	Region      string
	Logger      *slog.Logger

	// Self is the core's own location, without an address. Peers serves the other
	// locations there, at the paths of package tier; nil: it does not.
	Self  tier.Place
	Peers http.Handler

	// Away is how long a location may be silent before nobody waits for it any
	// more: DefaultAway where zero.
	Away time.Duration
}

// place is the record of a location.
type place struct {
	Format int
	Name   string
	Region string
	// Key is the fingerprint of its public key: who else has its name is refused.
	Key    string
	Joined time.Time
}

// ticket is the record of a join token, by its key.
type ticket struct {
	Format  int
	Name    string
	Expires time.Time
	Used    string // fingerprint of the public key that it was used for; empty: not yet
}

// recordFormat is the version of these two.
const recordFormat = 1

// Core is the core's side of edge locations. It implements the cloudfront
// service's Locations.
type Core struct {
	opts    CoreOptions
	log     *slog.Logger
	places  *state.Collection[place]
	tickets *state.Collection[ticket]
	began   time.Time

	mu    sync.Mutex
	seen  map[string]*sighting
	local []func() distribution.Revisions
}

// sighting is the last of a location's reports.
type sighting struct {
	report
	at      time.Time
	current time.Time // when it last had all that the core had
}

// OpenCore opens the core's side. Serve is what locations reach.
func OpenCore(ctx context.Context, o CoreOptions) (*Core, error) {
	if o.Away == 0 {
		o.Away = DefaultAway
	}
	c := &Core{opts: o, log: o.Logger, began: time.Now(), seen: map[string]*sighting{}}
	var err error
	if c.places, err = state.Collect[place](ctx, o.Store, "edge-locations"); err != nil {
		return nil, fmt.Errorf("edge locations: %w", err)
	}
	if c.tickets, err = state.Collect[ticket](ctx, o.Store, "edge-tokens"); err != nil {
		return nil, fmt.Errorf("edge locations: %w", err)
	}
	if o.Store.HubAddress() == nil {
		return c, nil // nobody can join, and nobody who has can be reached
	}
	for item := range c.places.Scan("", "") {
		// Again, for collections that a newer version mirrors too.
		if err := o.Store.Grant(ctx, item.Key, mirrored...); err != nil {
			return nil, fmt.Errorf("edge locations: %w", err)
		}
	}
	return c, nil
}

// AddLocal adds a location of this process, by how far it is.
func (c *Core) AddLocal(applied func() distribution.Revisions) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.local = append(c.local, applied)
}

// Member returns the name of the location that a certificate is of; an error
// where it is none any more.
func (c *Core) Member(cert *x509.Certificate) (string, error) {
	i, err := cluster.IdentityOf(cert)
	if err != nil {
		return "", err
	}
	p, ok := c.places.Get(i.Name)
	switch {
	case i.Role != cluster.Edge:
		return "", fmt.Errorf("%s is no edge location", i)
	case !ok:
		return "", fmt.Errorf("edge location %s was removed", i.Name)
	case p.Value.Key != cluster.Fingerprint(cert.RawSubjectPublicKeyInfo):
		return "", fmt.Errorf("edge location %s has joined again since, with another key", i.Name)
	}
	return i.Name, nil
}

// Token makes a token with which a location of this name can join once.
func (c *Core) Token(ctx context.Context, name string, ttl time.Duration) (cluster.Token, error) {
	if !cluster.ValidName(name) {
		return cluster.Token{}, fmt.Errorf("%q is no name for an edge location: want up to 32 letters, digits and hyphens", name)
	}
	if ttl <= 0 || ttl > tokenTTL {
		return cluster.Token{}, fmt.Errorf("a token cannot be good for %v: want at most %v", ttl, tokenTTL)
	}
	now := time.Now()
	for item := range c.tickets.Scan("", "") {
		if now.After(item.Value.Expires) {
			if err := c.tickets.Delete(ctx, item.Key, item.Revision); err != nil && !errors.Is(err, state.ErrNotFound) && !errors.Is(err, state.ErrConflict) {
				return cluster.Token{}, err
			}
		}
	}
	t := cluster.NewToken(name, c.opts.Authority.Fingerprint())
	_, err := c.tickets.Create(ctx, t.Key(), ticket{Format: recordFormat, Name: name, Expires: now.Add(ttl)})
	return t, err
}

// refusal is an error that the caller is told.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return r.message }

func refuse(status int, format string, v ...any) error {
	return &refusal{status, fmt.Sprintf(format, v...)}
}

// join lets a location in. A location whose answer was lost asks again with the
// same key.
func (c *Core) join(ctx context.Context, r joinRequest) (*joined, error) {
	key := cluster.TokenKey(r.Secret)
	t, ok := c.tickets.Get(key)
	if !ok || time.Now().After(t.Value.Expires) {
		return nil, refuse(http.StatusForbidden, "the join token is not known, or has expired")
	}
	print := cluster.Fingerprint(r.PublicKey)
	if t.Value.Used != "" && t.Value.Used != print {
		return nil, refuse(http.StatusForbidden, "the join token was used already")
	}
	name := t.Value.Name
	cert, err := c.opts.Authority.Sign(cluster.Identity{Role: cluster.Edge, Name: name}, r.PublicKey)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%v", err)
	}
	t.Value.Used = print
	if _, err := c.tickets.Update(ctx, key, t.Revision, t.Value); errors.Is(err, state.ErrConflict) {
		return nil, refuse(http.StatusForbidden, "the join token was used already")
	} else if err != nil {
		return nil, err
	}
	if err := c.opts.Store.Grant(ctx, name, mirrored...); err != nil {
		return nil, err
	}
	if _, err := c.places.Put(ctx, name, place{Format: recordFormat, Name: name, Region: cmp.Or(r.Region, c.opts.Region), Key: print, Joined: time.Now().UTC()}); err != nil {
		return nil, err
	}
	c.log.Info("an edge location has joined", "location", name, "region", r.Region)
	return &joined{Certificate: cert, CA: c.opts.Authority.Certificate(), AccountID: c.opts.AccountID, CoreRegion: c.opts.Region, LeafPort: c.leafPort()}, nil
}

func (c *Core) leafPort() int {
	if a, ok := c.opts.Store.HubAddress().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

// Remove lets a location go: it is refused from now on, and nobody waits for it.
func (c *Core) Remove(ctx context.Context, name string) error {
	p, ok := c.places.Get(name)
	if !ok {
		return refuse(http.StatusNotFound, "there is no edge location %s", name)
	}
	if err := c.places.Delete(ctx, name, p.Revision); err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.seen, name)
	c.mu.Unlock()
	c.log.Info("an edge location was removed", "location", name)
	return c.opts.Store.Revoke(ctx, name, mirrored...)
}

// report takes a location's report, which comes from a host.
func (c *Core) report(name, host string, r report) answer {
	if h, port, err := net.SplitHostPort(r.Address); err == nil {
		if ip := net.ParseIP(h); h == "" || ip != nil && ip.IsUnspecified() {
			r.Address = net.JoinHostPort(host, port) // it listens everywhere
		}
	}
	a := answer{LeafPort: c.leafPort(), Marks: c.marks(), Peers: c.peers()}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &sighting{report: r, at: now, current: now}
	if last := c.seen[name]; last != nil && behind(r.Marks, a.Marks) > 0 {
		s.current = last.current
	}
	c.seen[name] = s
	return a
}

// marks returns those of the collections that are mirrored.
func (c *Core) marks() map[string]state.Mark {
	all := c.opts.Store.Marks()
	marks := make(map[string]state.Mark, len(mirrored))
	for _, name := range mirrored {
		marks[name] = all[name]
	}
	return marks
}

// behind returns by how many revisions mirrors are behind the core's records.
func behind(mirrors, core map[string]state.Mark) uint64 {
	var n uint64
	for name, want := range core {
		if have := mirrors[name]; !have.Holds(want) {
			n += want.Revision - have.Revision
		}
	}
	return n
}

// regionOf returns the Region of a location: what it reported last, or what it
// joined with.
func (c *Core) regionOf(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.seen[name]; s != nil {
		return s.Region
	}
	p, _ := c.places.Get(name)
	return cmp.Or(p.Value.Region, c.opts.Region)
}

// peers returns all locations. Those that do not report have no address.
func (c *Core) peers() []peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	peers := []peer{{Place: c.opts.Self}}
	for item := range c.places.Scan("", "") {
		p := peer{Place: tier.Place{Name: item.Value.Name, Region: item.Value.Region}, Key: item.Value.Key}
		if s := c.seen[item.Key]; s != nil && time.Since(s.at) < silentAfter {
			p.Region, p.Address, p.Regional = s.Region, s.Address, s.Regional
		}
		peers = append(peers, p)
	}
	return peers
}

// Others returns the locations in other processes, for the core's own.
func (c *Core) Others() []tier.Place {
	var places []tier.Place
	for _, p := range c.peers()[1:] {
		places = append(places, p.Place)
	}
	return places
}

// away tells whether nobody waits for a location: it has been silent for long. One
// that has not reported since the core started has as long to do so.
func (c *Core) away(s *sighting) bool {
	last := c.began
	if s != nil {
		last = s.at
	}
	return time.Since(last) > c.opts.Away
}

// Applied returns what every location serves by now: the lowest revision of each
// collection. Locations that are away do not count: they have what they missed
// soon after they are back, before or while they serve.
func (c *Core) Applied() distribution.Revisions {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := distribution.Revisions{
		Distributions: ^uint64(0), Certificates: ^uint64(0), Functions: ^uint64(0), Replicas: ^uint64(0), Invalidations: ^uint64(0), RealtimeLogs: ^uint64(0),
		KeyValues:  ^uint64(0),
		Challenges: ^uint64(0),
	}
	for _, applied := range c.local {
		lower(&all, applied())
	}
	for item := range c.places.Scan("", "") {
		s := c.seen[item.Key]
		switch {
		case c.away(s):
		case s == nil:
			return distribution.Revisions{}
		default:
			lower(&all, s.Applied)
		}
	}
	return all
}

func lower(all *distribution.Revisions, r distribution.Revisions) {
	all.Distributions = min(all.Distributions, r.Distributions)
	all.Certificates = min(all.Certificates, r.Certificates)
	all.Functions = min(all.Functions, r.Functions)
	all.Replicas = min(all.Replicas, r.Replicas)
	all.Invalidations = min(all.Invalidations, r.Invalidations)
	all.RealtimeLogs = min(all.RealtimeLogs, r.RealtimeLogs)
	all.KeyValues = min(all.KeyValues, r.KeyValues)
	all.Challenges = min(all.Challenges, r.Challenges)
}

// Well tells whether viewers may be sent to a location, as far as the core knows: it
// reports. One that has never joined is not for the core to judge.
func (c *Core) Well(name string) bool {
	if _, joined := c.places.Get(name); !joined {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen[name]
	return s != nil && time.Since(s.at) <= silentAfter
}

// Region returns the AWS Region of a location that has joined; empty: it has not.
func (c *Core) Region(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.seen[name]; s != nil {
		return s.Region
	}
	p, _ := c.places.Get(name)
	return p.Value.Region
}

// Locations returns what is known of every location that has joined, by name.
func (c *Core) Locations() []Status {
	marks := c.marks()
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Status
	for item := range c.places.Scan("", "") {
		p, s := item.Value, c.seen[item.Key]
		st := Status{Name: p.Name, Region: p.Region, Joined: p.Joined, State: StateSilent}
		if s == nil {
			st.Behind = behind(nil, marks)
			st.LagSeconds = now.Sub(c.began).Seconds()
		} else {
			st.Region, st.Version, st.Address, st.Regional, st.LastSeen, st.Applied, st.Spooled = s.Region, s.Version, s.Address, s.Regional, s.at, s.Applied, s.Spooled
			st.Behind = behind(s.Marks, marks)
			st.State = StateCurrent
			if st.Behind > 0 {
				st.State, st.LagSeconds = StateBehind, now.Sub(s.current).Seconds()
			}
			if now.Sub(s.at) > silentAfter {
				st.State, st.LagSeconds = StateSilent, now.Sub(s.at).Seconds()
			}
		}
		if c.away(s) {
			st.State = StateAway
		}
		all = append(all, st)
	}
	return all
}
