package edge

import (
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/freshness"
	"lapwing.dev/lapwing/internal/edge/origin"
	"lapwing.dev/lapwing/internal/edge/policy"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

// fail answers with an error page: of the distribution's, where it has one for the
// status and the failure is one that these are for, or of our own.
func (x *exchange) fail(f *failure) {
	if f.custom && x.site != nil {
		if a := x.errorPage(f.status); a != nil {
			a.detail = f.detail
			x.send(a)
			return
		}
	}
	x.send(f.answer(x.id))
}

// failed answers where the pipeline has ended with an error.
func (x *exchange) failed(err error) {
	if x.r.Context().Err() != nil {
		x.out.result, x.out.detail = resultError, "ClientCommError"
		panic(http.ErrAbortHandler) // the viewer has left
	}
	if e, ok := errors.AsType[*trigger.Error](err); ok {
		x.s.log.Debug("an edge function failed", "requestId", x.id, "distribution", x.site.d.ID, "error", e)
		x.fail(functionFailure(e))
		return
	}
	if e, ok := errors.AsType[*origin.Error](err); ok {
		x.s.log.Debug("an origin failed", "requestId", x.id, "distribution", x.site.d.ID, "error", e)
		x.fail(originFailure(e.Status(), string(e.Detail)))
		return
	}
	x.s.log.Error("a request failed", "requestId", x.id, "distribution", x.site.d.ID, "error", err)
	x.fail(refused(http.StatusInternalServerError, resultError, textBad))
}

// originFailure is an origin that did not answer.
func originFailure(status int, detail string) *failure {
	text := textUnreachable
	if status == http.StatusGatewayTimeout {
		text = textTimeout
	}
	return &failure{status: status, result: resultError, detail: detail, text: text, custom: true}
}

// deliver takes an answer of the cache or the origin to the viewer.
func (x *exchange) deliver(a *answer) {
	if a.failure != "" {
		a.release()
		x.fail(originFailure(a.status, a.failure))
		return
	}
	if a.status >= 400 {
		a.result, a.detail = resultError, "OriginError"
		if page := x.errorPage(a.status); page != nil {
			a.release()
			x.send(page)
			return
		}
		x.send(a)
		return
	}
	if x.plan.Has(distribution.ViewerResponse) {
		if err := x.runViewerResponse(a); err != nil {
			a.release()
			x.failed(err)
			return
		}
	}
	x.send(a)
}

// errorPage returns the distribution's own page for a status, nil where it has
// none, or it cannot be had. It is an object like any other, of the behaviour that
// its path has, for which no viewer functions run.
func (x *exchange) errorPage(status int) *answer {
	page := x.site.pages[status]
	if page == nil || page.Path == "" {
		return nil
	}
	r, err := http.NewRequestWithContext(x.r.Context(), http.MethodGet, page.Path, http.NoBody)
	if err != nil {
		return nil // the control plane lets no such path in
	}
	sub := &exchange{
		s: x.s, w: x.w, r: r, id: x.id, began: x.began, client: x.client, secure: x.secure, site: x.site, place: x.place,
		request: policy.Request{Method: http.MethodGet, Host: x.request.Host, Path: page.Path, Header: http.Header{}},
	}
	if e := x.request.Header["Accept-Encoding"]; e != nil {
		sub.request.Header["Accept-Encoding"] = e
	}
	if sub.plan = x.site.plan(page.Path); sub.plan == nil {
		return nil
	}
	a, err := sub.answer()
	if err != nil {
		x.s.log.Debug("a custom error page could not be had", "requestId", x.id, "distribution", x.site.d.ID, "path", page.Path, "error", err)
		return nil
	}
	if a.status >= 400 || a.failure != "" {
		a.release()
		return nil
	}
	a.status, a.result, a.own = page.ResponseStatus, resultError, true
	return a
}

// send writes an answer to the viewer, and releases it.
func (x *exchange) send(a *answer) {
	defer a.release()
	h := x.w.Header()
	for name, v := range a.header {
		h[name] = v
	}
	part := x.cut(a, h)
	if x.plan != nil && !a.bare {
		x.plan.Respond(h, &x.request)
	}
	x.ownResponseHeaders(a, h)
	x.out.status, x.out.result, x.out.detail = a.status, a.result, detailOf(a)
	x.out.fromOrigin.first = a.firstByte
	if !bodyAllowed(a.status) {
		delete(h, "Content-Length")
		x.start(a.status)
		return
	}
	if n := part.length; n >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(n, 10)}
	}
	if x.plan != nil {
		x.timing(a, h)
	}
	x.start(a.status)
	if x.r.Method == http.MethodHead {
		return
	}
	if a.body != nil && a.length < 0 {
		_ = http.NewResponseController(x.w).Flush() // the first bytes may be long in coming
	}
	if err := x.write(a, part); err != nil {
		x.brokenOff(err)
	}
	if a.trailer != nil && x.r.ProtoMajor >= 2 {
		for name, v := range a.trailer() {
			h[http.TrailerPrefix+name] = v
		}
	}
}

