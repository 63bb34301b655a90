// Package tier is how edge locations ask one another before one of them asks an
// origin:
//
//	edge location → regional edge cache → origin shield → origin
//
// A location that the operator designates as regional is the regional edge cache of
// its Region, and the shield of origins whose shield is in that Region. Network
// knows which locations there are and says whom to ask for an object; Request and
// Reply are what the two say to each other beside HTTP: the answer itself is a
// response as a viewer might get it.
//
// No request goes in a circle: each one carries a Level, the location that answers
// it asks only those of a higher one, and a shield asks origins only.
//
// The tiers are those of the CloudFront developer guide ("How CloudFront works with
// regional edge caches", "Using Amazon CloudFront Origin Shield"). How they talk is
// our own.
package tier

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Level is how far on its way to the origin a request is.
type Level int

// The levels.
const (
	Edge     Level = iota // asked by a viewer
	Regional              // asked as the regional edge cache of the asker's Region
	Shield                // asked as the shield of an origin: only the origin is left
)

const (
	// attempts is how many locations of a tier are asked before the next tier is.
	attempts = 2
	// pause is how long a location is left alone that could not be reached.
	pause = 2 * time.Second
	// headTimeout bounds the wait for the head of an answer: an origin may have
	// three attempts of two minutes, and functions before and after each. A location
	// that is gone is noticed much earlier, by the connection.
	headTimeout = 10 * time.Minute
)

// Place is a location, as the others know it.
type Place struct {
	Name, Region string
	// Address is the HOST:PORT at which other locations reach it; empty: they do not.
	Address string
	// Core tells that it is the core's own location.
	Core bool
	// Regional tells that it is a regional edge cache.
	Regional bool
}

// Options configures a Network.
type Options struct {
	Self Place
	// Others returns the other locations that there are by now.
	Others func() []Place
	// Transport makes what reaches a location, and nobody else, whatever is at its
	// address.
	Transport func(Place) http.RoundTripper
	Logger    *slog.Logger
}

// Network is the other locations, as this one sees them. It is safe for concurrent
// use.
type Network struct {
	options Options

	mu    sync.Mutex
	peers map[Place]*Peer
}

// New returns a Network. Close ends its idle connections.
func New(o Options) *Network { return &Network{options: o, peers: map[Place]*Peer{}} }

// Peer is another location.
type Peer struct {
	Place
	transport http.RoundTripper
	down      atomic.Int64 // until when it is left alone, in nanoseconds of Unix time; 0: it answers
}

// Close ends the connections that are idle.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		p.close()
	}
}

func (p *Peer) close() {
	if c, ok := p.transport.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Find returns the location of a name that can be reached.
func (n *Network) Find(name string) (*Peer, bool) {
	for _, p := range n.reachable() {
		if p.Name == name {
			return p, true
		}
	}
	return nil, false
}

// reachable returns the locations that have an address.
func (n *Network) reachable() []*Peer {
	places := n.options.Others()
	n.mu.Lock()
	defer n.mu.Unlock()
	for place, p := range n.peers {
		if !slices.Contains(places, place) {
			p.close()
			delete(n.peers, place)
		}
	}
	var peers []*Peer
	for _, place := range places {
		if place.Address == "" || place.Name == n.options.Self.Name {
			continue
		}
		p := n.peers[place]
		if p == nil {
			p = &Peer{Place: place, transport: n.options.Transport(place)}
			n.peers[place] = p
		}
		peers = append(peers, p)
	}
	return peers
}

// Region returns the name of this location's Region.
func (n *Network) Region() string { return n.options.Self.Region }

// Caches returns the regional edge caches of a Region that are to be asked for the
// object of a key, in that order; none where there are none, or this location is
// the one to ask. Every location comes to the same order.
func (n *Network) Caches(region string, key [32]byte) []*Peer {
	if region == "" {
		return nil
	}
	var found []*Peer
	self := n.options.Self
	limit := uint64(0) // the rank of this location: those below it are not asked
	if self.Regional && self.Region == region {
		limit = rank(self.Name, key)
	}
	now := time.Now().UnixNano()
	for _, p := range n.reachable() {
		if p.Regional && p.Region == region && p.down.Load() <= now && rank(p.Name, key) > limit {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b *Peer) int { return cmp.Compare(rank(b.Name, key), rank(a.Name, key)) })
	return found[:min(len(found), attempts)]
}

// rank orders locations for a key (rendezvous hashing): where one goes, its keys are
// spread over the others, whose own stay.
func rank(name string, key [32]byte) uint64 {
	sum := sha256.Sum256(append(key[:], name...))
	return binary.BigEndian.Uint64(sum[:]) | 1 // above a limit of 0
}

var (
	errHead = errors.New("no answer in time")
	errDown = errors.New("it could not be reached a moment ago")
)

// claim tells whether a location is to be tried: after a failure one request finds
// out whether it is back, while the others do without. before is what down was.
func (p *Peer) claim() (before int64, ok bool) {
	before = p.down.Load()
	now := time.Now()
	return before, before == 0 || before <= now.UnixNano() && p.down.CompareAndSwap(before, now.Add(pause).UnixNano())
}

// Ask asks a location for an object. An error is that of a location that did not
// answer, or cannot: the caller asks another, or the origin. The answer's body must
// be closed.
func (n *Network) Ask(ctx context.Context, p *Peer, q *Request) (*http.Response, *Reply, error) {
	before, ok := p.claim()
	if !ok {
		return nil, nil, fmt.Errorf("tier: ask %s: %w", p.Name, errDown)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(headTimeout, func() { cancel(errHead) })
	defer timer.Stop()
	resp, err := p.transport.RoundTrip(q.encode(ctx, p.Address))
	if err != nil {
		if ctx.Err() == nil || context.Cause(ctx) == errHead {
			p.down.Store(time.Now().Add(pause).UnixNano())
			n.options.Logger.Info("an edge location cannot be reached; others are asked", "location", p.Name, "error", err)
		} else {
			p.down.Store(before) // nothing was found out
		}
		cancel(nil)
		return nil, nil, fmt.Errorf("tier: ask %s: %w", p.Name, err)
	}
	p.down.Store(0)
	reply, err := decodeReply(resp)
	if err != nil {
		err = fmt.Errorf("tier: ask %s: %w", p.Name, err)
		_ = resp.Body.Close() // it says nothing that counts
		cancel(nil)
		return nil, nil, err
	}
	resp.Body = &body{resp.Body, cancel}
	return resp, reply, nil
}

// body is that of an answer, with what ends its request.
type body struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

// Close implements io.Closer.
func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
