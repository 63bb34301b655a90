package edge

import (
	"crypto/sha256"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/http1"
	"lapwing.dev/lapwing/internal/edge/policy"
)

// ServeFast implements http1.Fast: it answers what a behaviour without functions,
// signers and the like has fresh in memory, and leaves everything else to
// ServeHTTP, which would answer the same.
func (s *Server) ServeFast(c *http1.Conn, h *http1.Head, r *http1.Reply) bool {
	head := string(h.Method) == http.MethodHead
	if !head && string(h.Method) != http.MethodGet {
		return false
	}
	t := s.follow.table.Load().find(string(h.Host))
	if t == nil || t.blocked != nil || t.logs {
		return false
	}
	encodings, plain := scan(h)
	if !plain {
		return false
	}
	path, query, _ := strings.Cut(string(h.Target), "?")
	p := t.plan(path)
	if p == nil || !t.quick[p] || !p.Caches(string(h.Method)) || c.TLS() == nil && p.Behaviour.ViewerProtocol != "allow-all" {
		return false
	}
	if path == "/" && t.d.DefaultRootObject != "" {
		path = "/" + t.d.DefaultRootObject
	}
	var buffer [512]byte
	b := append(buffer[:0], t.d.ID...)
	b = append(b, 0)
	b = p.AppendPlainKey(b, path, query, p.Takes(encodings))
	o, ok := s.cache.Get(sha256.Sum256(b))
	if !ok {
		return false
	}
	now := time.Now()
	if o.Head.Lifetime.State(now) != fresh || o.Head.Status >= 400 || o.Bytes() == nil || len(o.Head.Note) > 0 {
		o.Release()
		return false
	}
	held := len(r.Buffer) // of answers before this one
	r.Buffer = append(r.Buffer, s.prebuilt(t, o)...)
	r.Buffer = append(r.Buffer, "Age: "...)
	r.Buffer = strconv.AppendInt(r.Buffer, int64(o.Head.Lifetime.Age(now)/time.Second), 10)
	r.Buffer = append(r.Buffer, "\r\nX-Amz-Cf-Id: "...)
	r.Buffer = appendID(r.Buffer)
	r.Buffer = append(r.Buffer, "\r\n\r\n"...)
	if !head {
		r.Body = o.Bytes() // which outlives the object's place in memory
	}
	if s.options.Count != nil {
		s.options.Count(t.d, o.Head.Status, int64(len(r.Buffer)-held+len(r.Body)), requestSize(h))
	}
	o.Release()
	return true
}

// requestSize is the size of a request without a body.
func requestSize(h *http1.Head) int64 {
	n := len(h.Method) + len(h.Target) + len("  HTTP/1.1\r\n\r\n")
	for i := range h.Fields {
		n += len(h.Fields[i].Name) + len(h.Fields[i].Value) + len(": \r\n")
	}
	return int64(n)
}

// scan reads of a request's fields what a fast answer depends on: which codings
// the viewer accepts, and that it is no request of an unusual kind.
func scan(h *http1.Head) (e policy.Encodings, plain bool) {
	for i := range h.Fields {
		f := &h.Fields[i]
		switch f.Name[0] | 0x20 {
		case 'a':
			if len(f.Name) == len("accept-encoding") && strings.EqualFold(string(f.Name), "accept-encoding") {
				e |= policy.Accepted(string(f.Value))
			}
		case 'i', 'r', 'v':
			switch strings.ToLower(string(f.Name)) {
			case "if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range", "via":
				return 0, false
			}
		}
	}
	return e, true
}

// headBytes are the first bytes of an answer with an object, for a distribution.
type headBytes struct {
	site *site
	b    []byte
}

// prebuilt returns all of an answer's head but what differs each time, made once
// for an object in memory.
func (s *Server) prebuilt(t *site, o *cache.Object) []byte {
	if known, ok := o.Memo.Load().(*headBytes); ok && known.site == t {
		return known.b
	}
	b := append([]byte(nil), "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(o.Head.Status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(o.Head.Status)...)
	b = append(b, "\r\n"...)
	field := func(name, value string) {
		b = http1.AppendField(b, name, value)
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
	o.Memo.Store(&headBytes{t, b})
	return b
}
