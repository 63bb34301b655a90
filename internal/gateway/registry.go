package gateway

import (
	"net/http"
	"strings"
)

// serveRegistry serves a request that is for the container registry, and tells
// whether it was one. Registries are at /v2/ of a host, whatever its name; the
// handler authenticates. APIs have paths like that, too, and objects in buckets
// that a host names: those are told apart by a signature and by the host.
func (g *Gateway) serveRegistry(w *response, r *http.Request, x *exchange) bool {
	if g.options.Registry == nil || r.URL.Path != "/v2" && !strings.HasPrefix(r.URL.Path, "/v2/") {
		return false
	}
	query := r.URL.Query()
	if strings.HasPrefix(r.Header.Get("Authorization"), "AWS") || query.Has("X-Amz-Signature") || query.Has("Signature") {
		return false
	}
	at := parseHost(r.Host, "", g.domains, func(prefix string) bool { return g.prefixes[prefix] != nil })
	if at.bucket != "" {
		return false
	}
	x.span.Rename("ECR/" + r.Method)
	g.options.Registry.ServeHTTP(w, r)
	return true
}
