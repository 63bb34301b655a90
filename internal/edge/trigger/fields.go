package trigger

import (
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Hidden tells whether a header field, by its lower-case name, is neither shown
// to functions nor may be set by them (CloudFront developer guide, "Restrictions
// on edge functions", disallowed headers).
func Hidden(name string) bool {
	switch name {
	case "connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
		"trailer", "upgrade",
		"x-accel-buffering", "x-accel-charset", "x-accel-limit-rate", "x-accel-redirect",
		"x-amzn-auth", "x-amzn-cf-billing", "x-amzn-cf-id", "x-amzn-cf-xff", "x-amzn-errortype",
		"x-amzn-fle-profile", "x-amzn-header-count", "x-amzn-header-order", "x-amzn-lambda-integration-tag",
		"x-amzn-requestid", "x-cache", "x-forwarded-proto", "x-real-ip":
		return true
	}
	return strings.HasPrefix(name, "x-amz-cf-") || strings.HasPrefix(name, "x-edge-")
}

// readOnly lists, by event, the fields that functions read and may not change,
// in lower case (same page, read-only headers). A viewer-request function may not
// say where the viewer is either.
var readOnly = map[distribution.EventType][]string{
	distribution.ViewerRequest: {"content-length", "host", "transfer-encoding", "via", "cloudfront-viewer-country"},
	distribution.OriginRequest: {
		"accept-encoding", "content-length", "if-modified-since", "if-none-match", "if-range",
		"if-unmodified-since", "transfer-encoding", "via",
	},
	distribution.OriginResponse: {"transfer-encoding", "via"},
	distribution.ViewerResponse: {"warning", "via"},
}

// values returns all values of a field. name is in lower case.
func (h Header) values(name string) []string {
	var all []string
	for _, f := range h {
		if len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
			all = append(all, f.Value)
		}
	}
	return all
}

// same tells whether a field has the same values in two headers. name is in
// lower case.
func (h Header) same(name string, other Header) bool {
	return slices.Equal(h.values(name), other.values(name))
}

// size is what a header counts in the size of a response: as HTTP/1.1 writes it.
func (h Header) size() int {
	n := 0
	for _, f := range h {
		n += len(f.Name) + len(": ") + len(f.Value) + len("\r\n")
	}
	return n
}

// lower is strings.ToLower for names of fields, which mostly are short.
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'A' && c <= 'Z' || c >= 0x80 {
			return strings.ToLower(s)
		}
	}
	return s
}

// Capitalised returns a field's name with a capital at the beginning of every
// part, which is how CloudFront writes names that functions give in lower case.
func Capitalised(name string) string {
	b := []byte(name)
	start := true
	for i, c := range b {
		if start && c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
		start = c == '-'
	}
	return string(b)
}
