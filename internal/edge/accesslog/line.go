package accesslog

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// header is what files of standard logs begin with (CloudFront developer guide,
// "Standard log file format").
const header = "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) " +
	"cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes time-taken x-forwarded-for ssl-protocol ssl-cipher " +
	"x-edge-response-result-type cs-protocol-version fle-status fle-encrypted-fields c-port time-to-first-byte x-edge-detailed-result-type sc-content-type " +
	"sc-content-len sc-range-start sc-range-end\n"

// standard are the fields of standard logs in their order, as header names them.
var standard = fieldsOf(
	"date", "time", "x-edge-location", "sc-bytes", "c-ip", "cs-method", "cs-host", "cs-uri-stem", "sc-status", "cs-referer", "cs-user-agent",
	"cs-uri-query", "cs(Cookie)", "x-edge-result-type", "x-edge-request-id", "x-host-header", "cs-protocol", "cs-bytes", "time-taken", "x-forwarded-for", "ssl-protocol", "ssl-cipher",
	"x-edge-response-result-type", "cs-protocol-version", "fle-status", "fle-encrypted-fields", "c-port", "time-to-first-byte", "x-edge-detailed-result-type", "sc-content-type",
	"sc-content-len", "sc-range-start", "sc-range-end",
)

// appendFields appends the line of a record: fields with tabs between them.
func (r *Record) appendFields(b []byte, list []field) []byte {
	for i, f := range list {
		if i > 0 {
			b = append(b, '\t')
		}
		b = appendField(b, f(r))
	}
	return append(b, '\n')
}

func inSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

func optional(n int64) string {
	if n < 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// encoded are the printable characters that are percent-encoded beside spaces, and
// whatever is not printable (CloudFront developer guide, "Standard log file
// fields").
const encoded = "\"#%'<>[\\]^`{|}~"

// appendField appends a field; one that is empty is a hyphen.
func appendField(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(encoded, c) >= 0 {
			b = fmt.Appendf(b, "%%%02X", c)
		} else {
			b = append(b, c)
		}
	}
	return b
}

// opensslName turns the IANA name of a cipher suite of TLS 1.2 and before into
// OpenSSL's, which logs have: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 is
// ECDHE-RSA-AES128-GCM-SHA256. Suites of TLS 1.3 have one name.
func opensslName(suite string) string {
	exchange, cipher, ok := strings.Cut(strings.TrimPrefix(suite, "TLS_"), "_WITH_")
	if !ok {
		return suite
	}
	cipher = strings.NewReplacer("AES_128_CBC", "AES128", "AES_256_CBC", "AES256", "AES_128", "AES128", "AES_256", "AES256", "CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305").Replace(cipher)
	if exchange == "RSA" {
		return strings.ReplaceAll(cipher, "_", "-")
	}
	return strings.ReplaceAll(exchange+"-"+cipher, "_", "-")
}
