package accesslog

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// field is the value of a field of a record, as it is before it is encoded; empty:
// there is none.
type field func(*Record) string

// Realtime are the fields that real-time logs can have, in the order in which
// records have them (CloudFront developer guide, "Understanding real-time log
// configurations").
var Realtime = []string{
	"timestamp", "c-ip", "s-ip", "time-to-first-byte", "sc-status", "sc-bytes", "cs-method", "cs-protocol", "cs-host", "cs-uri-stem", "cs-bytes",
	"x-edge-location", "x-edge-request-id", "x-host-header", "time-taken", "cs-protocol-version", "c-ip-version", "cs-user-agent", "cs-referer", "cs-cookie",
	"cs-uri-query", "x-edge-response-result-type", "x-forwarded-for", "ssl-protocol", "ssl-cipher", "x-edge-result-type", "fle-encrypted-fields", "fle-status",
	"sc-content-type", "sc-content-len", "sc-range-start", "sc-range-end", "c-port", "x-edge-detailed-result-type", "c-country", "cs-accept-encoding", "cs-accept",
	"cache-behavior-path-pattern", "cs-headers", "cs-header-names", "cs-headers-count", "primary-distribution-id", "primary-distribution-dns-name",
	"origin-fbl", "origin-lbl", "asn",
}

// maxLong bounds cookies and lists of headers in real-time logs, in bytes.
const maxLong = 800

// fields are those of both kinds of logs, by their names.
var fields = map[string]field{
	"date":                        func(r *Record) string { return r.Time.UTC().Format(time.DateOnly) },
	"time":                        func(r *Record) string { return r.Time.UTC().Format(time.TimeOnly) },
	"timestamp":                   func(r *Record) string { return fmt.Sprintf("%d.%03d", r.Time.Unix(), r.Time.UnixMilli()%1000) },
	"c-ip":                        func(r *Record) string { return r.ClientIP.Unmap().String() },
	"s-ip":                        none, // what is not known of a location
	"time-to-first-byte":          func(r *Record) string { return inSeconds(r.FirstByte) },
	"sc-status":                   status,
	"sc-bytes":                    func(r *Record) string { return strconv.FormatInt(r.BytesSent, 10) },
	"cs-method":                   func(r *Record) string { return r.Method },
	"cs-protocol":                 func(r *Record) string { return r.Protocol },
	"cs-host":                     func(r *Record) string { return r.Distribution.DomainName },
	"cs-uri-stem":                 func(r *Record) string { return r.Path },
	"cs-bytes":                    func(r *Record) string { return strconv.FormatInt(r.BytesReceived, 10) },
	"x-edge-location":             func(r *Record) string { return r.Location },
	"x-edge-request-id":           func(r *Record) string { return r.RequestID },
	"x-host-header":               func(r *Record) string { return r.Host },
	"time-taken":                  func(r *Record) string { return inSeconds(r.TimeTaken) },
	"cs-protocol-version":         func(r *Record) string { return r.Version },
	"c-ip-version":                version,
	"cs-user-agent":               header1("User-Agent"),
	"cs-referer":                  header1("Referer"),
	"cs-cookie":                   func(r *Record) string { return first(cookies(r), maxLong) },
	"cs(Cookie)":                  func(r *Record) string { return unless(!r.Distribution.Logging.Cookies, cookies(r)) },
	"cs-uri-query":                func(r *Record) string { return r.Query },
	"x-edge-response-result-type": func(r *Record) string { return r.Response },
	"x-forwarded-for":             func(r *Record) string { return strings.Join(r.Header["X-Forwarded-For"], ", ") },
	"ssl-protocol":                func(r *Record) string { return r.TLSVersion },
	"ssl-cipher":                  func(r *Record) string { return opensslName(r.TLSCipher) },
	"x-edge-result-type":          func(r *Record) string { return r.Result },
	"fle-encrypted-fields":        none, // there is no field-level encryption
	"fle-status":                  none,
	"sc-content-type":             func(r *Record) string { return r.ContentType },
	"sc-content-len":              func(r *Record) string { return optional(r.ContentLength) },
	"sc-range-start":              func(r *Record) string { return optional(r.RangeStart) },
	"sc-range-end":                func(r *Record) string { return optional(r.RangeEnd) },
	"c-port":                      func(r *Record) string { return strconv.Itoa(int(r.ClientPort)) },
	"x-edge-detailed-result-type": func(r *Record) string { return r.Detail },
	"c-country":                   func(r *Record) string { return r.Country },
	"cs-accept-encoding":          header1("Accept-Encoding"),
	"cs-accept":                   header1("Accept"),
	"cache-behavior-path-pattern": pattern,
	"cs-headers":                  func(r *Record) string { return first(headerLines(r, true), maxLong) },
	"cs-header-names":             func(r *Record) string { return first(headerLines(r, false), maxLong) },
	"cs-headers-count":            func(r *Record) string { return strconv.Itoa(headerCount(r)) },
	// A distribution is its own primary one, without continuous deployment.
	"primary-distribution-id":       none,
	"primary-distribution-dns-name": none,
	"origin-fbl":                    func(r *Record) string { return unless(r.OriginFirstByte == 0, inSeconds(r.OriginFirstByte)) },
	"origin-lbl":                    func(r *Record) string { return unless(r.OriginLastByte == 0, inSeconds(r.OriginLastByte)) },
	"asn":                           none,
}

// fieldsOf returns fields by their names. One that is not known, since the core is
// of a newer version, has no value.
func fieldsOf(names ...string) []field {
	list := make([]field, len(names))
	for i, name := range names {
		if list[i] = fields[name]; list[i] == nil {
			list[i] = none
		}
	}
	return list
}

func none(*Record) string { return "" }

func unless(missing bool, s string) string {
	if missing {
		return ""
	}
	return s
}

func header1(name string) field { return func(r *Record) string { return r.Header.Get(name) } }

func status(r *Record) string {
	if r.Status == 0 {
		return "000"
	}
	return strconv.Itoa(r.Status)
}

func version(r *Record) string {
	if r.ClientIP.Unmap().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func cookies(r *Record) string { return strings.Join(r.Header["Cookie"], "; ") }

func pattern(r *Record) string {
	if r.Behaviour == nil {
		return ""
	}
	return r.Behaviour.Pattern
}

// headerLines lists the request's headers, each with a line feed after it, by their
// names: the order in which the viewer sent them is not kept.
func headerLines(r *Record, values bool) string {
	var b strings.Builder
	line := func(name, value string) {
		b.WriteString(name)
		if values {
			b.WriteString(":" + value)
		}
		b.WriteByte('\n')
	}
	line("Host", r.Host)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, value := range r.Header[name] {
			line(name, value)
		}
	}
	return b.String()
}

func headerCount(r *Record) int {
	n := 1 // Host
	for _, values := range r.Header {
		n += len(values)
	}
	return n
}

func first(s string, n int) string { return s[:min(n, len(s))] }
