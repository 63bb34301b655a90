package trigger

import (
	"cmp"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// appendEvent appends the event that a Lambda@Edge function gets (CloudFront
// developer guide, "Lambda@Edge event structure"). It is written by hand: it is
// on the way of every request.
func appendEvent(b []byte, d *distribution.Distribution, e distribution.EventType, x *Exchange) []byte {
	b = append(b, `{"Records":[{"cf":{"config":{"distributionDomainName":`...)
	b = AppendString(b, d.DomainName)
	b = append(b, `,"distributionId":`...)
	b = AppendString(b, d.ID)
	b = append(b, `,"eventType":`...)
	b = AppendString(b, string(e))
	b = append(b, `,"requestId":`...)
	b = AppendString(b, x.RequestID)
	b = append(b, `},"request":`...)
	b = appendRequest(b, e, x)
	if x.Response != nil {
		b = append(b, `,"response":`...)
		b = appendResponse(b, x.Response)
	}
	return append(b, "}}]}"...)
}

func appendRequest(b []byte, e distribution.EventType, x *Exchange) []byte {
	r := &x.Request
	b = append(b, `{"clientIp":`...)
	b = AppendString(b, r.ClientIP)
	b = append(b, `,"headers":`...)
	b = appendHeader(b, r.Header)
	b = append(b, `,"method":`...)
	b = AppendString(b, r.Method)
	if r.Origin != nil && (e == distribution.OriginRequest || e == distribution.OriginResponse) {
		b = append(b, `,"origin":`...)
		o := shownOrigin(r.Origin, x.Secure)
		b = o.append(b)
	}
	b = append(b, `,"querystring":`...)
	b = AppendString(b, r.Query)
	b = append(b, `,"uri":`...)
	b = AppendString(b, r.URI)
	if r.Body != nil {
		b = append(b, `,"body":{"action":"read-only","data":"`...)
		b = base64.StdEncoding.AppendEncode(b, r.Body.Data)
		b = append(b, `","encoding":"base64","inputTruncated":`...)
		b = strconv.AppendBool(b, r.Body.Truncated)
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendResponse(b []byte, r *Response) []byte {
	b = append(b, `{"headers":`...)
	b = appendHeader(b, r.Header)
	b = append(b, `,"status":"`...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, `","statusDescription":`...)
	b = AppendString(b, cmp.Or(r.Description, http.StatusText(r.Status)))
	return append(b, '}')
}

// appendHeader writes what functions may see of a header: by lower-case name, in
// the order in which names come first, all values of that name.
func appendHeader(b []byte, h Header) []byte {
	b = append(b, '{')
	first := true
	for i, f := range h {
		name := lower(f.Name)
		if Hidden(name) || h[:i].has(name) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = AppendString(b, name)
		b = append(b, `:[`...)
		comma := false
		for _, g := range h[i:] {
			if len(g.Name) != len(name) || !strings.EqualFold(g.Name, name) {
				continue
			}
			if comma {
				b = append(b, ',')
			}
			comma = true
			b = append(b, `{"key":`...)
			b = AppendString(b, g.Name)
			b = append(b, `,"value":`...)
			b = AppendString(b, g.Value)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// has tells whether there is a field of a lower-case name.
func (h Header) has(name string) bool {
	for _, f := range h {
		if len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
			return true
		}
	}
	return false
}

// append writes the origin as functions see it.
func (o *originObject) append(b []byte) []byte {
	if o.S3 != nil {
		s := o.S3
		b = append(b, `{"s3":{"authMethod":`...)
		b = AppendString(b, s.AuthMethod)
		b = append(b, `,"customHeaders":`...)
		b = appendHeader(b, s.CustomHeaders)
		b = append(b, `,"domainName":`...)
		b = AppendString(b, s.DomainName)
		b = append(b, `,"path":`...)
		b = AppendString(b, s.Path)
		b = append(b, `,"region":`...)
		b = AppendString(b, s.Region)
		return append(b, "}}"...)
	}
	c := o.Custom
	b = append(b, `{"custom":{"customHeaders":`...)
	b = appendHeader(b, c.CustomHeaders)
	b = append(b, `,"domainName":`...)
	b = AppendString(b, c.DomainName)
	b = append(b, `,"keepaliveTimeout":`...)
	b = strconv.AppendInt(b, int64(c.KeepaliveTimeout), 10)
	b = append(b, `,"path":`...)
	b = AppendString(b, c.Path)
	b = append(b, `,"port":`...)
	b = strconv.AppendInt(b, int64(c.Port), 10)
	b = append(b, `,"protocol":`...)
	b = AppendString(b, c.Protocol)
	b = append(b, `,"readTimeout":`...)
	b = strconv.AppendInt(b, int64(c.ReadTimeout), 10)
	b = append(b, `,"sslProtocols":[`...)
	for i, p := range c.SSLProtocols {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, p)
	}
	return append(b, "]}}"...)
}

const hexDigits = "0123456789abcdef"

// AppendString appends a JSON string. What is not UTF-8 is taken for ISO 8859-1,
// as CloudFront takes it ("URI and query string encoding").
func AppendString(b []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			plain = false
			break
		}
	}
	b = append(b, '"')
	if plain {
		b = append(b, s...)
		return append(b, '"')
	}
	s = AsUTF8(s)
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// AsUTF8 returns s, from ISO 8859-1 where it is not UTF-8.
func AsUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

func seconds(d time.Duration) int { return int(d / time.Second) }