// start writes the head of the answer.
func (x *exchange) start(status int) {
	x.out.firstByte = time.Since(x.began)
	x.w.WriteHeader(status)
}

// brokenOff ends an answer of which the viewer has a part only.
func (x *exchange) brokenOff(err error) {
	if x.r.Context().Err() != nil {
		x.out.result, x.out.detail = resultError, "ClientCommError"
	} else {
		x.out.result, x.out.detail = resultError, string(origin.ReadError)
		if e, ok := errors.AsType[*origin.Error](err); ok {
			x.out.detail = string(e.Detail)
		}
		x.s.log.Debug("an answer was broken off", "requestId", x.id, "error", err)
	}
	panic(http.ErrAbortHandler) // the viewer must not take it for a whole one
}

// ownResponseHeaders adds what every answer has of the edge.
func (x *exchange) ownResponseHeaders(a *answer, h http.Header) {
	h["X-Cache"] = xCache(a.result)
	h["Via"] = x.s.via
	h["X-Amz-Cf-Pop"] = x.s.pop
	h["X-Amz-Cf-Id"] = []string{x.id}
	if a.age >= 0 && a.object != nil {
		h["Age"] = []string{strconv.FormatInt(int64(a.age/time.Second), 10)}
	}
	if x.site != nil && x.site.d.HTTP3 && x.s.options.AltSvc != "" && x.secure {
		h["Alt-Svc"] = x.s.altSvc
	}
}

// The values of X-Cache, made once.
var xCacheValues = func() map[string][]string {
	m := map[string][]string{}
	for _, r := range []string{resultHit, resultMiss, resultRefresh, resultError, "Redirect", resultOf(true), resultOf(false)} {
		m[r] = []string{r + " from cloudfront"}
	}
	return m
}()

func xCache(result string) []string {
	if v := xCacheValues[result]; v != nil {
		return v
	}
	return []string{result + " from cloudfront"}
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// part is what of an object's body a viewer gets.
type part struct {
	off, length int64 // of the answer's body; length -1: not known
	// several are ranges that go as a multipart body with this boundary.
	several  []freshness.Range
	boundary string
	kind     string // Content-Type of the object, for each of several
	size     int64
}

// cut answers conditional and range requests from a whole object of the cache: it
// sets the answer's status and returns what is to be sent.
func (x *exchange) cut(a *answer, h http.Header) part {
	all := part{length: a.length}
	partial := a.status == http.StatusPartialContent // a part that was fetched as such
	if a.object == nil || a.status != http.StatusOK && !partial || a.own || x.request.Method == http.MethodOptions {
		return all
	}
	request := x.r.Header
	if len(request["Range"]) == 0 && len(request["If-None-Match"]) == 0 && len(request["If-Modified-Since"]) == 0 &&
		len(request["If-Match"]) == 0 && len(request["If-Unmodified-Since"]) == 0 {
		return all
	}
	validators := freshness.ValidatorsOf(a.object.Head.Header)
	if status := freshness.Condition(request, validators); status != 0 {
		a.status = status
		if status == http.StatusPreconditionFailed {
			delete(h, "Content-Range")
			return part{}
		}
		for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Range"} {
			delete(h, name)
		}
		return all
	}
	if partial || a.length < 0 || x.request.Method != http.MethodGet {
		return all // ranges are GET's (RFC 9110, 14.2)
	}
	ranges, status := freshness.Select(request, validators, a.length)
	switch {
	case status == http.StatusRequestedRangeNotSatisfiable:
		a.status = status
		h["Content-Range"] = []string{"bytes */" + strconv.FormatInt(a.length, 10)}
		return part{}
	case status == http.StatusOK:
		return all
	}
	a.status = status
	if len(ranges) == 1 {
		h["Content-Range"] = []string{ranges[0].ContentRange(a.length)}
		return part{off: ranges[0].Start, length: ranges[0].Length}
	}
	p := part{several: ranges, kind: h.Get("Content-Type"), size: a.length}
	p.boundary = multipart.NewWriter(io.Discard).Boundary()
	h["Content-Type"] = []string{"multipart/byteranges; boundary=" + p.boundary}
	p.length = p.multipartLength()
	return p
}

