package edge

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/edge/clienthello"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/geo"
	"lapwing.dev/lapwing/internal/edge/policy"
	"lapwing.dev/lapwing/internal/edge/tier"
	"lapwing.dev/lapwing/internal/edge/trigger"
	"lapwing.dev/lapwing/internal/httpserver/http1"
	"lapwing.dev/lapwing/internal/httpserver/http2"
)

// Limits of a viewer's request, in bytes ("Quotas").
const (
	maxHead = 32 << 10 // request line and headers
	maxURL  = 8192
)

// exchange is one request of a viewer on its way through the pipeline.
type exchange struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	id    string
	began time.Time

	client netip.AddrPort
	secure bool
	site   *site        // nil until found
	plan   *policy.Plan // nil until found
	place  *geo.Place   // nil until looked up

	// request is what the viewer asked for, from the viewer-request function on
	// as that left it.
	request policy.Request
	// body is nil for none, length -1 where it is not known.
	body   io.Reader
	length int64
	// route is where the viewer-request function sends the request; nil: where the
	// behaviour says.
	route *trigger.Route

	// level is not that of viewers where another location asks; origin is then the
	// member of an origin group that it wants asked.
	level  tier.Level
	origin string

	out sent // what the viewer got, for the log
}

// sent is what a viewer got.
type sent struct {
	status         int
	bytes          int64
	result, detail string
	firstByte      time.Duration
	fromOrigin     struct{ first, last time.Duration }
}

func (s *Server) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{s: s, w: w, r: r, id: newID(), began: time.Now(), secure: r.TLS != nil}
	x.client, _ = netip.ParseAddrPort(r.RemoteAddr) // as the listener says; zero in some tests
	x.client = netip.AddrPortFrom(x.client.Addr().Unmap().WithZone(""), x.client.Port())
	dropNominated(r.Header)
	path, query, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") { // the absolute form, or none at all
		path, query = r.URL.EscapedPath(), r.URL.RawQuery
		if path == "" {
			path = "/"
		}
	}
	if hasBody(r) {
		x.body, x.length = r.Body, r.ContentLength
	}
	x.request = policy.Request{Method: r.Method, Host: r.Host, Path: path, Query: query, Header: r.Header}
	return x
}

// dropNominated drops the fields that are for this connection only because Connection
// names them (RFC 9110, 7.6.1): no function, key or origin is to see what is none of
// the request.
func dropNominated(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			switch name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name {
			case "Upgrade", "Connection": // which isUpgrade looks at
			default:
				delete(h, name)
			}
		}
	}
}

// serve takes the request through the pipeline.
func (x *exchange) serve() {
	if f := x.admit(); f != nil {
		x.fail(f)
		return
	}
	if x.redirect() {
		return
	}
	if done := x.viewerRequest(); done {
		return
	}
	if isUpgrade(x.r) {
		x.upgrade()
		return
	}
	a, err := x.answer()
	if err != nil {
		x.failed(err)
		return
	}
	x.deliver(a)
}

// admit finds what the request is for and tells whether the viewer may ask for it.
func (x *exchange) admit() *failure {
	if x.site = x.s.follow.table.Load().find(x.r.Host); x.site == nil {
		return refused(http.StatusForbidden, "Error", textBad)
	}
	if x.s.misdirected(x.site, x.r.TLS) || x.r.ProtoMajor == 3 && !x.site.d.HTTP3 {
		return refused(http.StatusMisdirectedRequest, "InvalidRequestCertificate", textCertificate)
	}
	if len(x.request.Path)+len(x.request.Query)+1 > maxURL {
		return refused(http.StatusRequestURITooLong, "InvalidRequest", textBad)
	}
	if x.request.Path[0] != '/' || !printable(x.request.Path) || !printable(x.request.Query) {
		return refused(http.StatusBadRequest, "InvalidRequest", textBad)
	}
	if headSize(x.r) > maxHead {
		return refused(http.StatusRequestEntityTooLarge, "InvalidRequestHeader", textBad)
	}
	if x.plan = x.site.plan(x.request.Path); x.plan == nil {
		return refused(http.StatusForbidden, "Error", textBad)
	}
	if chained(x.r.Header["Via"]) {
		return refused(http.StatusForbidden, "InvalidRequest", textBad)
	}
	if !x.plan.Allows(x.r.Method) {
		return refused(http.StatusForbidden, "InvalidRequestMethod", textMethod)
	}
	if (x.r.Method == http.MethodGet || x.r.Method == http.MethodHead) && x.body != nil {
		return refused(http.StatusForbidden, "InvalidRequest", textBad)
	}
	if x.plan.Behaviour.ViewerProtocol == "https-only" && !x.secure {
		return refused(http.StatusForbidden, "InvalidRequest", textBad)
	}
	if x.site.blocked != nil && x.site.blocked(x.country()) {
		f := refused(http.StatusForbidden, "ClientGeoBlocked", textCountry)
		f.custom = true
		return f
	}
	if x.redirects() {
		return nil // a redirect answers before a signature is asked for
	}
	if g := x.site.guards[x.plan]; g != nil {
		return x.checkSignature(g)
	}
	return nil
}

