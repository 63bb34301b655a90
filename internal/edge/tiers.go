package edge

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/origin"
	"lapwing.dev/lapwing/internal/edge/policy"
	"lapwing.dev/lapwing/internal/edge/tier"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

// tiered tells whether other locations may be asked for the answer: where it may
// come from a cache. All else goes straight to the origin, as on CloudFront what is
// dynamic bypasses regional edge caches; and so does what a function sends to an
// origin of its own choice, of which other locations do not know.
func (x *exchange) tiered() bool {
	return x.s.options.Tiers != nil && x.route == nil && x.plan.Caches(x.request.Method) && x.body == nil
}

// depth is how far a fetch for this request goes by itself: to the origin, or to
// locations above its level.
func (x *exchange) depth() tier.Level {
	if !x.tiered() {
		return tier.Shield
	}
	key := x.key("")
	if x.level < tier.Regional && len(x.s.regional(key)) > 0 {
		return x.level
	}
	if x.level < tier.Shield {
		for _, o := range x.site.asked(x.plan.Behaviour, x.origin) {
			if len(x.s.options.Tiers.Caches(o.ShieldRegion, key)) > 0 {
				return x.level
			}
		}
	}
	return tier.Shield
}

// regional returns the regional edge caches to ask.
func (s *Server) regional(key [32]byte) []*tier.Peer {
	return s.options.Tiers.Caches(s.options.Tiers.Region(), key)
}

// asked returns the origins that may be asked for a behaviour.
func (t *site) asked(b *distribution.Behaviour, one string) []*distribution.Origin {
	ids := []string{b.Origin}
	if one != "" {
		ids = []string{one}
	} else if g := t.groups[b.Origin]; g != nil {
		ids = g.Members[:]
	}
	var found []*distribution.Origin
	for _, id := range ids {
		if o := t.origins[id]; o != nil {
			found = append(found, o)
		}
	}
	return found
}

// askRegional asks the regional edge caches of this Region; nil and no error: there
// are none, or none answers.
func (j *job) askRegional(ctx context.Context) (*fetched, error) {
	if j.level >= tier.Regional {
		return nil, nil
	}
	return j.askPeers(ctx, tier.Regional, j.s.regional(j.key), "")
}

// askShield asks an origin's shield; nil and no error: it has none, or that does not
// answer.
func (j *job) askShield(ctx context.Context, o *distribution.Origin) (*fetched, error) {
	if j.level >= tier.Shield || o.ShieldRegion == "" {
		return nil, nil
	}
	member := ""
	if j.site.groups[j.plan.Behaviour.Origin] != nil {
		member = o.ID
	}
	return j.askPeers(ctx, tier.Shield, j.s.options.Tiers.Caches(o.ShieldRegion, j.key), member)
}

// askPeers asks locations in turn until one answers.
func (j *job) askPeers(ctx context.Context, level tier.Level, peers []*tier.Peer, member string) (*fetched, error) {
	if len(peers) == 0 {
		return nil, nil
	}
	// What has begun to be applied here has been applied there before it answers.
	q := &tier.Request{
		Level: level, Distribution: j.site.d.ID, Behaviour: j.plan.Behaviour.Pattern, Origin: member, ID: j.id, Client: j.client, Secure: j.secure,
		Method: j.method, Host: j.asked, Path: j.path, Query: j.query, Header: j.header,
	}
	q.Distributions, q.Invalidations = j.s.follow.begun()
	for _, p := range peers {
		requested := time.Now()
		response, reply, err := j.s.options.Tiers.Ask(ctx, p, q)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = response.Body.Close() // nobody waits for it
			}
			return nil, context.Cause(ctx)
		case err != nil:
			j.s.log.Debug("another location does not answer", "requestId", j.id, "location", p.Name, "error", err)
			continue
		case reply.Failure != nil:
			return nil, errors.Join(failureOf(reply.Failure), response.Body.Close())
		}
		delete(response.Header, "Content-Length")
		f := &fetched{
			status: response.StatusCode, header: response.Header, body: response.Body, length: response.ContentLength,
			requested: requested, received: time.Now(), cut: reply.Cut, from: reply,
		}
		if reply.Result != resultMiss {
			f.result = reply.Result
		}
		j.resume(ctx, f)
		return f, nil
	}
	return nil, nil
}

// failureOf makes the error that another location met.
func failureOf(f *tier.Failure) error {
	if f.Class != "" {
		return &trigger.Error{Class: trigger.Class(f.Class), Text: f.Text}
	}
	return origin.Elsewhere(origin.Detail(f.Detail), f.Timeout)
}

// behindFor is how long a location that is asked waits for the records that the
// asker has.
const behindFor = 500 * time.Millisecond

