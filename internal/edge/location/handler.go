package location

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/edge/tier"
	"lapwing.dev/lapwing/internal/state"
)

// Handler serves the calls of locations, of those that want to join, and of the
// operator. It is for cluster.Node.Serve with Joining.
func (c *Core) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathJoin, func(w http.ResponseWriter, r *http.Request) {
		var req joinRequest
		serve(c, w, r, maxBody, &req, func() (any, error) { return c.join(r.Context(), req) })
	})
	mux.HandleFunc("POST "+pathRenew, c.member(func(name string, w http.ResponseWriter, r *http.Request) {
		serve(c, w, r, maxBody, new(struct{}), func() (any, error) { return c.renew(name, r) })
	}))
	mux.HandleFunc("POST "+pathReport, c.member(func(name string, w http.ResponseWriter, r *http.Request) {
		var req report
		serve(c, w, r, maxBody, &req, func() (any, error) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr) // as the listener says
			return c.report(name, host, req), nil
		})
	}))
	mux.HandleFunc("POST "+pathCredentials, c.member(func(_ string, w http.ResponseWriter, r *http.Request) {
		var req credentialsRequest
		serve(c, w, r, maxBody, &req, func() (any, error) { return c.issue(req) })
	}))
	mux.HandleFunc("POST "+pathLogs, c.member(func(_ string, w http.ResponseWriter, r *http.Request) {
		var req []logBatch
		serve(c, w, r, maxLogs, &req, func() (any, error) { return struct{}{}, c.takeLogs(req) })
	}))
	mux.HandleFunc("POST "+pathCounts, c.member(func(name string, w http.ResponseWriter, r *http.Request) {
		var req countsRequest
		serve(c, w, r, maxBody, &req, func() (any, error) { return struct{}{}, c.takeCounts(r.Context(), name, req) })
	}))
	mux.HandleFunc("GET "+pathPackage+"{digest}", c.member(func(_ string, w http.ResponseWriter, r *http.Request) { c.sendPackage(w, r) }))
	if c.opts.Peers != nil {
		mux.HandleFunc(tier.Prefix, c.member(func(_ string, w http.ResponseWriter, r *http.Request) { c.opts.Peers.ServeHTTP(w, r) }))
	}
	mux.HandleFunc("POST "+pathTokens, c.operator(func(w http.ResponseWriter, r *http.Request) {
		var req tokenRequest
		serve(c, w, r, maxBody, &req, func() (any, error) {
			t, err := c.Token(r.Context(), req.Name, req.TTL)
			return tokenAnswer{t.String()}, err
		})
	}))
	mux.HandleFunc("GET "+pathLocations, c.operator(func(w http.ResponseWriter, r *http.Request) {
		reply(w, c.Locations())
	}))
	mux.HandleFunc("DELETE "+pathLocations+"/{name}", c.operator(func(w http.ResponseWriter, r *http.Request) {
		serve(c, w, r, maxBody, new(struct{}), func() (any, error) { return struct{}{}, c.Remove(r.Context(), r.PathValue("name")) })
	}))
	aws := c.member(func(name string, w http.ResponseWriter, r *http.Request) {
		r.Header.Del(awsHeader)
		c.opts.AWS.ServeFrom(c.regionOf(name), w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(awsHeader) != "" {
			aws(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// member lets locations through, and tells which one calls.
func (c *Core) member(h func(name string, w http.ResponseWriter, r *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, ok := cluster.Caller(r); !ok {
			http.Error(w, "no edge location", http.StatusForbidden)
			return
		}
		name, err := c.Member(r.TLS.PeerCertificates[0])
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		h(name, w, r)
	}
}

func (c *Core) operator(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if i, ok := cluster.Caller(r); !ok || i.Role != cluster.Operator {
			http.Error(w, "no operator", http.StatusForbidden)
			return
		}
		h(w, r)
	}
}

// serve decodes a body of at most limit bytes into req, calls do, and sends what
// that returns. Errors that are not refusals are logged, not told.
func serve(c *Core, w http.ResponseWriter, r *http.Request, limit int64, req any, do func() (any, error)) {
	if req != nil {
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit)).Decode(req); err != nil {
			http.Error(w, "the body is not what it should be", http.StatusBadRequest)
			return
		}
	}
	v, err := do()
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		http.Error(w, refused.message, refused.status)
	case err != nil:
		c.log.Error("a call of a node failed", "path", r.URL.Path, "error", err)
		http.Error(w, "internal failure", http.StatusInternalServerError)
	default:
		reply(w, v)
	}
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked may be gone
}

// renew issues a new certificate to a location for the key that it has.
func (c *Core) renew(name string, r *http.Request) (any, error) {
	der, err := c.opts.Authority.Sign(cluster.Identity{Role: cluster.Edge, Name: name}, r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)
	return renewed{der}, err
}

// issue issues credentials of a role, if it is one of a function that locations
// run, or of CloudFront itself, for origins, or of who delivers logs.
func (c *Core) issue(r credentialsRequest) (any, error) {
	if r.Role == CloudFront || r.Role == LogDelivery {
		s, err := c.opts.Credentials.IssueFor(aws.Identity{AccountID: c.opts.AccountID, ARN: r.Role, UserID: r.Role}, time.Duration(r.Seconds)*time.Second)
		return credentialsAnswer{s}, err
	}
	known := false
	for item := range c.opts.Records.Replicas.Scan("", "") {
		known = known || item.Value.Role == r.Role
	}
	if !known {
		return nil, refuse(http.StatusForbidden, "no function at edge locations has the role %q", r.Role)
	}
	s, err := c.opts.Credentials.Issue(r.Role, r.Session, time.Duration(r.Seconds)*time.Second)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%v", err)
	}
	return credentialsAnswer{s}, nil
}