// multipartLength is the length of the body of several ranges.
func (p *part) multipartLength() int64 {
	var n counter
	m := multipart.NewWriter(&n)
	_ = m.SetBoundary(p.boundary) // it is one that the writer made
	total := int64(0)
	for _, r := range p.several {
		_, _ = m.CreatePart(p.header(r)) // counting does not fail
		total += r.Length
	}
	_ = m.Close()
	return total + int64(n)
}

type counter int64

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

func (p *part) header(r freshness.Range) textproto.MIMEHeader {
	h := textproto.MIMEHeader{"Content-Range": {r.ContentRange(p.size)}}
	if p.kind != "" {
		h["Content-Type"] = []string{p.kind}
	}
	return h
}

// write writes the body, or a part of it.
func (x *exchange) write(a *answer, p part) error {
	w := &viewerWriter{x: x}
	switch {
	case len(p.several) > 0:
		m := multipart.NewWriter(w)
		if err := m.SetBoundary(p.boundary); err != nil {
			return err
		}
		for _, r := range p.several {
			to, err := m.CreatePart(p.header(r))
			if err != nil {
				return err
			}
			if err := copyObject(x.r.Context(), to, a, r.Start, r.Length); err != nil {
				return err
			}
		}
		return m.Close()
	case a.object != nil:
		w.flush = a.object.Arriving()
		return copyObject(x.r.Context(), w, a, p.off, p.length)
	case a.body != nil:
		w.flush = true
		_, err := copyBuffered(w, a.body)
		return err
	}
	_, err := w.Write(a.data)
	return err
}

// copyObject writes n bytes of a cached body, from off.
func copyObject(ctx context.Context, w io.Writer, a *answer, off, n int64) (err error) {
	if b := a.object.Bytes(); b != nil {
		if n >= 0 {
			b = b[off : off+n]
		}
		_, err = w.Write(b)
		return err
	}
	body := a.object.Body(ctx, off, n)
	defer func() { err = errors.Join(err, body.Close()) }()
	_, err = body.WriteTo(w)
	return err
}

// viewerWriter writes to a viewer, who must take what it gets within a time.
type viewerWriter struct {
	x     *exchange
	flush bool // after each write, for bodies that still arrive
}

// ReadFrom implements io.ReaderFrom: what lies in a file need not come by here.
func (w *viewerWriter) ReadFrom(r io.Reader) (int64, error) {
	if to, ok := w.x.w.(io.ReaderFrom); ok && !w.flush {
		n, err := to.ReadFrom(r)
		w.x.out.bytes += n
		return n, err
	}
	return copyBuffered(w, r)
}

// Write implements io.Writer.
func (w *viewerWriter) Write(p []byte) (int, error) {
	n, err := w.x.w.Write(p)
	w.x.out.bytes += int64(n)
	if err == nil && w.flush {
		if err = http.NewResponseController(w.x.w).Flush(); errors.Is(err, http.ErrNotSupported) {
			w.flush, err = false, nil
		}
	}
	return n, err
}
