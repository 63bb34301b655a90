package edge

import (
	"crypto/sha256"
	"crypto/tls"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/policy"
	"lapwing.dev/lapwing/internal/httpserver/http1"
	"lapwing.dev/lapwing/internal/httpserver/http2"
)

// plain is a request that may be for a plain hit: a GET or HEAD without a body, and
// without fields that ask for something special.
type plain struct {
	host, target string
	head         bool
	tls          *tls.ConnectionState // nil: clear text
	encodings    policy.Encodings
}

// hit returns what a behaviour without functions, signers and the like has fresh in
// memory, or no object. What is on the disk only is for the pipeline, which brings it
// into memory: nothing here blocks.
func (s *Server) hit(r *plain, now time.Time) (*site, *cache.Object) {
	t := s.follow.table.Load().find(r.host)
	if t == nil || t.blocked != nil || t.logs {
		return nil, nil
	}
	path, query, _ := strings.Cut(r.target, "?")
	p := t.plan(path)
	method := http.MethodGet
	if r.head {
		method = http.MethodHead
	}
	if p == nil || !t.quick[p] || !p.Caches(method) || r.tls == nil && p.Behaviour.ViewerProtocol != "allow-all" || s.misdirected(t, r.tls) {
		return nil, nil
	}
	if path == "/" && t.d.DefaultRootObject != "" {
		path = "/" + t.d.DefaultRootObject
	}
	var buffer [512]byte
	b := append(buffer[:0], t.d.ID...)
	b = append(b, 0)
	b = p.AppendPlainKey(b, path, query, p.Takes(r.encodings))
	o, ok := s.cache.InMemory(sha256.Sum256(b))
	if !ok || o.Head.Lifetime.State(now) != fresh || o.Head.Status >= 400 || len(o.Head.Note) > 0 {
		return nil, nil
	}
	return t, o
}

// ServeFast implements http1.Fast: it answers plain hits, and leaves everything else
// to ServeHTTP, which would answer the same.
func (s *Server) ServeFast(c *http1.Conn, h *http1.Head, r *http1.Reply) bool {
	q := plain{head: string(h.Method) == http.MethodHead, tls: c.TLS()}
	if !q.head && string(h.Method) != http.MethodGet {
		return false
	}
	for i := range h.Fields {
		if !takes(&q, h.Fields[i].Name, h.Fields[i].Value) {
			return false
		}
	}
	q.host, q.target = string(h.Host), string(h.Target)
	now := time.Now()
	t, o := s.hit(&q, now)
	if o == nil {
		return false
	}
	if q.tls != nil && t.d.HTTP3 { // the head that is kept does not tell of it
		return false
	}
	held := len(r.Buffer) // of answers before this one
	r.Buffer = append(r.Buffer, s.heads(t, o).http1...)
	r.Buffer = append(r.Buffer, "Age: "...)
	r.Buffer = strconv.AppendInt(r.Buffer, age(o, now), 10)
	r.Buffer = append(r.Buffer, "\r\nX-Amz-Cf-Id: "...)
	r.Buffer = appendID(r.Buffer)
	r.Buffer = append(r.Buffer, "\r\n\r\n"...)
	if !q.head {
		r.Body = o.Bytes() // which outlives the object's place in memory
	}
	if s.options.Count != nil {
		s.options.Count(t.d, o.Head.Status, int64(len(r.Buffer)-held+len(r.Body)), requestSize(h))
	}
	return true
}

