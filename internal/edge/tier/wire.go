package tier

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"lapwing.dev/lapwing/internal/edge/freshness"
)

// aside is the header with what is said beside HTTP, in requests and in answers: a
// query string, so that any bytes pass.
const aside = "Lapwing-Tier"

// Request is a viewer's request as one location hands it to another: after the
// viewer-request function, with the headers that an origin would get.
type Request struct {
	Level Level
	// Distribution is its id, Behaviour the pattern of the behaviour in it.
	Distribution, Behaviour string
	// Origin is the id of the member of an origin group that is to be asked, for a
	// shield; empty: the behaviour's origin.
	Origin string
	// ID is the viewer's X-Amz-Cf-Id.
	ID     string
	Client netip.Addr
	Secure bool // the viewer came by TLS

	Method, Host, Path, Query string
	// Header has conditions and a Range in the asking location's own words.
	Header http.Header

	// Distributions and Invalidations are the revisions that the asker has: who is
	// behind them would answer with what the asker was told to forget.
	Distributions, Invalidations uint64
}

// encode makes the HTTP request.
func (q *Request) encode(ctx context.Context, address string) *http.Request {
	v := url.Values{
		"level": {strconv.Itoa(int(q.Level))}, "distribution": {q.Distribution}, "behaviour": {q.Behaviour}, "id": {q.ID},
		"host": {q.Host}, "path": {q.Path}, "query": {q.Query},
		"revisions": {strconv.FormatUint(q.Distributions, 10), strconv.FormatUint(q.Invalidations, 10)},
	}
	if q.Client.IsValid() {
		v.Set("client", q.Client.String())
	}
	if q.Origin != "" {
		v.Set("origin", q.Origin)
	}
	if q.Secure {
		v.Set("secure", "1")
	}
	h := q.Header.Clone()
	h[aside] = []string{v.Encode()}
	r := &http.Request{Method: q.Method, URL: &url.URL{Scheme: "https", Host: address, Path: ObjectPath}, Header: h, Host: address}
	return r.WithContext(ctx)
}

// errRequest is a request that no location makes.
var errRequest = errors.New("tier: the request is not understood")

// valuesOf reads what passes beside the request itself.
func valuesOf(r *http.Request) (url.Values, error) {
	lines := r.Header[aside]
	if len(lines) != 1 {
		return nil, errRequest
	}
	v, err := url.ParseQuery(lines[0])
	if err != nil {
		return nil, errRequest
	}
	return v, nil
}

// Decode reads the Request of an HTTP request, whose header it takes over.
func Decode(r *http.Request) (*Request, error) {
	v, err := valuesOf(r)
	if err != nil {
		return nil, err
	}
	q := &Request{
		Distribution: v.Get("distribution"), Behaviour: v.Get("behaviour"), Origin: v.Get("origin"), ID: v.Get("id"), Secure: v.Get("secure") != "",
		Method: r.Method, Host: v.Get("host"), Path: v.Get("path"), Query: v.Get("query"), Header: r.Header,
	}
	level, err := strconv.Atoi(v.Get("level"))
	if q.Level = Level(level); err != nil || q.Level != Regional && q.Level != Shield {
		return nil, errRequest
	}
	if text := v.Get("client"); text != "" {
		if q.Client, err = netip.ParseAddr(text); err != nil {
			return nil, errRequest
		}
	}
	revisions := v["revisions"]
	if len(revisions) != 2 {
		return nil, errRequest
	}
	for i, to := range []*uint64{&q.Distributions, &q.Invalidations} {
		if *to, err = strconv.ParseUint(revisions[i], 10, 64); err != nil {
			return nil, errRequest
		}
	}
	delete(q.Header, aside)
	return q, nil
}

// Reply is what an answer has beside HTTP.
type Reply struct {
	// Result is Hit, Miss and so on; Layer the level of the cache that had a hit.
	Result string
	Layer  Level
	// Lifetime is the object's, as of now; nil where the answer is no object of the
	// cache.
	Lifetime *freshness.Lifetime
	// Cut tells that the end of the body cannot be told from a broken connection to
	// the origin.
	Cut bool
	// Failure is what failed instead of an answer; nil: nothing.
	Failure *Failure
}

// Failure is an origin or a function that failed where the origin is asked.
type Failure struct {
	// Class is that of the function's error; empty: it is the origin's.
	Class string
	// Detail is the origin's error, Text the function's.
	Detail, Text string
	Timeout      bool
}

// Encode puts the reply into the header of the answer.
func (r *Reply) Encode(h http.Header) {
	v := url.Values{"result": {r.Result}}
	if r.Layer != Edge {
		v.Set("layer", strconv.Itoa(int(r.Layer)))
	}
	if l := r.Lifetime; l != nil {
		fields := []time.Duration{l.InitialAge, l.TTL, l.WhileRevalidate, l.IfError}
		for _, d := range fields {
			v.Add("lifetime", strconv.FormatInt(int64(d), 10))
		}
		v.Set("store", strconv.FormatBool(l.Store))
	}
	if r.Cut {
		v.Set("cut", "1")
	}
	if f := r.Failure; f != nil {
		v.Set("failure", f.Detail)
		v.Set("class", f.Class)
		v.Set("text", f.Text)
		v.Set("timeout", strconv.FormatBool(f.Timeout))
	}
	h[aside] = []string{v.Encode()}
}

// decodeReply takes the reply out of an answer's header. A location that cannot
// answer sends none.
func decodeReply(resp *http.Response) (*Reply, error) {
	lines := resp.Header[aside]
	if len(lines) != 1 {
		return nil, fmt.Errorf("it answers %s", resp.Status)
	}
	delete(resp.Header, aside)
	v, err := url.ParseQuery(lines[0])
	if err != nil {
		return nil, fmt.Errorf("its answer is not understood: %w", err)
	}
	r := &Reply{Result: v.Get("result"), Cut: v.Get("cut") != ""}
	if text := v.Get("layer"); text != "" {
		layer, err := strconv.Atoi(text)
		if r.Layer = Level(layer); err != nil {
			return nil, fmt.Errorf("its answer is not understood: %w", err)
		}
	}
	if d := v["lifetime"]; len(d) > 0 {
		r.Lifetime = &freshness.Lifetime{Store: v.Get("store") == "true"}
		to := []*time.Duration{&r.Lifetime.InitialAge, &r.Lifetime.TTL, &r.Lifetime.WhileRevalidate, &r.Lifetime.IfError}
		if len(d) != len(to) {
			return nil, errors.New("its answer is not understood: a lifetime of another version")
		}
		for i := range to {
			n, err := strconv.ParseInt(d[i], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("its answer is not understood: %w", err)
			}
			*to[i] = time.Duration(n)
		}
	}
	if v.Has("failure") {
		r.Failure = &Failure{Class: v.Get("class"), Detail: v.Get("failure"), Text: v.Get("text"), Timeout: v.Get("timeout") == "true"}
	}
	return r, nil
}
