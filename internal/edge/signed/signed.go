// Package signed verifies signed URLs and signed cookies: whether a request for a
// protected path carries a policy that allows it, signed by a key of the
// behaviour's ("Serving private content with signed URLs and signed cookies",
// CloudFront developer guide).
package signed

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/policy"
)

// Error is a request that is refused, as the viewer sees it, with status 403.
type Error struct{ Code, Message string }

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

var (
	errMissing  = &Error{"MissingKey", "Missing Key-Pair-Id query parameter or cookie value"}
	errUnknown  = &Error{"InvalidKey", "Unknown Key"}
	errPolicy   = &Error{"MalformedPolicy", "Malformed Policy"}
	errEncoding = &Error{"MalformedSignature", "Could not unencode Signature"}
	errDenied   = &Error{"AccessDenied", "Access denied"}
)

// Keys are the public keys of a behaviour's signers.
type Keys map[string]crypto.PublicKey

// ParseKeys reads public keys; those that cannot be read are told in the error,
// and what they have signed is refused.
func ParseKeys(keys []distribution.PublicKey) (Keys, error) {
	k := Keys{}
	var errs []error
	for _, key := range keys {
		public, err := parseKey(key.PEM)
		if err != nil {
			errs = append(errs, fmt.Errorf("public key %s: %w", key.ID, err))
			continue
		}
		k[key.ID] = public
	}
	return k, errors.Join(errs...)
}

func parseKey(text string) (crypto.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not in PEM form")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return key, nil
	}
	return nil, fmt.Errorf("a %T signs no URLs", key)
}

// parameters are those of a signed URL, or the cookies of that name with a prefix.
type parameters struct{ expires, policy, signature, keyPair, hash string }

// names of the parameters.
const (
	nameExpires   = "Expires"
	namePolicy    = "Policy"
	nameSignature = "Signature"
	nameKeyPair   = "Key-Pair-Id"
	nameHash      = "Hash-Algorithm"
	cookiePrefix  = "CloudFront-"
)

func (p *parameters) set(name, value string) bool {
	switch name {
	case nameExpires:
		p.expires = value
	case namePolicy:
		p.policy = value
	case nameSignature:
		p.signature = value
	case nameKeyPair:
		p.keyPair = value
	case nameHash:
		p.hash = value
	default:
		return false
	}
	return true
}

// maxPolicy bounds a policy, in bytes of its encoded form. The URL's limit of 8,192
// bytes is below it; cookies could be longer.
const maxPolicy = 16 << 10

// Request is what is verified of a request.
type Request struct {
	// URL is scheme, host and path as the viewer has them, without the query.
	URL string
	// Normal is the same with its path as behaviours are matched with it: without
	// dot segments, by which a URL could leave what a star in a policy stands for.
	// Empty: it is the same.
	Normal string
	Query  string
	Header http.Header
	Client netip.Addr
}

// Strip returns a query without the parameters of a signed URL, which neither the
// cache key nor the origin has.
func Strip(query string) string {
	_, rest := split(query)
	return rest
}

// split takes the parameters of a signed URL out of a query.
func split(query string) (p parameters, rest string) {
	if !strings.Contains(query, nameKeyPair) {
		return p, query
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if !p.set(name, value) {
			kept = append(kept, pair)
		}
	}
	return p, strings.Join(kept, "&")
}

// Verify tells whether a request may be served now: nil, or an *Error. A query
// string that has the parameters goes before cookies.
func (k Keys) Verify(r *Request, now time.Time) error {
	p, rest := split(r.Query)
	if p.keyPair == "" {
		p = parameters{}
		for _, line := range r.Header["Cookie"] {
			for c := range strings.SplitSeq(line, ";") {
				name, value, _ := strings.Cut(strings.TrimSpace(c), "=")
				if name, ok := strings.CutPrefix(name, cookiePrefix); ok {
					p.set(name, strings.Trim(value, `"`))
				}
			}
		}
		rest = r.Query // cookies sign it whole
	}
	resource, normal := r.URL, r.Normal
	if normal == "" {
		normal = resource
	}
	if rest != "" {
		resource += "?" + rest
		normal += "?" + rest
	}
	return k.verify(&p, resource, normal, r.Client, now)
}