// takeLogs keeps what functions printed at a location. CloudFront has it in the
// Region of the location; here there is one Region.
func (c *Core) takeLogs(batches []logBatch) error {
	for _, b := range batches {
		if !edgeGroup(c.opts.Region, b.Group) {
			return refuse(http.StatusBadRequest, "edge locations have no log group %q", b.Group)
		}
		if err := c.opts.Logs.Append(b.Group, b.Stream, b.Events); err != nil {
			return err
		}
	}
	return nil
}

// edgeGroup tells whether a log group is one that edge locations write: of a
// function, which has the functions' Region before its name, or of what CloudFront
// says of functions' results.
func edgeGroup(region, name string) bool {
	return strings.HasPrefix(name, "/aws/cloudfront/LambdaEdge/") || strings.HasPrefix(strings.TrimPrefix(name, "/aws/lambda/"), region+".")
}

// sendPackage sends a code package that locations run.
func (c *Core) sendPackage(w http.ResponseWriter, r *http.Request) {
	digest, err := state.ParseDigest(r.PathValue("digest"))
	if err != nil {
		http.Error(w, "no digest", http.StatusBadRequest)
		return
	}
	known := false
	for item := range c.opts.Records.Replicas.Scan("", "") {
		known = known || item.Value.Code == string(digest)
	}
	if !known {
		http.Error(w, "no function at edge locations has this package", http.StatusForbidden)
		return
	}
	f, err := c.opts.Packages.OpenPackage(string(digest))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, state.ErrNotFound) {
		http.NotFound(w, r)
		return
	}
	if err != nil {
		c.log.Error("a code package cannot be read", "digest", digest, "error", err)
		http.Error(w, "internal failure", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/zip")
	http.ServeContent(w, r, "", time.Time{}, f)
}

// messageOf returns what a refusing answer says, for errors.
func messageOf(r *http.Response) string {
	b, _ := io.ReadAll(io.LimitReader(r.Body, 512)) // as much as there is
	return strings.TrimSpace(string(b))
}
