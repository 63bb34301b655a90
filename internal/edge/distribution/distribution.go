// Package distribution says what an edge location serves: distributions with all
// that they name resolved to plain data, and beside them the certificates,
// functions and invalidations that they use.
//
// The cloudfront service makes these records from its API's resources and puts
// them into the collections of Records; every edge location holds the same
// collections, its own or mirrored ones, watches them, and needs nothing else of
// the control plane to serve. So a policy is resolved here, a managed one like
// the others, and defaults are filled in: who reads a record has no decision of
// the API left to take.
//
// Terms and rules are those of the CloudFront developer guide.
package distribution

import (
	"strings"
	"time"
)

// Format is the version of the records below. A location that meets a newer one
// keeps serving what it has, and says so.
const Format = 1

// Distribution is one distribution as edge locations serve it.
type Distribution struct {
	Format int

	ID         string // e.g. E1LAPWING00001
	ARN        string
	DomainName string // d111111abcdef8.cloudfront.net
	Enabled    bool
	Aliases    []string // lower case; one leading "*." allowed
	// DefaultRootObject is what "/" alone stands for, without a leading slash;
	// empty: nothing.
	DefaultRootObject string
	HTTP2, HTTP3      bool
	IPv6              bool
	PriceClass        string // e.g. PriceClass_All

	Origins      []Origin
	OriginGroups []OriginGroup
	// Behaviours are in the order in which they are tried; the last one is the
	// default and has the pattern "*".
	Behaviours []Behaviour
	ErrorPages []ErrorPage

	Geo         GeoRestriction
	Certificate Certificate
	Logging     Logging
	// Strict2023 holds edge functions to the limits of the developer guide of
	// June 2023, which differ by trigger.
	Strict2023 bool
}

// Origin is a server that content comes from.
type Origin struct {
	ID         string
	DomainName string
	Path       string // begins with a slash and does not end with one, or is empty
	Header     []HeaderValue

	// S3 marks an S3 origin: requests are for a bucket, by the name that
	// DomainName begins with.
	S3 bool
	// Region is the bucket's, S3 only; empty: as DomainName says.
	Region string
	// AccessIdentity is the id of an origin access identity, S3 only.
	AccessIdentity string
	// AccessControl signs requests to the origin; nil: no origin access control.
	AccessControl *AccessControl

	HTTPPort, HTTPSPort int
	Protocol            string   // http-only, https-only or match-viewer
	TLSProtocols        []string // SSLv3, TLSv1, TLSv1.1, TLSv1.2

	ConnectionAttempts        int           // 1-3
	ConnectionTimeout         time.Duration // 1-10 s, of each attempt
	ReadTimeout               time.Duration // 1-120 s, until the first byte and between bytes
	KeepaliveTimeout          time.Duration // 1-120 s
	ResponseCompletionTimeout time.Duration // of the whole answer; 0: none

	// ShieldRegion is the Region of the origin shield; empty: none.
	ShieldRegion string
}

// AccessControl is an origin access control.
type AccessControl struct {
	ID       string
	Behavior string // never, always or no-override
	Service  string // signing name: s3 or lambda
}

// OriginGroup is a primary origin and the one to fail over to.
type OriginGroup struct {
	ID          string
	Members     [2]string // ids of origins, the primary first
	StatusCodes []int     // of the primary, on which the second is asked
}

// Behaviour is a cache behaviour.
type Behaviour struct {
	Pattern string // as configured; "*" for the default
	// Origin is the id of an origin or of an origin group.
	Origin string
	// ViewerProtocol is allow-all, https-only or redirect-to-https.
	ViewerProtocol  string
	AllowedMethods  []string
	CachedMethods   []string
	Compress        bool
	GRPC            bool
	SmoothStreaming bool

	TTL TTL
	// Key says what of a request tells variants of an object apart; all of it is
	// forwarded to the origin too.
	Key Selection
	// AcceptGzip and AcceptBrotli put the normalised Accept-Encoding into the key.
	AcceptGzip, AcceptBrotli bool
	// Forward says what else is forwarded to the origin.
	Forward Selection
	// Legacy is set where ForwardedValues say all this instead of policies.
	Legacy bool
	// ResponseHeaders changes what viewers get; nil: nothing.
	ResponseHeaders *ResponseHeaders

	// Functions holds the Lambda@Edge functions by event type; Viewer the
	// CloudFront Functions, for viewer-request and viewer-response only.
	Functions map[EventType]LambdaAssociation
	Viewer    map[EventType]string // ARN of a Function in its LIVE stage

	// Signers, where there are any, are whose signature a request needs.
	Signers []PublicKey

	// RealtimeLog is the ARN of a RealtimeLog; empty: none.
	RealtimeLog string
}

// TTL bounds how long an object is fresh.
type TTL struct{ Min, Default, Max time.Duration }

// Selection chooses headers, cookies and query parameters.
type Selection struct {
	Headers Choice
	Cookies Choice
	Query   Choice
}

// Choice chooses among names.
type Choice struct {
	// Mode is one of Mode's constants; headers of a Key know ModeNone and ModeOnly.
	Mode Mode
	// Names are lower case for headers, and as written otherwise.
	Names []string
}

// Mode is how a Choice chooses.
type Mode string

