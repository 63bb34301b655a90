package sigv4

import (
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

const (
	upperHex = "0123456789ABCDEF"
	lowerHex = "0123456789abcdef"
)

// appendCanonicalRequest appends the canonical request:
//
//	method \n path \n query \n headers \n signed header names \n payload hash
func appendCanonicalRequest(b []byte, r *http.Request, a *Authorization, payloadHash string, s3 bool) []byte {
	b = append(b, r.Method...)
	b = append(b, '\n')
	if path := rawPath(r); s3 {
		b = appendS3Path(b, path)
	} else {
		b = appendPath(b, path)
	}
	b = append(b, '\n')
	b = appendQuery(b, r.URL.RawQuery, a.Presigned)
	b = append(b, '\n')
	for name := range strings.SplitSeq(a.SignedHeaders, ";") {
		b = append(b, name...)
		b = append(b, ':')
		b = appendHeader(b, r, name)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = append(b, a.SignedHeaders...)
	b = append(b, '\n')
	return append(b, payloadHash...)
}

// rawPath returns the path as it stood on the wire.
func rawPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	return r.URL.EscapedPath()
}

// appendS3Path appends S3's canonical form of a path: no normalisation, since
// "//" and ".." are good key names, and every byte in its one canonical
// encoding. An escaped slash stays escaped, as the client signed it.
func appendS3Path(b []byte, path string) []byte {
	if path == "" {
		return append(b, '/')
	}
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if d, ok := unhex(path, i); ok {
				i += 2
				b = appendEscaped(b, d)
				continue
			}
		}
		if c == '/' {
			b = append(b, '/')
		} else {
			b = appendEscaped(b, c)
		}
	}
	return b
}

// appendPath appends every other service's canonical form of a path: dot
// segments and empty segments removed (RFC 3986, section 5.2.4), then escaped
// once more than it was on the wire.
func appendPath(b []byte, path string) []byte {
	if path == "" || path == "/" {
		return append(b, '/')
	}
	if strings.Contains(path, "//") || strings.Contains(path, "/.") {
		path = normalizePath(path)
	}
	for i := range len(path) {
		if path[i] == '/' {
			b = append(b, '/')
		} else {
			b = appendEscaped(b, path[i])
		}
	}
	return b
}

func normalizePath(path string) string {
	var out []string
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "", ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, segment)
		}
	}
	normal := "/" + strings.Join(out, "/")
	if strings.HasSuffix(path, "/") && len(out) > 0 {
		normal += "/"
	}
	return normal
}

// appendQuery appends the canonical query: every name and value decoded and
// encoded again, sorted by name and then by value. A presigned request does
// not sign its own signature.
func appendQuery(b []byte, raw string, presigned bool) []byte {
	if raw == "" {
		return b
	}
	var pairs []string
	var scratch []byte
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		scratch = appendQueryPart(scratch[:0], name)
		if presigned && string(scratch) == "X-Amz-Signature" {
			continue
		}
		scratch = append(scratch, '=')
		scratch = appendQueryPart(scratch, value)
		pairs = append(pairs, string(scratch))
	}
	slices.SortFunc(pairs, comparePairs)
	for i, pair := range pairs {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, pair...)
	}
	return b
}

// comparePairs orders encoded name=value pairs by name, then by value. Comparing
// them whole would put "a-b=" before "a=", for '-' sorts before '='.
func comparePairs(x, y string) int {
	xName, xValue, _ := strings.Cut(x, "=")
	yName, yValue, _ := strings.Cut(y, "=")
	if c := strings.Compare(xName, yName); c != 0 {
		return c
	}
	return strings.Compare(xValue, yValue)
}

func appendQueryPart(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			if d, ok := unhex(s, i); ok {
				c = d
				i += 2
			}
		}
		b = appendEscaped(b, c)
	}
	return b
}

// appendHeader appends the canonical value of a header: its values joined with
// commas, each trimmed, runs of spaces made one.
func appendHeader(b []byte, r *http.Request, name string) []byte {
	switch name {
	// net/http moves these out of the header map.
	case "host":
		return append(b, r.Host...)
	case "content-length":
		if _, present := r.Header["Content-Length"]; !present && r.ContentLength >= 0 {
			return strconv.AppendInt(b, r.ContentLength, 10)
		}
	case "transfer-encoding":
		return append(b, strings.Join(r.TransferEncoding, ",")...)
	}
	for i, value := range r.Header[headerKey(name)] {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendTrimmed(b, value)
	}
	return b
}

func appendTrimmed(b []byte, value string) []byte {
	value = strings.TrimSpace(value)
	for {
		head, tail, found := strings.Cut(value, "  ")
		b = append(b, head...)
		if !found {
			return b
		}
		b = append(b, ' ')
		value = strings.TrimLeft(tail, " ")
	}
}

// headerKeys are the map keys of the headers that clients sign most, which
// saves an allocation for each.
var headerKeys = func() map[string]string {
	keys := make(map[string]string)
	for _, name := range []string{
		"amz-sdk-invocation-id", "amz-sdk-request", "content-encoding", "content-md5", "content-type", "range",
		"x-amz-client-context", "x-amz-content-sha256", "x-amz-date", "x-amz-invocation-type", "x-amz-log-type",
		"x-amz-security-token", "x-amz-target", "x-amz-user-agent", "x-amz-decoded-content-length", "x-amz-trailer",
		"x-amz-sdk-checksum-algorithm", "x-amz-checksum-mode",
	} {
		keys[name] = textproto.CanonicalMIMEHeaderKey(name)
	}
	return keys
}()

func headerKey(name string) string {
	if key, ok := headerKeys[name]; ok {
		return key
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// appendEscaped appends c, percent-encoded unless it is unreserved (RFC 3986).
func appendEscaped(b []byte, c byte) []byte {
	if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~' {
		return append(b, c)
	}
	return append(b, '%', upperHex[c>>4], upperHex[c&15])
}

// unhex decodes the escape that begins at s[i].
func unhex(s string, i int) (byte, bool) {
	if i+2 >= len(s) {
		return 0, false
	}
	hi, ok1 := hexValue(s[i+1])
	lo, ok2 := hexValue(s[i+2])
	return hi<<4 | lo, ok1 && ok2
}

func hexValue(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
