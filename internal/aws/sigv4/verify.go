package sigv4

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Rules are what a service asks of a signature.
type Rules struct {
	Dialect Dialect
	// Service is the signing name that the scope must name.
	Service string
	// Regions are those that the scope may name, the expected one first. Global
	// services accept us-east-1 beside it.
	Regions []string
	// Asymmetric tells that the service takes asymmetric signatures too.
	Asymmetric bool
	// Bucket is the one that the host names, where S3 is addressed so. Signatures
	// of version 2 cover it.
	Bucket string
	// MaxBody is the longest payload in bytes; 0 means no limit. Only a
	// service that reads its payload as a stream (S3) may have none.
	MaxBody int64
	// TooLarge makes the error for a payload over MaxBody.
	TooLarge func() error
}

func (r *Rules) allowsRegion(a *Authorization) bool {
	if a.asymmetric {
		return covers(a.Region, r.Regions)
	}
	return slices.Contains(r.Regions, a.Region)
}

// maxPresigned is how long a presigned request to a service other than S3 is
// accepted, whatever X-Amz-Expires says.
const maxPresigned = 15 * time.Minute

// Verifier verifies signatures. The zero value is not usable; see NewVerifier.
type Verifier struct {
	now        func() time.Time
	keys       keyCache[keyID, signingKey]
	publicKeys keyCache[credentialID, *ecdsa.PublicKey]
}

// NewVerifier returns a Verifier that tells the time with now.
func NewVerifier(now func() time.Time) *Verifier {
	v := &Verifier{now: now}
	v.keys.derive, v.publicKeys.derive = deriveKey, derivePublicKey
	return v
}

// Verify verifies that r was signed with secret, and that it was meant for the
// service that rules describe, now. It replaces r.Body by the payload that was
// signed, and sets r.ContentLength to its length, -1 where that is not known.
// The error is a *Failure, or what rules.TooLarge returned, or an error of
// reading the body.
func (v *Verifier) Verify(r *http.Request, a *Authorization, secret string, rules *Rules) error {
	now := v.now().UTC()
	if a.legacy != nil {
		return verifyLegacy(r, a, secret, rules, now)
	}
	if a.asymmetric && !rules.Asymmetric {
		return failAsymmetric()
	}
	if err := checkTime(a, rules, now); err != nil {
		return err
	}
	if err := checkSignedHeaders(r, a); err != nil {
		return err
	}
	if !rules.allowsRegion(a) || a.Service != rules.Service || a.terminal != terminator || a.Date != a.timestamp[:8] {
		return failScope(a, rules)
	}

	var key signingKey
	if !a.asymmetric {
		key = v.keys.get(keyID{secret, a.Date, a.Region, a.Service})
	}
	payload, err := preparePayload(r, a, rules, &key)
	if err != nil {
		return err
	}
	if !v.matches(r, a, payload.hash, rules.Dialect == S3, secret, &key) {
		return failSignature(a)
	}
	payload.install(r)
	return nil
}

// checkTime checks that the request was signed recently, or in time before its
// own expiry.
func checkTime(a *Authorization, rules *Rules, now time.Time) error {
	skew := rules.Dialect.maxSkew()
	if a.time.After(now.Add(skew)) {
		return failEarly(a, now, skew)
	}
	limit := skew
	if a.Presigned {
		switch {
		case rules.Dialect == S3 && a.expires < 0:
			return failMissingExpires()
		case rules.Dialect == S3:
			limit = a.expires
		case a.expires >= 0:
			limit = min(a.expires, maxPresigned)
		}
	}
	if now.Sub(a.time) > limit {
		return failLate(a, now, limit)
	}
	return nil
}

func failMissingExpires() *Failure { return failMissingParameters([]string{"X-Amz-Expires"}) }

// checkSignedHeaders checks that the signature covers the host and every
// header that may change what the request does. The date, the payload's hash
// and the session token need not be named: the string to sign, the canonical
// request and the token's own seal bind them.
func checkSignedHeaders(r *http.Request, a *Authorization) error {
	if !signs(a.SignedHeaders, "host") && !signs(a.SignedHeaders, ":authority") {
		return failHostNotSigned()
	}
	var unsigned []string
	for name := range r.Header {
		if !strings.HasPrefix(name, "X-Amz-") {
			continue
		}
		switch name {
		case "X-Amz-Date", "X-Amz-Content-Sha256", "X-Amz-Security-Token":
			continue
		}
		if !signs(a.SignedHeaders, name) {
			unsigned = append(unsigned, strings.ToLower(name))
		}
	}
	if len(unsigned) > 0 {
		slices.Sort(unsigned)
		return failNotSigned(unsigned)
	}
	return nil
}