// The modes of a Choice.
const (
	ModeNone   Mode = "none"
	ModeOnly   Mode = "whitelist"
	ModeExcept Mode = "allExcept"
	ModeAll    Mode = "all"
	// ModeAllAnd is all of the viewer's headers and those of Names, which are
	// headers that CloudFront makes (allViewerAndWhitelistCloudFront).
	ModeAllAnd Mode = "allViewerAndWhitelistCloudFront"
)

// EventType is when a function runs.
type EventType string

// The event types.
const (
	ViewerRequest  EventType = "viewer-request"
	OriginRequest  EventType = "origin-request"
	OriginResponse EventType = "origin-response"
	ViewerResponse EventType = "viewer-response"
)

// LambdaAssociation attaches a version of a Lambda function to an event.
type LambdaAssociation struct {
	ARN         string // qualified by the version's number
	IncludeBody bool
}

// ResponseHeaders is a response headers policy.
type ResponseHeaders struct {
	CORS   *CORS
	Set    []HeaderValue // security headers and custom ones
	Remove []string
	// ServerTiming is the share of responses that get a Server-Timing header, in
	// percent; negative: none, not even for viewers that ask for it.
	ServerTiming float64
}

// HeaderValue is a header with its value.
type HeaderValue struct {
	Name, Value string
	Override    bool // it replaces the header of that name that the origin sent
}

// CORS is the cross-origin part of a response headers policy.
type CORS struct {
	AllowOrigins, AllowHeaders, AllowMethods, ExposeHeaders []string
	AllowCredentials                                        bool
	MaxAge                                                  time.Duration
	Override                                                bool
}

// ErrorPage is a custom error response.
type ErrorPage struct {
	Status         int
	Path           string // of the page, on the same distribution; empty: the error as it is
	ResponseStatus int    // what the viewer sees, with a Path
	MinTTL         time.Duration
}

// GeoRestriction says from where a distribution may be used.
type GeoRestriction struct {
	Mode      string   // none, whitelist or blacklist
	Countries []string // ISO 3166-1 alpha-2, upper case
}

// Certificate says what a distribution shows to viewers.
type Certificate struct {
	ARN string // of a CertificateRecord; empty: the default certificate
	// MinimumProtocol is e.g. TLSv1.2_2021.
	MinimumProtocol string
}

// Logging is where standard logs go.
type Logging struct {
	Bucket  string // name of the bucket; empty: no logs
	Prefix  string
	Cookies bool
}

// PublicKey is a key that viewers' requests may be signed with.
type PublicKey struct {
	ID  string // the Key-Pair-Id
	PEM string
}

// CertificateRecord is a certificate with its private key.
type CertificateRecord struct {
	Format int
	ARN    string
	Names  []string // DNS names that it covers
	// Chain and Key are PEM. They are secrets: no log has them.
	Chain, Key string
}

// Challenge is what edge locations, and DNS, answer to an authority that makes sure
// that the names of a certificate lead here.
type Challenge struct {
	Format int
	ARN    string // of the certificate
	// HTTP are the contents of /.well-known/acme-challenge/TOKEN, of whatever host, by
	// token.
	HTTP map[string]string
	// TLS are the key authorizations of names in lower case, of which a certificate is
	// made that is shown to who asks by the protocol of tls-alpn-01 (RFC 8737).
	TLS map[string]string
	// TXT are the values of TXT records by name, in lower case and without a final dot.
	TXT map[string][]string
}

// Function is a CloudFront Function in its LIVE stage.
type Function struct {
	Format  int
	ARN     string
	Name    string
	Runtime string // cloudfront-js-1.0 or cloudfront-js-2.0
	Code    string
	// Store is the id of the key value store that it may read; empty: none.
	Store string
}

// LambdaReplica is a version of a Lambda function that edge locations run. It is
// there while a distribution has it associated and until every location has given
// it up.
type LambdaReplica struct {
	Format  int
	ARN     string // in the core's Region, qualified
	Name    string
	Version string
	// Revision is function.Version's.
	Revision          string
	Runtime           string
	RuntimeVersionARN string
	Handler           string
	Role              string
	MemoryMB          int
	Timeout           time.Duration
	EphemeralMB       int
	// Code is the SHA-256 of the code package, in hexadecimal, Size its bytes.
	Code string
	Size int64
	// LogFormat and the levels are the function's logging configuration; Group is
	// empty where it is the default.
	LogFormat, ApplicationLevel, SystemLevel, Group string
	// Distributions are the ids of those that have it associated.
	Distributions []string
}

// LocalName returns what the function is called where it runs: its name with its
// Region before it, as in us-east-1.NAME (CloudFront developer guide, "Edge
// function logs").
func (r *LambdaReplica) LocalName() string { return r.Home() + "." + r.Name }

// Home returns the Region of the function itself.
func (r *LambdaReplica) Home() string {
	if parts := strings.SplitN(r.ARN, ":", 5); len(parts) == 5 {
		return parts[3]
	}
	return r.ARN
}

// Invalidation takes objects out of every cache.
type Invalidation struct {
	Format       int
	ID           string
	Distribution string
	// Paths begin with a slash; a final "*" stands for anything.
	Paths []string
	// At is when it was made: what a cache stored before is not served any more.
	At time.Time
}

// RealtimeLog is a real-time log configuration.
type RealtimeLog struct {
	Format   int
	ARN      string
	Fields   []string
	Sampling int // percent, 1-100
	// Stream is the ARN of the Kinesis stream.
	Stream string
}
