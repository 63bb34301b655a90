package wire

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/schema"
)

// route is a prepared route of a REST operation.
type route struct {
	operation *aws.Operation // nil where the service does not serve it
	name      string
	method    string
	segments  []segment
	literals  [][2]string // query parameters of the template
	query     []string    // required parameters
	headers   []string    // required headers, canonical
}

type segment struct {
	text   string // a literal, or the label's name
	label  bool
	greedy bool // the label takes the rest of the path
}

// routers holds the prepared routes of each REST service.
var routers sync.Map // *aws.Service -> []*route

func routesOf(svc *aws.Service) []*route {
	if v, ok := routers.Load(svc); ok {
		return v.([]*route)
	}
	var routes []*route
	for _, op := range svc.Operations {
		t := aws.Route{Operation: op.Name, Method: op.Method, URI: op.URI}
		for _, m := range op.Input.Members {
			if m.Required && m.Location == schema.Query {
				t.Query = append(t.Query, m.WireName())
			}
			if m.Required && m.Location == schema.Header {
				t.Headers = append(t.Headers, m.WireName())
			}
		}
		r := newRoute(t)
		r.operation = op
		routes = append(routes, r)
	}
	for _, t := range svc.Unserved {
		routes = append(routes, newRoute(t))
	}
	v, _ := routers.LoadOrStore(svc, routes)
	return v.([]*route)
}

func newRoute(t aws.Route) *route {
	r := &route{name: t.Operation, method: t.Method, query: t.Query}
	for _, h := range t.Headers {
		r.headers = append(r.headers, http.CanonicalHeaderKey(h))
	}
	path, query, _ := strings.Cut(t.URI, "?")
	for s := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if s == "" {
			continue
		}
		label, isLabel := strings.CutPrefix(s, "{")
		label = strings.TrimSuffix(label, "}")
		name, greedy := strings.CutSuffix(label, "+")
		r.segments = append(r.segments, segment{text: name, label: isLabel, greedy: greedy})
	}
	if query != "" {
		for p := range strings.SplitSeq(query, "&") {
			k, v, _ := strings.Cut(p, "=")
			r.literals = append(r.literals, [2]string{k, v})
		}
	}
	return r
}

// route finds the operation of a REST request and its labels.
func (c *Call) route(r *http.Request) error {
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	path := r.URL.EscapedPath()
	var best *route
	var bestScore int
	for _, rt := range routesOf(c.Service) {
		if rt.method != r.Method || !rt.matches(path) {
			continue
		}
		if score, ok := rt.score(query, r.Header); ok && (best == nil || score > bestScore) {
			best, bestScore = rt, score
		}
	}
	if best == nil {
		return c.unknownOperation(r.Method + " " + r.URL.Path)
	}
	if best.operation == nil {
		return c.unknownOperation(best.name)
	}
	c.Operation, c.query = best.operation, query
	c.labels, err = best.labels(path)
	return err
}

// score ranks the routes that match the path: by literal segments, then by the
// query parameters that the template fixes, then by what the operation requires,
// which tells apart operations of one template such as PutObject and UploadPart.
func (rt *route) score(query url.Values, h http.Header) (int, bool) {
	score := 0
	for _, s := range rt.segments {
		if !s.label {
			score += 10000
		} else if !s.greedy {
			score += 1000
		}
	}
	for _, l := range rt.literals {
		values, ok := query[l[0]]
		if !ok || l[1] != "" && !slices.Contains(values, l[1]) {
			return 0, false
		}
		score += 100
	}
	required := len(rt.query) + len(rt.headers)
	for _, q := range rt.query {
		if !query.Has(q) {
			return score - 10*required, true
		}
	}
	for _, name := range rt.headers {
		if len(h[name]) == 0 {
			return score - 10*required, true
		}
	}
	return score + 10*required, true
}

func (rt *route) matches(path string) bool {
	rest := strings.TrimPrefix(path, "/")
	for i, s := range rt.segments {
		if s.greedy {
			return rest != ""
		}
		var part string
		var more bool
		part, rest, more = strings.Cut(rest, "/")
		if part == "" || !s.label && part != s.text {
			return false
		}
		if i == len(rt.segments)-1 {
			return !more || rest == ""
		}
	}
	return rest == ""
}

// labels decodes the labels of a path that matches.
func (rt *route) labels(path string) (map[string]string, error) {
	labels := make(map[string]string, 2)
	rest := strings.TrimPrefix(path, "/")
	for _, s := range rt.segments {
		part := rest
		if !s.greedy {
			part, rest, _ = strings.Cut(rest, "/")
		}
		if !s.label {
			continue
		}
		value, err := url.PathUnescape(part)
		if err != nil {
			return nil, &aws.Error{Code: "InvalidURI", Status: 400, Message: "Couldn't parse the specified URI."}
		}
		labels[s.text] = value
	}
	return labels, nil
}
