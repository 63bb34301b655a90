// Package sigv4 verifies AWS Signature Version 4: the signature of a request
// in its Authorization header or in its query (a presigned URL), and the
// payload that it covers, including the chunked payloads that S3 clients
// stream.
//
// Verification has two steps, because the service that a request is for is
// known only from what the first step reads:
//
//	auth, err := sigv4.Parse(r)                    // who claims to have signed what
//	err = verifier.Verify(r, auth, secret, rules)  // did they?
//
// After Verify, r.Body yields the payload that the client signed. Where the
// payload is read as a stream (S3), a Read fails with an *aws.Error as soon as
// it is found to differ from what was signed; so nothing read from it may take
// effect before io.EOF.
//
// Failures are of type *Failure and are rendered in the words of one of AWS's
// protocol families (a Dialect). The rules are those of "AWS Signature Version
// 4 for API requests" (IAM User Guide) and of "Authenticating Requests" (Amazon
// S3 API Reference). Asymmetric signatures (SigV4A) are for the services that
// take them (Rules.Asymmetric); of Signature Version 2 only presigned S3 URLs
// are accepted (legacy.go).
package sigv4

import (
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	algorithm      = "AWS4-HMAC-SHA256"
	algorithmECDSA = "AWS4-ECDSA-P256-SHA256"
	terminator     = "aws4_request"
	timeFormat     = "20060102T150405Z"

	// MaxExpires is the longest life of a presigned S3 URL.
	MaxExpires = 7 * 24 * time.Hour
)

// Authorization is what a request says about its signature. Nothing in it has
// been verified.
type Authorization struct {
	AccessKeyID  string
	SessionToken string // X-Amz-Security-Token, empty for long-term keys
	Date         string // of the credential scope, YYYYMMDD
	Region       string // a set of them, with stars, of an asymmetric signature
	Service      string // signing name
	// SignedHeaders are lower-case names joined by semicolons.
	SignedHeaders string
	Signature     string // hexadecimal
	// Presigned tells that the signature was in the query.
	Presigned bool

	timestamp string        // as it stands in the string to sign
	time      time.Time     // the same
	expires   time.Duration // of a presigned request; -1 without X-Amz-Expires
	terminal  string        // of the scope, "aws4_request" when valid
	legacy    *legacy       // of a URL presigned with Signature Version 2

	asymmetric bool // signed with AWS4-ECDSA-P256-SHA256
}

func (a *Authorization) algorithm() string {
	if a.asymmetric {
		return algorithmECDSA
	}
	return algorithm
}

// scope returns the credential scope.
func (a *Authorization) scope() string {
	return string(appendScope(nil, a))
}

// Parse reads the signature of a request. A request without any gets a
// *Failure for which IsAnonymous is true. Whatever could be read is in the
// Authorization even when an error is returned, so that the error can be put
// in the dialect of the service that was meant.
func Parse(r *http.Request) (*Authorization, error) {
	if header := r.Header["Authorization"]; len(header) > 0 {
		if hasPresignature(r.URL.RawQuery) || hasLegacyPresignature(r.URL.RawQuery) {
			return &Authorization{}, failMultipleMechanisms()
		}
		return parseHeader(r, header)
	}
	if hasPresignature(r.URL.RawQuery) {
		return parseQuery(r)
	}
	if hasLegacyPresignature(r.URL.RawQuery) {
		return parseLegacy(r)
	}
	return &Authorization{}, failAnonymous()
}

// hasPresignature tells whether a query claims to carry a signature. It is
// called for every request, so it does not decode the query.
func hasPresignature(rawQuery string) bool {
	return strings.Contains(rawQuery, "X-Amz-Algorithm=") || strings.Contains(rawQuery, "X-Amz-Signature=") ||
		strings.Contains(rawQuery, "X-Amz-Credential=")
}

// parseHeader reads the Authorization header:
//
//	AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/iam/aws4_request, SignedHeaders=a;b, Signature=hex
//	AWS4-ECDSA-P256-SHA256 Credential=AKID/20150830/iam/aws4_request, SignedHeaders=a;b, Signature=hex
func parseHeader(r *http.Request, header []string) (*Authorization, error) {
	a := &Authorization{expires: -1}
	value := header[0]
	alg, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
	switch {
	case len(header) > 1:
		return a, failMalformedHeader("Authorization header must be present only once.", "only one Authorization header is allowed")
	case alg == algorithm:
	case alg == algorithmECDSA:
		a.asymmetric = true
		a.Region = r.Header.Get(regionSetHeader)
	case strings.HasPrefix(alg, "AWS4-"):
		return a, failAlgorithm(alg)
	default:
		return a, failMechanism(alg)
	}

	var credential string
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, ",")
		part = strings.TrimSpace(part)
		name, v, found := strings.Cut(part, "=")
		if !found {
			return a, failNotKeyValue(part, value)
		}
		switch name {
		case "Credential":
			credential = v
		case "SignedHeaders":
			a.SignedHeaders = v
		case "Signature":
			a.Signature = v
		}
	}
	a.SessionToken = r.Header.Get("X-Amz-Security-Token")
	malformed := a.setCredential(credential)
	a.timestamp = headerTimestamp(r)

	var missing []string
	for _, p := range []struct{ name, value string }{
		{"Credential", credential}, {"Signature", a.Signature}, {"SignedHeaders", a.SignedHeaders},
	} {
		if p.value == "" {
			missing = append(missing, p.name)
		}
	}
	if len(missing) > 0 || a.timestamp == "" {
		return a, failMissingComponents(missing, a.timestamp == "")
	}
	if malformed {
		return a, failCredential(credential, a)
	}
	return a, a.setTime(false)
}