// signs tells whether the list of signed headers names a header.
func signs(list, name string) bool {
	for signed := range strings.SplitSeq(list, ";") {
		if strings.EqualFold(signed, name) {
			return true
		}
	}
	return false
}

// buffers hold canonical requests.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled is the largest buffer that goes back into the pool.
const maxPooled = 64 << 10

// matches computes the signature and compares it, in constant time; or verifies
// it, where it is asymmetric.
func (v *Verifier) matches(r *http.Request, a *Authorization, payloadHash string, s3 bool, secret string, key *signingKey) bool {
	buffer := buffers.Get().(*[]byte)
	b := appendCanonicalRequest((*buffer)[:0], r, a, payloadHash, s3)
	hash := sha256.Sum256(b)

	b = append(b[:0], a.algorithm()...)
	b = append(b, '\n')
	b = append(b, a.timestamp...)
	b = append(b, '\n')
	b = appendScope(b, a)
	b = append(b, '\n')
	b = hex.AppendEncode(b, hash[:])
	var good bool
	if a.asymmetric {
		good = v.verifiesECDSA(a, secret, b)
	} else {
		good = equalHex(a.Signature, key.sign(b))
	}

	if cap(b) <= maxPooled {
		*buffer = b
		buffers.Put(buffer)
	}
	return good
}

func appendScope(b []byte, a *Authorization) []byte {
	b = append(b, a.Date...)
	if !a.asymmetric {
		b = append(b, '/')
		b = append(b, a.Region...)
	}
	b = append(b, '/')
	b = append(b, a.Service...)
	b = append(b, '/')
	return append(b, a.terminal...)
}

// equalHex compares a hexadecimal signature with the bytes that it should be.
func equalHex(got string, want [sha256.Size]byte) bool {
	var hexed [2 * sha256.Size]byte
	hex.Encode(hexed[:], want[:])
	return hmac.Equal([]byte(got), hexed[:])
}

// signingKey is a key derived for one secret, day, region and service.
type signingKey [sha256.Size]byte

func (k *signingKey) sign(b []byte) [sha256.Size]byte { return hmacSHA256(k[:], b) }

// hmacSHA256 is HMAC (RFC 2104) over SHA-256.
func hmacSHA256(key, message []byte) [sha256.Size]byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(message)
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	return sum
}

// deriveKey derives a signing key from a secret access key.
func deriveKey(id keyID) signingKey {
	sum := hmacSHA256([]byte("AWS4"+id.secret), []byte(id.date))
	sum = hmacSHA256(sum[:], []byte(id.region))
	sum = hmacSHA256(sum[:], []byte(id.service))
	return hmacSHA256(sum[:], []byte(terminator))
}

// generation is how many keys the cache takes before the older half goes.
const generation = 2048

// keyCache caches derived keys in two generations: what is asked for moves to
// the young one, and when that is full the old one is dropped. So it holds at
// most 2*generation keys and keeps those in use.
type keyCache[ID derivedFrom[ID], Key any] struct {
	derive     func(ID) Key
	mu         sync.RWMutex
	young, old map[ID]Key
}

// derivedFrom is what a key is derived from. Its strings may point into the
// request; own's do not, so that the cache does not hold that.
type derivedFrom[ID any] interface {
	comparable
	own() ID
}

type keyID struct{ secret, date, region, service string }

func (id keyID) own() keyID {
	return keyID{strings.Clone(id.secret), strings.Clone(id.date), strings.Clone(id.region), strings.Clone(id.service)}
}

func (c *keyCache[ID, Key]) get(id ID) Key {
	c.mu.RLock()
	key, ok := c.young[id]
	old, inOld := c.old[id]
	c.mu.RUnlock()
	if ok {
		return key
	}
	if key = old; !inOld {
		key = c.derive(id)
	}
	id = id.own()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) >= generation {
		c.young, c.old = make(map[ID]Key, 64), c.young
	}
	c.young[id] = key
	return key
}

// emptyHash is the SHA-256 of no bytes.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func hashHex(b []byte) string {
	sum := sha256.Sum256(b)
	var hexed [2 * sha256.Size]byte
	hex.Encode(hexed[:], sum[:])
	return string(hexed[:])
}

// Buffered is a request body that Verify read into memory. Decoders that want
// the bytes take them without a copy:
//
//	if b, ok := r.Body.(interface{ Bytes() []byte }); ok { … }
type Buffered struct {
	bytes.Reader
	data []byte
}

func newBuffered(data []byte) *Buffered {
	b := &Buffered{data: data}
	b.Reset(data)
	return b
}

// Bytes returns the whole body, read or not. It must not be changed.
func (b *Buffered) Bytes() []byte { return b.data }

// Close implements io.Closer.
func (b *Buffered) Close() error { return nil }
