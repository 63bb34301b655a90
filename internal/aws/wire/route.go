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

	input, output bindings
}

type segment struct {
	text   string // a literal, or the label's name
	label  bool
	greedy bool // the label takes the rest of the path
}

// label is a label of a path with its value, decoded.
type label struct{ name, value string }

// bindings are how the members of a shape are bound to the parts of a message, as
// far as it takes more than a look at a member to know it.
type bindings struct {
	fields  []string       // the canonical name of the header that a member is bound to, by its number
	payload *schema.Member // bound to the whole body; nil: none
	events  *schema.Member // a stream of events; nil: none
	hasBody bool           // members are in the body
}

func bindingsOf(s *schema.Shape) bindings {
	b := bindings{fields: make([]string, len(s.Members)), payload: s.Bound(schema.Payload), events: eventMember(s)}
	for i := range s.Members {
		switch m := &s.Members[i]; m.Location {
		case schema.Header:
			b.fields[i] = http.CanonicalHeaderKey(m.WireName())
		case schema.Body:
			b.hasBody = true
		}
	}
	return b
}

// router finds the routes of a REST service.
type router struct {
	whole  map[form][]*route   // that are as many segments as they have
	greedy map[string][]*route // by method; of those with a greedy label
}

// form is what most routes differ in already.
type form struct {
	method   string
	segments int
}

// maxSegments is more than any route has without a greedy label.
const maxSegments = 16

// routers holds the router of each REST service.
var routers sync.Map // *aws.Service -> *router

func routerOf(svc *aws.Service) *router {
	if v, ok := routers.Load(svc); ok {
		return v.(*router)
	}
	rs := &router{whole: map[form][]*route{}, greedy: map[string][]*route{}}
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
		r.operation, r.input, r.output = op, bindingsOf(op.Input), bindingsOf(op.Output)
		rs.add(r)
	}
	for _, t := range svc.Unserved {
		rs.add(newRoute(t))
	}
	v, _ := routers.LoadOrStore(svc, rs)
	return v.(*router)
}

func (rs *router) add(r *route) {
	if slices.ContainsFunc(r.segments, func(s segment) bool { return s.greedy }) {
		rs.greedy[r.method] = append(rs.greedy[r.method], r)
		return
	}
	f := form{r.method, len(r.segments)}
	rs.whole[f] = append(rs.whole[f], r)
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

// find finds the operation of a REST request and its labels.
func (c *Call) find(r *http.Request) error {
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	path := r.URL.EscapedPath()
	var best *route
	var bestScore int
	consider := func(rt *route) {
		if score, ok := rt.score(query, r.Header); ok && (best == nil || score > bestScore) {
			best, bestScore = rt, score
		}
	}
	routes := routerOf(c.Service)
	var parts [maxSegments]string
	if n, ok := split(path, &parts); ok {
		for _, rt := range routes.whole[form{r.Method, n}] {
			if rt.is(parts[:n]) {
				consider(rt)
			}
		}
	}
	for _, rt := range routes.greedy[r.Method] {
		if rt.begins(path) {
			consider(rt)
		}
	}
	if best == nil {
		return c.unknownOperation(r.Method + " " + r.URL.Path)
	}
	if best.operation == nil {
		return c.unknownOperation(best.name)
	}
	c.Operation, c.route, c.query = best.operation, best, query
	c.labels, err = best.labels(path)
	return err
}

// split splits a path, whose end may be a slash, into its segments. It fails where
// one is empty, or there are too many.
func split(path string, parts *[maxSegments]string) (n int, ok bool) {
	for rest := strings.TrimPrefix(path, "/"); rest != ""; n++ {
		if n == len(parts) {
			return 0, false
		}
		if parts[n], rest, _ = strings.Cut(rest, "/"); parts[n] == "" {
			return 0, false
		}
	}
	return n, true
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

// is tells whether a path of so many segments is one of the route. The last ones are
// those that routes differ in.
func (rt *route) is(parts []string) bool {
	for i := len(parts) - 1; i >= 0; i-- {
		if s := &rt.segments[i]; !s.label && parts[i] != s.text {
			return false
		}
	}
	return true
}

// begins tells whether a path begins as the route does, up to its greedy label.
func (rt *route) begins(path string) bool {
	rest := strings.TrimPrefix(path, "/")
	for _, s := range rt.segments {
		if s.greedy {
			return rest != ""
		}
		var part string
		if part, rest, _ = strings.Cut(rest, "/"); part == "" || !s.label && part != s.text {
			return false
		}
	}
	return false
}

// labels decodes the labels of a path that matches.
func (rt *route) labels(path string) ([]label, error) {
	labels := make([]label, 0, 2)
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
		labels = append(labels, label{s.text, value})
	}
	return labels, nil
}