// misdirected tells whether a distribution with a certificate of its own is asked over
// a connection for which no distribution's was shown. CloudFront answers a request with
// 421 where the account that owns the certificate of its connection is not the one
// that owns the distribution ("Using custom URLs", on domain fronting): here is one
// account, whose distributions may share connections, and Lapwing's own certificate,
// which viewers get who ask for no name that is known.
func (s *Server) misdirected(t *site, state *tls.ConnectionState) bool {
	return state != nil && t.d.Certificate.ARN != "" && !s.Serves(state.ServerName)
}

// printable tells whether a path or query can be in a request line: HTTP/2 and
// HTTP/3 have none, and let spaces pass that would end the one to an origin.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// headSize is the size of a request's head as HTTP/1.1 has it.
func headSize(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Host) + 24
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + 4
		}
	}
	return n
}

// hasBody tells whether a request has a body. HTTP/3 does not say so in the head:
// then a GET's first byte, or its end, is waited for.
func hasBody(r *http.Request) bool {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return false
	}
	if r.ContentLength < 0 && r.ProtoMajor == 3 && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		n, _ := io.ReadFull(r.Body, make([]byte, 1))
		return n > 0
	}
	return true
}

// maxChain is how many distributions may stand one before the other.
const maxChain = 2

// chained tells whether a request has come through as many distributions as may
// be.
func chained(via []string) bool {
	n := 0
	for _, line := range via {
		n += strings.Count(line, "(CloudFront)")
	}
	return n >= maxChain
}

func (x *exchange) redirects() bool {
	return x.plan.Behaviour.ViewerProtocol == "redirect-to-https" && !x.secure
}

// redirect sends a viewer to HTTPS where the behaviour says so.
func (x *exchange) redirect() bool {
	if !x.redirects() {
		return false
	}
	status := http.StatusMovedPermanently
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		status = http.StatusPermanentRedirect // the method stays
	}
	const page = "<html>\r\n<head><title>301 Moved Permanently</title></head>\r\n<body>\r\n<center><h1>301 Moved Permanently</h1></center>\r\n<hr><center>CloudFront</center>\r\n</body>\r\n</html>\r\n"
	location := "https://" + hostname(x.r.Host) + x.request.Path
	if x.request.Query != "" {
		location += "?" + x.request.Query
	}
	x.send(&answer{
		status: status, result: "Redirect", own: true, bare: true, age: -1, data: []byte(page), length: int64(len(page)),
		header: http.Header{"Server": {"CloudFront"}, "Content-Type": {"text/html"}, "Location": {location}},
	})
	return true
}

// country is the viewer's, empty where it is not known.
func (x *exchange) country() string { return x.where().Country }

// where looks the viewer's place up, once.
func (x *exchange) where() *geo.Place {
	if x.place == nil {
		place := x.s.options.Geo.Lookup(x.client.Addr())
		x.place = &place
	}
	return x.place
}

// ownHeaders puts the headers that CloudFront makes where a policy asks for them.
// The viewer-request function has not seen them.
func (x *exchange) ownHeaders() {
	names, _ := x.plan.Made()
	if len(names) == 0 && !spoofs(x.request.Header) { // a function may have set some
		return
	}
	x.request.Header = x.request.Header.Clone() // the viewer's is logged
	v := &geo.Viewer{Request: x.r, Client: x.client, Place: x.where(), Names: func() []string { return fieldNames(x.r) }, Hello: clienthello.From(x.r.Context())}
	x.plan.SetMade(x.request.Header, v.Header)
}

// fieldNames are the names of a request's header fields, in the order in which they
// came; nil where that is not known, as by HTTP/3. By HTTP/2 the host has a field of
// another kind, and is named first.
func fieldNames(r *http.Request) []string {
	if h := http1.HeadOf(r); h != nil {
		names := make([]string, len(h.Fields))
		for i := range h.Fields {
			names[i] = string(h.Fields[i].Name)
		}
		return names
	}
	names := http2.NamesOf(r)
	if names == nil || slices.Contains(names, "host") {
		return names
	}
	return append([]string{"host"}, names...)
}

// dropSpoofed keeps from the viewer-request function what only CloudFront may say
// of a viewer: nothing that a viewer says by such a name is to be believed.
func (x *exchange) dropSpoofed() {
	if !spoofs(x.request.Header) {
		return
	}
	h := x.request.Header.Clone() // the viewer's is logged
	for name := range h {
		if strings.HasPrefix(name, "Cloudfront-") {
			delete(h, name)
		}
	}
	x.request.Header = h
}

// spoofs tells whether a header has names that only CloudFront may give.
func spoofs(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, "Cloudfront-") {
			return true
		}
	}
	return false
}

// viewerRequest runs the viewer-request function, and tells whether that has
// answered, or failed.
func (x *exchange) viewerRequest() (done bool) {
	if x.plan.Has(distribution.ViewerRequest) {
		x.dropSpoofed()
		response, err := x.runViewerRequest()
		switch {
		case err != nil:
			x.failed(err)
			return true
		case response != nil:
			x.send(generated(response, x.plan.IsLambda(distribution.ViewerRequest)))
			return true
		}
	}
	x.ownHeaders()
	if x.request.Path == "/" && x.site.d.DefaultRootObject != "" {
		x.request.Path = "/" + x.site.d.DefaultRootObject
	}
	return false
}
