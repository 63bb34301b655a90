package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Values of X-Amz-Content-Sha256 other than a hash.
const (
	unsignedPayload         = "UNSIGNED-PAYLOAD"
	streamingSigned         = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamingSignedTrailer  = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	streamingUnsigned       = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	streamingECDSAPrefix    = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"
	messageInvalidSHA256    = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value."
	messageSHA256Mismatched = "The provided 'x-amz-content-sha256' header does not match what was computed."
)

// payload is the body of a request, ready to be read as what was signed.
type payload struct {
	hash    string // last line of the canonical request
	body    io.ReadCloser
	length  int64 // of what body yields; -1 when unknown
	trailer http.Header
	decoded bool // the aws-chunked coding was taken off
}

func (p *payload) install(r *http.Request) {
	r.Body, r.ContentLength = p.body, p.length
	if !p.decoded {
		return
	}
	r.Trailer = p.trailer
	// The stored Content-Encoding of an object does not name the coding of the
	// transfer.
	codings := strings.Split(r.Header.Get("Content-Encoding"), ",")
	codings = slices.DeleteFunc(codings, func(c string) bool {
		c = strings.TrimSpace(c)
		return c == "" || strings.EqualFold(c, "aws-chunked")
	})
	r.Header = r.Header.Clone() // the caller may have kept the one received
	r.Header.Del("Content-Encoding")
	if len(codings) > 0 {
		r.Header.Set("Content-Encoding", strings.TrimSpace(strings.Join(codings, ",")))
	}
}

// preparePayload finds out how the payload takes part in the signature.
func preparePayload(r *http.Request, a *Authorization, rules *Rules, key *signingKey) (*payload, error) {
	if rules.Dialect == S3 {
		return prepareS3(r, a, rules, key)
	}
	data, err := readBody(r, rules)
	if err != nil {
		return nil, err
	}
	p := &payload{hash: emptyHash, body: http.NoBody, length: 0}
	if len(data) > 0 {
		p.hash, p.body, p.length = hashHex(data), newBuffered(data), int64(len(data))
	}
	return p, nil
}

// unhashed is a payload that is not covered by the signature.
func unhashed(r *http.Request, rules *Rules) (*payload, error) {
	body, err := limited(r.Body, r.ContentLength, rules)
	return &payload{hash: unsignedPayload, body: body, length: r.ContentLength}, err
}

// eagerAlloc is how much memory a request's Content-Length alone makes us set
// aside. Beyond that memory follows the bytes that really arrive.
const eagerAlloc = 1 << 20

// readBody reads the whole body.
func readBody(r *http.Request, rules *Rules) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil, nil
	}
	if rules.MaxBody > 0 && r.ContentLength > rules.MaxBody {
		return nil, rules.TooLarge()
	}
	size := r.ContentLength
	if size < 0 {
		size = 512
	}
	data := make([]byte, 0, min(size, eagerAlloc))
	for {
		if len(data) == cap(data) {
			data = slices.Grow(data, max(cap(data), 512))
		}
		n, err := r.Body.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case rules.MaxBody > 0 && int64(len(data)) > rules.MaxBody:
			return nil, rules.TooLarge()
		case err == io.EOF || int64(len(data)) == r.ContentLength:
			return data, nil
		case err != nil:
			return nil, fmt.Errorf("read the request's body: %w", err)
		}
	}
}

// prepareS3 handles the payload forms of S3, all of which are streams.
func prepareS3(r *http.Request, a *Authorization, rules *Rules, key *signingKey) (*payload, error) {
	declared := r.Header.Get("X-Amz-Content-Sha256")
	if a.Presigned && (declared == "" || !signs(a.SignedHeaders, "x-amz-content-sha256")) {
		declared = presignedHash(r.URL.RawQuery)
	}
	switch {
	case declared == "":
		return nil, s3Only(http.StatusBadRequest, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
	case declared == unsignedPayload:
		return unhashed(r, rules)
	case declared == streamingSigned, declared == streamingSignedTrailer, declared == streamingUnsigned:
		return prepareChunked(r, a, declared, rules, key)
	case strings.HasPrefix(declared, streamingECDSAPrefix):
		return nil, failAsymmetric()
	}
	var want [sha256.Size]byte
	if n, err := hex.Decode(want[:], []byte(declared[:min(len(declared), 2*sha256.Size)])); err != nil || n != sha256.Size || len(declared) != 2*sha256.Size {
		return nil, s3Only(http.StatusBadRequest, "InvalidArgument", messageInvalidSHA256)
	}
	p := &payload{hash: declared, body: http.NoBody, length: r.ContentLength}
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		if !strings.EqualFold(declared, emptyHash) {
			return nil, failPayloadHash(declared, emptyHash)
		}
		return p, nil
	}
	body, err := limited(r.Body, r.ContentLength, rules)
	p.body = &hashedBody{body: body, hash: sha256.New(), want: want, remaining: r.ContentLength}
	return p, err
}