func (k Keys) verify(p *parameters, resource, normal string, client netip.Addr, now time.Time) error {
	if p.keyPair == "" || p.signature == "" || p.policy == "" && p.expires == "" {
		return errMissing
	}
	key := k[p.keyPair]
	if key == nil {
		return errUnknown
	}
	signature, err := decode(p.signature)
	if err != nil {
		return errEncoding
	}
	if p.policy == "" {
		return verifyCanned(key, p, resource, signature, now)
	}
	if len(p.policy) > maxPolicy {
		return errPolicy
	}
	text, err := decode(p.policy)
	if err != nil {
		return errPolicy
	}
	if !valid(key, p.hash, text, signature) {
		return errDenied
	}
	return allows(text, resource, normal, client, now)
}

// verifyCanned verifies a canned policy, which is not sent but made of the URL.
func verifyCanned(key crypto.PublicKey, p *parameters, resource string, signature []byte, now time.Time) error {
	expires, err := strconv.ParseInt(p.expires, 10, 64)
	if err != nil {
		return errPolicy
	}
	text := `{"Statement":[{"Resource":"` + resource + `","Condition":{"DateLessThan":{"AWS:EpochTime":` + p.expires + `}}}]}`
	if !valid(key, p.hash, []byte(text), signature) || now.Unix() >= expires {
		return errDenied
	}
	return nil
}

// decode undoes the base64 of signed URLs, in which "+", "=" and "/" are "-", "_"
// and "~".
func decode(s string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "=", "~", "/", "%7E", "/", "%7e", "/").Replace(s))
}

// valid tells whether a signature is that of a text.
func valid(key crypto.PublicKey, hash string, text, signature []byte) bool {
	algorithm, digest := crypto.SHA1, []byte(nil)
	switch strings.ToUpper(hash) {
	case "", "SHA1":
		sum := sha1.Sum(text)
		digest = sum[:]
	case "SHA256":
		sum := sha256.Sum256(text)
		algorithm, digest = crypto.SHA256, sum[:]
	default:
		return false
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, algorithm, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, signature)
	}
	return false
}

// document is a custom policy.
type document struct {
	Statement []struct {
		Resource  string
		Condition struct {
			DateLessThan    *epoch
			DateGreaterThan *epoch
			IPAddress       *struct {
				Source string `json:"AWS:SourceIp"`
			} `json:"IpAddress"`
		}
	}
}

type epoch struct {
	Time int64 `json:"AWS:EpochTime"`
}

// allows tells whether a custom policy allows a request.
func allows(text []byte, resource, normal string, client netip.Addr, now time.Time) error {
	var p document
	if err := json.Unmarshal(text, &p); err != nil || len(p.Statement) != 1 {
		return errPolicy
	}
	s := &p.Statement[0]
	c := &s.Condition
	switch {
	case c.DateLessThan == nil:
		return errPolicy
	case now.Unix() >= c.DateLessThan.Time,
		c.DateGreaterThan != nil && now.Unix() <= c.DateGreaterThan.Time,
		c.IPAddress != nil && !within(c.IPAddress.Source, client),
		!covers(s.Resource, resource), !covers(s.Resource, normal):
		return errDenied
	}
	return nil
}

// within tells whether an address is in a network, or is the one that is named.
func within(source string, client netip.Addr) bool {
	if a, err := netip.ParseAddr(source); err == nil {
		return a == client
	}
	p, err := netip.ParsePrefix(source)
	return err == nil && p.Contains(client)
}

// covers tells whether a policy's resource is a request's URL. None stands for
// everything, a star for any number of characters and a question mark for one;
// "http*" leaves the scheme open.
func covers(pattern, resource string) bool {
	return pattern == "" || policy.Match(pattern, resource)
}