// serveTier answers another location that asks for an object.
func (s *Server) serveTier(w http.ResponseWriter, r *http.Request) {
	q, err := tier.Decode(r)
	if err != nil {
		http.Error(w, "the request is not understood", http.StatusBadRequest)
		return
	}
	x := s.asks(w, r, q)
	if x == nil {
		// The asker goes elsewhere.
		http.Error(w, "this location does not serve that yet", http.StatusServiceUnavailable)
		return
	}
	a, err := x.answer()
	if err != nil {
		x.failedTier(err)
		return
	}
	x.sendTier(a)
}

// asks makes an exchange of another location's request; nil where this one cannot
// answer, since it does not have the records that the other one has.
func (s *Server) asks(w http.ResponseWriter, r *http.Request, q *tier.Request) *exchange {
	if !s.follow.await(r.Context(), behindFor, q.Distributions, q.Invalidations) {
		return nil
	}
	t := s.follow.table.Load().byID[q.Distribution]
	if t == nil {
		return nil
	}
	i := slices.IndexFunc(t.plans, func(p *policy.Plan) bool { return p.Behaviour.Pattern == q.Behaviour })
	if i < 0 || !t.plans[i].Caches(q.Method) || q.Origin != "" && t.origins[q.Origin] == nil {
		return nil
	}
	return &exchange{
		s: s, w: w, r: r, id: q.ID, began: time.Now(), client: netip.AddrPortFrom(q.Client, 0), secure: q.Secure, site: t, plan: t.plans[i],
		request: policy.Request{Method: q.Method, Host: q.Host, Path: q.Path, Query: q.Query, Header: q.Header},
		level:   q.Level, origin: q.Origin,
	}
}

// failedTier tells another location what has failed here.
func (x *exchange) failedTier(err error) {
	if x.r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the other location has left
	}
	f := &tier.Failure{}
	if e, ok := errors.AsType[*trigger.Error](err); ok {
		f.Class, f.Text = string(e.Class), e.Text
	} else if e, ok := errors.AsType[*origin.Error](err); ok {
		f.Detail, f.Timeout = string(e.Detail), e.Timeout()
	} else {
		x.s.log.Error("a request of another location failed", "requestId", x.id, "distribution", x.site.d.ID, "error", err)
		http.Error(x.w, "internal failure", http.StatusInternalServerError)
		return
	}
	x.s.log.Debug("a request of another location failed", "requestId", x.id, "distribution", x.site.d.ID, "error", err)
	x.replyFailure(f)
}

// layer is the level of the cache that had a hit, as the location that asks is told.
func (x *exchange) layer(a *answer) tier.Level {
	if a.layer == tier.Edge && a.result == resultHit {
		return x.level
	}
	return a.layer
}

// detailOf is the detail of an answer that a shield's cache had ("Standard log file
// fields").
func detailOf(a *answer) string {
	if a.detail == "" && a.result == resultHit && a.layer == tier.Shield {
		return "OriginShieldHit"
	}
	return a.detail
}

func (x *exchange) replyFailure(f *tier.Failure) {
	reply := tier.Reply{Result: resultError, Failure: f}
	reply.Encode(x.w.Header())
	x.w.WriteHeader(http.StatusBadGateway)
}

// sendTier sends an answer to another location: as it is stored, without what is for
// viewers.
func (x *exchange) sendTier(a *answer) {
	defer a.release()
	if a.failure != "" {
		x.replyFailure(&tier.Failure{Detail: a.failure, Timeout: a.status == http.StatusGatewayTimeout})
		return
	}
	h := x.w.Header()
	for name, v := range a.header {
		h[name] = v
	}
	part := x.cut(a, h)
	reply := tier.Reply{Result: a.result, Cut: a.cut}
	if a.object != nil {
		now := time.Now()
		life := a.object.Head.Lifetime.At(now)
		if a.status < http.StatusBadRequest || a.status == a.object.Head.Status { // else it is no object
			reply.Lifetime = &life
		}
		if age := life.InitialAge.Truncate(time.Second); age > 0 {
			h["Age"] = []string{strconv.FormatInt(int64(age/time.Second), 10)}
		}
	}
	reply.Layer = x.layer(a)
	reply.Encode(h)
	if bodyAllowed(a.status) && part.length >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(part.length, 10)}
	}
	x.w.WriteHeader(a.status)
	if x.r.Method == http.MethodHead || !bodyAllowed(a.status) {
		return
	}
	if a.object == nil || a.object.Arriving() {
		_ = http.NewResponseController(x.w).Flush() // the first bytes may be long in coming
	}
	if err := x.write(a, part); err != nil {
		x.s.log.Debug("an answer to another location was broken off", "requestId", x.id, "error", err)
		panic(http.ErrAbortHandler) // it must not take it for a whole one
	}
}
