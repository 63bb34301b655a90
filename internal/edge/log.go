package edge

import (
	"cmp"
	"crypto/tls"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/edge/accesslog"
	"lapwing.dev/lapwing/internal/edge/geo"
)

// finish hands over what the logs have of the request.
func (x *exchange) finish() {
	if x.s.options.Log == nil || x.site == nil {
		return
	}
	now := time.Now()
	r := &accesslog.Record{
		Distribution: x.site.d, Time: now, Location: x.s.options.Location, RequestID: x.id,
		ClientIP: x.client.Addr(), ClientPort: x.client.Port(),
		Method: x.r.Method, Protocol: protocol(x), Version: version(x), Host: x.r.Host, Header: x.r.Header,
		Status: x.out.status, BytesSent: x.out.bytes + responseHeadSize(x), BytesReceived: int64(headSize(x.r)) + max(x.r.ContentLength, 0),
		ContentLength: -1, RangeStart: -1, RangeEnd: -1,
		Result: x.out.result, Response: x.out.result, Detail: cmp.Or(x.out.detail, x.out.result),
		TimeTaken: now.Sub(x.began), FirstByte: x.out.firstByte,
		OriginFirstByte: x.out.fromOrigin.first, OriginLastByte: x.out.fromOrigin.last,
	}
	r.Path, r.Query, _ = strings.Cut(x.r.RequestURI, "?")
	if x.plan != nil {
		r.Behaviour = x.plan.Behaviour
	}
	if x.place != nil {
		r.Country = x.place.Country
	}
	if s := x.r.TLS; s != nil {
		r.TLSVersion, r.TLSCipher = geo.TLSVersion(s.Version), tls.CipherSuiteName(s.CipherSuite)
	}
	x.describe(r)
	x.s.options.Log(r)
}

// describe tells of the answer what its header says.
func (x *exchange) describe(r *accesslog.Record) {
	h := x.w.Header()
	r.ContentType = h.Get("Content-Type")
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
		r.ContentLength = n
	}
	if span, ok := strings.CutPrefix(h.Get("Content-Range"), "bytes "); ok {
		span, _, _ = strings.Cut(span, "/")
		first, last, _ := strings.Cut(span, "-")
		from, err1 := strconv.ParseInt(first, 10, 64)
		to, err2 := strconv.ParseInt(last, 10, 64)
		if err1 == nil && err2 == nil {
			r.RangeStart, r.RangeEnd = from, to
		}
	}
}

func protocol(x *exchange) string {
	p := "http"
	if isUpgrade(x.r) {
		p = "ws"
	}
	if x.secure {
		p += "s"
	}
	return p
}

func version(x *exchange) string {
	return "HTTP/" + strconv.Itoa(x.r.ProtoMajor) + "." + strconv.Itoa(x.r.ProtoMinor)
}

// responseHeadSize is the size of the answer's head as HTTP/1.1 has it.
func responseHeadSize(x *exchange) int64 {
	n := 15
	for name, values := range x.w.Header() {
		for _, v := range values {
			n += len(name) + len(v) + 4
		}
	}
	return int64(n)
}
