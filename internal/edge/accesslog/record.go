// Package accesslog writes what viewers asked for and what they got: standard
// logs, as files in S3, one distribution a file (CloudFront developer guide,
// "Standard logging (legacy)"), and real-time logs, as records of a Kinesis data
// stream ("Real-time logs"). Both are a best effort: no answer waits for them.
package accesslog

import (
	"net/http"
	"net/netip"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Record is one request of a viewer and its answer. Whoever fills it in does
// not change it, nor what it points to, once it is handed over.
type Record struct {
	Distribution *distribution.Distribution
	Behaviour    *distribution.Behaviour // nil: the request did not come that far

	Time      time.Time // when the answer was finished
	Location  string    // the edge location, e.g. FRA56-P1
	RequestID string    // x-amz-cf-id

	ClientIP   netip.Addr
	ClientPort uint16
	Country    string // of the viewer, ISO 3166-1 alpha-2; empty: unknown

	// The request, as the viewer sent it.
	Method   string
	Protocol string // http, https, ws or wss
	Version  string // HTTP/1.0, HTTP/1.1, HTTP/2.0 or HTTP/3.0
	Host     string // of the Host header
	Path     string // percent-encoded, without the query
	Query    string // without the question mark
	Header   http.Header

	TLSVersion string // TLSv1.2 or TLSv1.3; empty without TLS
	TLSCipher  string // OpenSSL's name, e.g. ECDHE-RSA-AES128-GCM-SHA256

	// Status is what the viewer saw; 0: it left before there was an answer.
	Status        int
	BytesReceived int64 // of the request, headers included
	BytesSent     int64 // of the answer, headers included
	ContentType   string
	ContentLength int64 // as the answer's header has it; negative: none
	// RangeStart and RangeEnd are of the answer's Content-Range; negative: none.
	RangeStart, RangeEnd int64

	// Result is how the request was classified when the answer was finished,
	// e.g. Hit, RefreshHit, Miss, Error, LambdaGeneratedResponse (field
	// x-edge-result-type); Response is what it was just before the answer went
	// out; Detail says more of errors, e.g. OriginConnectError, and is Result
	// otherwise.
	Result, Response, Detail string

	TimeTaken time.Duration // from the request's first byte to the answer's last
	FirstByte time.Duration // to the answer's first byte

	// OriginFirstByte and OriginLastByte are how long the origin took, from the
	// edge's request to its first and its last byte; 0: it was not asked.
	OriginFirstByte, OriginLastByte time.Duration
}