// headerTimestamp returns the time of signing in the form of the string to
// sign: from X-Amz-Date, or else from Date.
func headerTimestamp(r *http.Request) string {
	if v := r.Header["X-Amz-Date"]; len(v) > 0 {
		return v[0]
	}
	date := r.Header.Get("Date")
	if t, err := http.ParseTime(date); err == nil {
		return t.UTC().Format(timeFormat)
	}
	return date
}

// parseQuery reads the X-Amz-… parameters of a presigned URL.
func parseQuery(r *http.Request) (*Authorization, error) {
	a := &Authorization{Presigned: true, expires: -1}
	var alg, credential, expires, regions string
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		// The names need no escapes, and no signer escapes them.
		field := (*string)(nil)
		switch rawName {
		case "X-Amz-Algorithm":
			field = &alg
		case "X-Amz-Credential":
			field = &credential
		case "X-Amz-Date":
			field = &a.timestamp
		case "X-Amz-Expires":
			field = &expires
		case "X-Amz-SignedHeaders":
			field = &a.SignedHeaders
		case "X-Amz-Signature":
			field = &a.Signature
		case "X-Amz-Security-Token":
			field = &a.SessionToken
		case regionSetHeader:
			field = &regions
		default:
			continue
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil || *field != "" {
			return a, failQueryParameter(rawName, "Error parsing the "+rawName+" parameter.")
		}
		*field = value
	}
	if alg == algorithmECDSA {
		a.asymmetric, a.Region = true, regions
	}
	malformed := a.setCredential(credential)
	if alg != algorithm && !a.asymmetric {
		return a, failQueryAlgorithm(alg)
	}
	var missing []string
	for _, p := range []struct{ name, value string }{
		{"X-Amz-Credential", credential}, {"X-Amz-Date", a.timestamp},
		{"X-Amz-SignedHeaders", a.SignedHeaders}, {"X-Amz-Signature", a.Signature},
	} {
		if p.value == "" {
			missing = append(missing, p.name)
		}
	}
	if len(missing) > 0 {
		return a, failMissingParameters(missing)
	}
	if malformed {
		return a, failCredential(credential, a)
	}
	if expires != "" {
		if err := a.setExpires(expires); err != nil {
			return a, err
		}
	}
	return a, a.setTime(true)
}

// setCredential takes AKID/YYYYMMDD/REGION/SERVICE/aws4_request apart and tells
// whether it is malformed. That of an asymmetric signature has no Region.
func (a *Authorization) setCredential(s string) (malformed bool) {
	var more bool
	a.AccessKeyID, s, _ = strings.Cut(s, "/")
	a.Date, s, _ = strings.Cut(s, "/")
	if !a.asymmetric {
		a.Region, s, _ = strings.Cut(s, "/")
	}
	a.Service, s, _ = strings.Cut(s, "/")
	a.terminal, _, more = strings.Cut(s, "/")
	return more || a.AccessKeyID == "" || a.Date == "" || a.Region == "" && !a.asymmetric || a.Service == "" || a.terminal == ""
}

// setExpires reads X-Amz-Expires, a number of seconds.
func (a *Authorization) setExpires(s string) error {
	seconds := 0
	negative := strings.HasPrefix(s, "-")
	for _, c := range []byte(strings.TrimPrefix(s, "-")) {
		if c < '0' || c > '9' {
			return failQueryParameter("X-Amz-Expires", "X-Amz-Expires should be a number")
		}
		seconds = min(seconds*10+int(c-'0'), int(MaxExpires/time.Second)+1)
	}
	if negative {
		return failQueryParameter("X-Amz-Expires", "X-Amz-Expires must be non-negative")
	}
	a.expires = time.Duration(seconds) * time.Second
	if a.expires > MaxExpires {
		return failQueryParameter("X-Amz-Expires", "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
	}
	return nil
}

// lastTime is the timestamp that was parsed last: the requests of a second have the
// same.
var lastTime atomic.Pointer[timestamp]

type timestamp struct {
	text string
	time time.Time
}

// setTime parses the timestamp, which must be YYYYMMDDTHHMMSSZ to the letter:
// it is part of the string to sign.
func (a *Authorization) setTime(presigned bool) error {
	if last := lastTime.Load(); last != nil && last.text == a.timestamp {
		a.time = last.time
		return nil
	}
	t, err := time.Parse(timeFormat, a.timestamp)
	if err != nil || len(a.timestamp) != len(timeFormat) {
		return failTimestamp(a.timestamp, presigned)
	}
	a.time = t
	lastTime.Store(&timestamp{strings.Clone(a.timestamp), t})
	return nil
}
