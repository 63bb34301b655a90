package location

import (
	"net/http"

	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/edge/tier"
)

// Others returns the other locations, as the core said last.
func (n *Node) Others() []tier.Place {
	core := n.core()
	n.peersMu.Lock()
	defer n.peersMu.Unlock()
	var places []tier.Place
	for _, p := range n.peers {
		if p.Core {
			p.Address = core
		}
		if p.Name != n.membership.Name {
			places = append(places, p.Place)
		}
	}
	return places
}

// Members lets the core and the locations of the installation through to a handler.
// It is for cluster.Node.Serve.
func (n *Node) Members(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !n.member(r) {
			http.Error(w, "no edge location", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// member tells whether a request is the core's or that of a location which has not
// been removed, as the core said last.
func (n *Node) member(r *http.Request) bool {
	i, ok := cluster.Caller(r)
	if !ok || i.Role == cluster.Core {
		return ok
	}
	key := cluster.Fingerprint(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)
	n.peersMu.Lock()
	defer n.peersMu.Unlock()
	for _, p := range n.peers {
		if p.Name == i.Name && p.Key == key && i.Role == cluster.Edge {
			return true
		}
	}
	return false
}

// IdentityOf returns who the node of a location is.
func IdentityOf(p tier.Place) cluster.Identity {
	if p.Core {
		return cluster.Identity{Role: cluster.Core, Name: CoreName}
	}
	return cluster.Identity{Role: cluster.Edge, Name: p.Name}
}

// CoreName is the core's name among the nodes.
const CoreName = "core"
