package edge

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/acme"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/policy"
	"lapwing.dev/lapwing/internal/edge/signed"
	"lapwing.dev/lapwing/internal/edge/viewer"
	"lapwing.dev/lapwing/internal/state"
)

// site is a distribution, prepared for requests.
type site struct {
	d       *distribution.Distribution
	plans   []*policy.Plan // in the order in which they are tried
	origins map[string]*distribution.Origin
	groups  map[string]*distribution.OriginGroup
	pages   map[int]*distribution.ErrorPage
	guards  map[*policy.Plan]signed.Keys
	blocked func(country string) bool // nil: nobody
	// quick tells the plans whose hits need nothing but the cache, and logs that
	// each request has to be logged.
	quick map[*policy.Plan]bool
	logs  bool
}

// prepare makes a site of a record.
func prepare(d *distribution.Distribution, log *slog.Logger) *site {
	t := &site{
		d: d, origins: map[string]*distribution.Origin{}, groups: map[string]*distribution.OriginGroup{},
		pages: map[int]*distribution.ErrorPage{}, guards: map[*policy.Plan]signed.Keys{},
		quick: map[*policy.Plan]bool{}, logs: d.Logging.Bucket != "",
	}
	for i := range d.Origins {
		t.origins[d.Origins[i].ID] = &d.Origins[i]
	}
	for i := range d.OriginGroups {
		t.groups[d.OriginGroups[i].ID] = &d.OriginGroups[i]
	}
	for i := range d.ErrorPages {
		t.pages[d.ErrorPages[i].Status] = &d.ErrorPages[i]
	}
	for i := range d.Behaviours {
		b := &d.Behaviours[i]
		p := policy.Compile(b)
		t.plans = append(t.plans, p)
		t.quick[p] = p.Plain() && len(b.Signers) == 0 && !p.ChangesResponse() && b.RealtimeLog == "" &&
			!p.Has(distribution.ViewerRequest) && !p.Has(distribution.ViewerResponse)
		if signers := b.Signers; len(signers) > 0 {
			keys, err := signed.ParseKeys(signers)
			if err != nil {
				log.Error("public keys cannot be read: what they have signed is refused", "distribution", d.ID, "error", err)
			}
			t.guards[p] = keys
		}
	}
	t.blocked = blocked(d.Geo)
	return t
}

// blocked returns what a geographic restriction says of a country. Viewers of
// whom no country is known pass, as they do on CloudFront only where they are
// not the ones to be let in.
func blocked(g distribution.GeoRestriction) func(country string) bool {
	listed := make(map[string]bool, len(g.Countries))
	for _, c := range g.Countries {
		listed[c] = true
	}
	switch g.Mode {
	case "whitelist":
		return func(country string) bool { return !listed[country] }
	case "blacklist":
		return func(country string) bool { return listed[country] }
	}
	return nil
}

// plan returns the behaviour for a path, which is the viewer's: what a function
// makes of it chooses no other one.
func (t *site) plan(path string) *policy.Plan {
	path = policy.Normalise(path)
	for _, p := range t.plans {
		if p.Matches(path) {
			return p
		}
	}
	return nil // only where a record has no default
}

// table finds the site of a host name. It is never changed, but replaced.
type table struct {
	byID   map[string]*site
	exact  map[string]*site
	suffix map[string]*site // ".example.com", of the alias "*.example.com"
}

func newTable(byID map[string]*site) *table {
	t := &table{byID: byID, exact: map[string]*site{}, suffix: map[string]*site{}}
	for _, s := range byID {
		t.exact[strings.ToLower(s.d.DomainName)] = s
		for _, alias := range s.d.Aliases {
			if rest, ok := strings.CutPrefix(alias, "*."); ok {
				t.suffix["."+rest] = s
			} else {
				t.exact[alias] = s
			}
		}
	}
	return t
}

// find returns the site of a Host header or a server name; nil: none. Of aliases
// with a star the longest wins.
func (t *table) find(host string) *site {
	host = hostname(host)
	if s := t.exact[host]; s != nil {
		return s
	}
	if len(t.suffix) == 0 {
		return nil
	}
	for i := strings.IndexByte(host, '.'); i >= 0; {
		if s := t.suffix[host[i:]]; s != nil {
			return s
		}
		next := strings.IndexByte(host[i+1:], '.')
		if next < 0 {
			return nil
		}
		i += 1 + next
	}
	return nil
}

