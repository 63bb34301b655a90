package location

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/edge/tier"
)

const (
	peersFile    = "peers.json"
	peersVersion = 1
)

// peersContent is the file with what the core said last of other locations: after a
// restart they are asked, and believed, though the core cannot be reached.
type peersContent struct {
	Version int
	Peers   []peer
}

// readPeers reads the file; where there is none nobody is known.
func readPeers(path string) ([]peer, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c peersContent
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if c.Version > peersVersion {
		return nil, fmt.Errorf("%s has format version %d, written by a newer lapwing; this one reads up to %d", path, c.Version, peersVersion)
	}
	return c.Peers, nil
}

// learn heeds and keeps what the core says of other locations.
func (n *Node) learn(peers []peer) {
	n.peersMu.Lock()
	defer n.peersMu.Unlock()
	if slices.Equal(n.peers, peers) {
		return
	}
	n.peers = peers
	b, err := json.Marshal(peersContent{peersVersion, peers})
	if err == nil {
		err = replaceFile(filepath.Join(n.opts.Dir, peersFile), b)
	}
	if err != nil {
		n.log.Error("the list of edge locations was not written: after a restart without the core an older one counts", "error", err)
	}
}

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