// presignedHash finds the payload hash of a presigned URL, which nearly always
// leaves it out.
func presignedHash(rawQuery string) string {
	for pair := range strings.SplitSeq(rawQuery, "&") {
		if value, ok := strings.CutPrefix(pair, "X-Amz-Content-Sha256="); ok {
			if value, err := url.QueryUnescape(value); err == nil {
				return value
			}
		}
	}
	return unsignedPayload
}

func failPayloadHash(declared, computed string) *Failure {
	return s3Only(http.StatusBadRequest, "XAmzContentSHA256Mismatch", messageSHA256Mismatched).
		extra("ClientComputedContentSHA256", declared, "S3ComputedContentSHA256", computed)
}

// hashedBody checks the hash of a body when its end is reached, whether by
// io.EOF or by the number of bytes announced: a reader may stop there.
type hashedBody struct {
	body      io.ReadCloser
	hash      hash.Hash
	want      [sha256.Size]byte
	remaining int64 // negative when the length was not announced
	err       error
}

func (h *hashedBody) Read(p []byte) (int, error) {
	if h.err != nil {
		return 0, h.err
	}
	n, err := h.body.Read(p)
	h.hash.Write(p[:n])
	if h.remaining >= 0 {
		h.remaining -= int64(n)
		if h.remaining == 0 && err == nil {
			err = io.EOF
		}
	}
	if err == io.EOF {
		if sum := h.hash.Sum(nil); !hmac.Equal(sum, h.want[:]) {
			err = failPayloadHash(hex.EncodeToString(h.want[:]), hex.EncodeToString(sum)).In(S3)
		}
	}
	h.err = err
	return n, err
}

func (h *hashedBody) Close() error { return h.body.Close() }

// limited applies rules.MaxBody to a body that is read as a stream.
func limited(body io.ReadCloser, length int64, rules *Rules) (io.ReadCloser, error) {
	switch {
	case body == nil:
		return http.NoBody, nil
	case rules.MaxBody <= 0:
		return body, nil
	case length > rules.MaxBody:
		return nil, rules.TooLarge()
	case length >= 0:
		return body, nil // net/http reads no more than was announced
	}
	return &limitedBody{body: body, left: rules.MaxBody, tooLarge: rules.TooLarge}, nil
}

type limitedBody struct {
	body     io.ReadCloser
	left     int64
	tooLarge func() error
}

func (l *limitedBody) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, l.tooLarge()
	}
	p = p[:min(int64(len(p)), l.left+1)]
	n, err := l.body.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		return n - 1, l.tooLarge()
	}
	return n, err
}

func (l *limitedBody) Close() error { return l.body.Close() }

// prepareChunked handles the aws-chunked content coding.
func prepareChunked(r *http.Request, a *Authorization, form string, rules *Rules, key *signingKey) (*payload, error) {
	length, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
	if err != nil || length < 0 {
		return nil, s3Only(http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header.")
	}
	if rules.MaxBody > 0 && length > rules.MaxBody {
		return nil, rules.TooLarge()
	}
	trailer := http.Header{}
	for _, names := range r.Header["X-Amz-Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			if name = strings.TrimSpace(name); name != "" {
				trailer[http.CanonicalHeaderKey(name)] = nil
			}
		}
	}
	body := r.Body
	if body == nil {
		body = http.NoBody
	}
	c := newChunkReader(body, length, trailer)
	c.trailers = form != streamingSigned
	if form != streamingUnsigned {
		c.signer = &chunkSigner{key: *key, timestamp: a.timestamp, scope: a.scope(), previous: a.Signature, hash: sha256.New()}
	}
	return &payload{hash: form, body: c, length: length, trailer: trailer, decoded: true}, nil
}