// ServeHit implements http2.Fast, as ServeFast does http1.Fast.
func (s *Server) ServeHit(h *http2.Head, r *http2.Reply) bool {
	q := plain{host: h.Authority, target: h.Path, head: h.Method == http.MethodHead, tls: h.TLS}
	if !q.head && h.Method != http.MethodGet {
		return false
	}
	size := len(h.Method) + len(h.Path) + len("  HTTP/1.1\r\n\r\n") + len("Host: \r\n") + len(h.Authority)
	for i := range h.Fields {
		f := &h.Fields[i]
		if !takes(&q, f.Name, f.Value) {
			return false
		}
		size += len(f.Name) + len(f.Value) + len(": \r\n")
	}
	now := time.Now()
	t, o := s.hit(&q, now)
	if o == nil {
		return false
	}
	heads := s.heads(t, o)
	r.Block = append(r.Block, heads.http2...)
	var text, id [64]byte
	seconds, name := strconv.AppendInt(text[:0], age(o, now), 10), appendID(id[:0])
	r.Block = http2.AppendPlainField(r.Block, "Age", seconds)
	r.Block = http2.AppendPlainField(r.Block, "x-amz-cf-id", name)
	if !q.head {
		r.Body = o.Bytes()
	}
	if s.options.Count != nil { // sizes are those of HTTP/1.1, as in logs
		sent := len(heads.http1) + len("Age: \r\nX-Amz-Cf-Id: \r\n\r\n") + len(seconds) + len(name) + len(r.Body)
		s.options.Count(t.d, o.Head.Status, int64(sent), int64(size))
	}
	return true
}

// age is the Age of an object in seconds.
func age(o *cache.Object, now time.Time) int64 {
	return int64(o.Head.Lifetime.Age(now) / time.Second)
}

// requestSize is the size of a request without a body.
func requestSize(h *http1.Head) int64 {
	n := len(h.Method) + len(h.Target) + len("  HTTP/1.1\r\n\r\n")
	for i := range h.Fields {
		n += len(h.Fields[i].Name) + len(h.Fields[i].Value) + len(": \r\n")
	}
	return int64(n)
}

// takes takes note of a field, and tells whether the request is plain still.
func takes[T []byte | string](r *plain, name, value T) bool {
	switch name[0] | 0x20 {
	case 'a':
		if len(name) == len("accept-encoding") && strings.EqualFold(string(name), "accept-encoding") {
			r.encodings |= policy.Accepted(string(value))
		}
	case 'x':
		return len(name) != len(locationHeader) || !strings.EqualFold(string(name), locationHeader)
	case 'i', 'r', 'v':
		switch strings.ToLower(string(name)) {
		case "if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range", "via":
			return false
		}
	}
	return true
}

// heads are an object's answers as they begin, for a distribution: all of the head
// but what differs each time.
type heads struct {
	site         *site
	http1, http2 []byte
}

// heads returns an object's heads, made once for an object in memory.
func (s *Server) heads(t *site, o *cache.Object) *heads {
	if known, ok := o.Memo.Load().(*heads); ok && known.site == t {
		return known
	}
	h := &heads{site: t}
	h.http1 = append(h.http1, "HTTP/1.1 "...)
	h.http1 = strconv.AppendInt(h.http1, int64(o.Head.Status), 10)
	h.http1 = append(h.http1, ' ')
	h.http1 = append(h.http1, http.StatusText(o.Head.Status)...)
	h.http1 = append(h.http1, "\r\n"...)
	h.http2 = http2.AppendStatus(h.http2, o.Head.Status)
	field := func(name, value string) {
		h.http1 = http1.AppendField(h.http1, name, value)
		h.http2 = http2.AppendField(h.http2, name, value)
	}
	for name, values := range o.Head.Header {
		for _, v := range values {
			field(name, v)
		}
	}
	if o.Head.Header["Date"] == nil {
		field("Date", o.Head.Lifetime.Received.UTC().Format(http.TimeFormat))
	}
	field("Content-Length", strconv.FormatInt(o.Head.Length, 10))
	field("X-Cache", xCache(resultHit)[0])
	field("Via", s.via[0])
	field("X-Amz-Cf-Pop", s.pop[0])
	if t.d.HTTP3 && s.options.AltSvc != "" {
		h.http2 = http2.AppendField(h.http2, "Alt-Svc", s.options.AltSvc) // it is over TLS
	}
	o.Memo.Store(h)
	return h
}
