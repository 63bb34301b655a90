// Package cloudwatch is the behaviour of CloudWatch's metrics: data are put,
// listed and read as statistics. What functions and Lapwing itself measure gets
// to the store without it.
//
// Metric math has arithmetic and a few functions, METRICS among them. Alarms,
// dashboards and metric streams are not served.
package cloudwatch

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudwatch"
	"lapwing.dev/lapwing/internal/metrics"
)

// Store keeps the metrics. Package metrics implements it.
type Store interface {
	Put(ctx context.Context, data []metrics.Datum) error
	Query(q metrics.Query) ([]metrics.Bucket, error)
	List(namespace string, f func(metrics.Listed) bool) error
}

// Service implements api.API.
type Service struct {
	store Store
	now   func() time.Time
}

var _ api.API = (*Service)(nil)

// New returns the service over store. now tells the time; time.Now when nil.
func New(store Store, now func() time.Time) *Service {
	if now == nil {
		now = time.Now
	}
	return &Service{store, now}
}

func invalidValue(format string, args ...any) error {
	return api.NewInvalidParameterValueException(format, args...)
}

func invalidCombination(format string, args ...any) error {
	return api.NewInvalidParameterCombinationException(format, args...)
}

func missing(parameter string) error {
	return api.NewMissingRequiredParameterException("The parameter %s is required.", parameter)
}

// unsupported refuses what AWS has and this service does not.
func unsupported(parameter string) error {
	return invalidValue("The parameter %s is not supported by Lapwing.", parameter)
}

// storeFailure is an error of the store, which the gateway logs.
func storeFailure(err error) error {
	return api.NewInternalServiceFault("The request processing has failed because of an unknown error, exception or failure.").WithCause(err)
}

// dimensions checks and returns the dimensions of a metric, at is where they are
// in the request.
func dimensions(at string, in []*api.Dimension) ([]metrics.Dimension, error) {
	if len(in) > maxDimensions {
		return nil, invalidValue("The collection %s must not have a size greater than %d.", at, maxDimensions)
	}
	seen := map[string]bool{}
	var out []metrics.Dimension
	for _, d := range in {
		if seen[*d.Name] {
			return nil, invalidValue("The parameter %s has the dimension %s more than once.", at, *d.Name)
		}
		seen[*d.Name] = true
		if !plain(*d.Name) || !plain(*d.Value) {
			return nil, invalidValue("The parameter %s must contain only ASCII characters, and no control characters: %q", at, *d.Name+"="+*d.Value)
		}
		out = append(out, metrics.Dimension{Name: *d.Name, Value: *d.Value})
	}
	return out, nil
}

// plain tells whether s has only ASCII characters and no control characters, as
// CloudWatch demands of namespaces, names and dimensions.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func apiDimensions(in []metrics.Dimension) []*api.Dimension {
	out := make([]*api.Dimension, len(in))
	for i, d := range in {
		out[i] = &api.Dimension{Name: aws.Ptr(d.Name), Value: aws.Ptr(d.Value)}
	}
	return out
}

// token makes a pagination token of v.
func token(v any) *string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // tokens are plain values
	}
	return aws.Ptr(base64.RawURLEncoding.EncodeToString(b))
}

// parseToken reads what token made; nil leaves v alone.
func parseToken(t *string, v any) error {
	if t == nil {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*t)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return api.NewInvalidNextToken("The specified nextToken is invalid.")
	}
	return nil
}

func validation(format string, args ...any) error {
	return &aws.Error{Code: "ValidationError", Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}
