package edge

import (
	"fmt"
	"net/http"

	"lapwing.dev/lapwing/internal/edge/tier"
)

// locationHeader is the request header by which a viewer says which edge location is
// to serve it, for tests, where the operator lets viewers (Options.HandOver). Neither
// functions nor origins see it, in no case.
const locationHeader = "X-Lapwing-Edge-Location"

// handOver has another location serve a request, if it says so and may.
func (s *Server) handOver(w http.ResponseWriter, r *http.Request) bool {
	names, ok := r.Header[locationHeader]
	if !ok {
		return false
	}
	delete(r.Header, locationHeader)
	if !s.options.HandOver || len(names) != 1 || names[0] == s.options.Location {
		return false
	}
	refuse := func(status int, why string) {
		w.Header()["X-Amz-Cf-Pop"] = s.pop
		http.Error(w, fmt.Sprintf("%s: %s", locationHeader, why), status)
	}
	if isUpgrade(r) {
		refuse(http.StatusNotImplemented, "a WebSocket cannot be handed to another edge location")
		return true
	}
	var to *tier.Peer
	if s.options.Tiers != nil {
		to, _ = s.options.Tiers.Find(names[0])
	}
	if to == nil {
		refuse(http.StatusBadRequest, fmt.Sprintf("no edge location %q can be reached", names[0]))
		return true
	}
	s.options.Tiers.HandOver(to, w, r, func(err error) {
		s.log.Debug("a request was not handed over", "location", to.Name, "error", err)
		refuse(http.StatusBadGateway, fmt.Sprintf("edge location %s does not answer", to.Name))
	})
	return true
}

// Peers returns what serves other locations, at the paths of package tier. Who calls
// it has made sure that they are such.
func (s *Server) Peers() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(tier.ObjectPath, s.serveTier)
	mux.HandleFunc(tier.ViewerPath, func(w http.ResponseWriter, r *http.Request) {
		viewer, err := tier.HandedOver(r)
		if err != nil {
			http.Error(w, "the request is not understood", http.StatusBadRequest)
			return
		}
		s.ServeHTTP(w, viewer)
	})
	return mux
}