// hostname returns a host in lower case, without port and final dot.
func hostname(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i:], ']') < 0 {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// follower keeps the table up with the records.
type follower struct {
	s       *Server
	table   atomic.Pointer[table]
	mu      sync.Mutex
	applied distribution.Revisions
	begins  distribution.Revisions // what is being applied, or has been
	changed chan struct{}          // closed when applied changes, if anybody waits
	watches sync.WaitGroup

	// What authorities that certify names want to see, by token, and the tokens of
	// each certificate, which mu guards.
	answers sync.Map // of string
	tokens  map[string][]string
	// proofs are the certificates for tls-alpn-01, by name. mu guards it.
	proofs map[string]*proof
}

// Applied returns how far the server is with the records that it serves.
func (s *Server) Applied() distribution.Revisions {
	s.follow.mu.Lock()
	defer s.follow.mu.Unlock()
	return s.follow.applied
}

// begun returns the revisions of distributions and invalidations of which something
// may have been applied.
func (f *follower) begun() (distributions, invalidations uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.begins.Distributions, f.begins.Invalidations
}

// await waits until the server has applied these revisions, for as long as that may
// take, and tells whether it has.
func (f *follower) await(ctx context.Context, patience time.Duration, distributions, invalidations uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		f.mu.Lock()
		if f.applied.Distributions >= distributions && f.applied.Invalidations >= invalidations {
			f.mu.Unlock()
			return true
		}
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// start loads what is there and watches the collections until ctx ends.
func (f *follower) start(ctx context.Context) {
	r := f.s.options.Records
	f.tokens, f.proofs = map[string][]string{}, map[string]*proof{}
	f.table.Store(newTable(map[string]*site{}))
	follow(ctx, f, r.Distributions, &f.begins.Distributions, &f.applied.Distributions, f.distribution)
	follow(ctx, f, r.Invalidations, &f.begins.Invalidations, &f.applied.Invalidations, f.invalidation)
	follow(ctx, f, r.Challenges, &f.begins.Challenges, &f.applied.Challenges, f.challenge)
}

// follow applies the changes of one collection, in order. What is there now is
// applied before it returns, so that no viewer meets an edge that knows nothing.
func follow[T any](ctx context.Context, f *follower, c *state.Collection[T], begun, applied *uint64, apply func(state.Change[T])) {
	one := func(change state.Change[T]) {
		f.mu.Lock()
		*begun = max(*begun, change.Revision)
		f.mu.Unlock()
		apply(change)
		f.mu.Lock()
		*applied = max(*applied, change.Revision)
		if f.changed != nil {
			close(f.changed)
			f.changed = nil
		}
		f.mu.Unlock()
	}
	for _, item := range c.List("") {
		one(state.Change[T]{Item: item})
	}
	f.watches.Go(func() {
		for change := range c.Watch(ctx) {
			one(change)
		}
	})
}

// distribution applies a change of a distribution. One that is not enabled is as
// good as not there; one of a newer format changes nothing.
func (f *follower) distribution(c state.Change[distribution.Distribution]) {
	byID := maps.Clone(f.table.Load().byID)
	d := c.Value
	switch {
	case !c.Deleted && d.Format > distribution.Format:
		f.s.log.Error("a distribution's record is newer than this program: it is served as it was before", "distribution", c.Key, "format", d.Format)
		return
	case c.Deleted || !d.Enabled:
		delete(byID, c.Key)
	default:
		byID[c.Key] = prepare(&d, f.s.log)
	}
	f.table.Store(newTable(byID))
}

// invalidation takes what a change says out of the cache. The default root object
// is stored under its own path: who invalidates "/" means it.
func (f *follower) invalidation(c state.Change[distribution.Invalidation]) {
	if c.Deleted {
		return
	}
	inv := c.Value
	if root := f.rootObject(inv.Distribution); root != "" && slices.Contains(inv.Paths, "/") {
		inv.Paths = append(slices.Clone(inv.Paths), root)
	}
	if err := f.s.cache.Invalidate(inv); err != nil {
		f.s.log.Error("an invalidation could not be applied", "distribution", inv.Distribution, "invalidation", inv.ID, "error", err)
	}
}

// challenge has the answers to an authority's challenges given, or given no more.
func (f *follower) challenge(c state.Change[distribution.Challenge]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, token := range f.tokens[c.Key] {
		f.answers.Delete(token)
	}
	delete(f.tokens, c.Key)
	maps.DeleteFunc(f.proofs, func(_ string, p *proof) bool { return p.of == c.Key })
	if c.Deleted {
		return
	}
	for name, value := range c.Value.TLS {
		made, err := acme.ProofCertificate(name, value)
		if err != nil {
			f.s.log.Error("no proof can be made for an ACME authority", "certificate", c.Key, "name", name, "error", err)
			continue
		}
		f.proofs[name] = &proof{c.Key, made}
	}
	for token, content := range c.Value.HTTP {
		f.answers.Store(token, content)
		f.tokens[c.Key] = append(f.tokens[c.Key], token)
	}
}

// proof is a certificate for tls-alpn-01, and for which one it is shown.
type proof struct {
	of          string
	certificate *tls.Certificate
}

// Proof implements viewer.Sites.
func (s *Server) Proof(name string) *tls.Certificate {
	s.follow.mu.Lock()
	defer s.follow.mu.Unlock()
	if p := s.follow.proofs[name]; p != nil {
		return p.certificate
	}
	return nil
}

// answer returns what an authority wants to see at a path; false: none asks for it.
func (f *follower) answer(path string) (string, bool) {
	token, ok := strings.CutPrefix(path, acme.WellKnown)
	if !ok {
		return "", false
	}
	content, ok := f.answers.Load(token)
	if !ok {
		return "", false
	}
	return content.(string), true
}

func (f *follower) rootObject(id string) string {
	if s := f.table.Load().byID[id]; s != nil && s.d.DefaultRootObject != "" {
		return "/" + s.d.DefaultRootObject
	}
	return ""
}

// Site implements viewer.Sites.
func (s *Server) Site(name string) (viewer.Site, bool) {
	t := s.follow.table.Load().find(name)
	if t == nil {
		return viewer.Site{}, false
	}
	return viewer.Site{Certificate: t.d.Certificate, HTTP2: t.d.HTTP2, HTTP3: t.d.HTTP3}, true
}
