package aws

import (
	"context"

	"lapwing.dev/lapwing/internal/aws/schema"
)

// Protocol is one of AWS's wire protocols, by its name in the API models.
type Protocol string

// The protocols.
const (
	RESTJSON Protocol = "rest-json"
	RESTXML  Protocol = "rest-xml"
	Query    Protocol = "query"
	EC2Query Protocol = "ec2"
	JSON     Protocol = "json"
	CBOR     Protocol = "smithy-rpc-v2-cbor"
)

// Service is one AWS API and the behaviour behind it. Generated packages make
// it; it does not change afterwards.
type Service struct {
	Name           string // of the generated package, e.g. lambda
	ID             string // e.g. Lambda
	SigningName    string // in the credential scope
	EndpointPrefix string // first part of the service's host name
	APIVersion     string
	Protocols      []Protocol
	TargetPrefix   string // of the X-Amz-Target header
	JSONVersion    string // 1.0 or 1.1
	XMLNamespace   string
	// QueryCompatible services tell the error codes of their former Query
	// protocol in a header.
	QueryCompatible bool
	// ValidationCode is the error code of a request that breaks the model's
	// constraints.
	ValidationCode string
	// SerializationCode is the error code of a JSON body that cannot be
	// decoded; empty means SerializationException.
	SerializationCode string
	// BareErrors is REST-XML's form of errors without an ErrorResponse around
	// the Error, S3's.
	BareErrors bool
	// ChecksValues services check the values of members themselves, each with
	// an error code of its own, as S3 does: of the model's constraints only
	// those on what is required are checked for them.
	ChecksValues bool
	Operations   []*Operation // by name
	// Unserved are the routes of REST operations that AWS has and this service
	// does not: so that they are named when refused, not taken for others.
	Unserved []Route
}

// Route tells the requests of a REST operation.
type Route struct {
	Operation string
	Method    string
	URI       string   // template
	Query     []string // required parameters
	Headers   []string // required headers
}

// Operation returns an operation, or nil where the service has none of that
// name here.
func (s *Service) Operation(name string) *Operation {
	lo, hi := 0, len(s.Operations)
	for lo < hi {
		mid := (lo + hi) / 2
		if s.Operations[mid].Name < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(s.Operations) && s.Operations[lo].Name == name {
		return s.Operations[lo]
	}
	return nil
}

// Operation is one operation of a service.
type Operation struct {
	Name   string
	Method string // in REST protocols
	URI    string // template in REST protocols
	Status int    // of a success

	Input, Output *schema.Shape // never nil
	ResultWrapper string        // in Query
	XMLRoot       string        // of the output in REST-XML; empty means the output's name
	MaxBody       int64         // largest request body in bytes
	Gzip          bool          // the request body may come compressed

	New  func() any // a pointer to a new input
	Call func(ctx context.Context, in any) (out any, err error)
}

// Ptr returns a pointer to v.
func Ptr[T any](v T) *T { return &v }

// Value returns what p points to, or the zero value.
func Value[T any](p *T) (v T) {
	if p != nil {
		return *p
	}
	return v
}

// Handler makes an Operation's Call of a method of a service's API.
func Handler[In, Out any](method func(context.Context, *In) (*Out, error)) func(context.Context, any) (any, error) {
	return func(ctx context.Context, in any) (any, error) {
		out, err := method(ctx, in.(*In))
		if err != nil {
			return nil, err
		}
		return out, nil
	}
}
