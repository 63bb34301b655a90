// Package logs is the behaviour of CloudWatch Logs: log groups, streams and
// events over logstore. What functions print gets there without it; this
// package serves those who read it through the API, and those who put events of
// their own.
//
// All log groups are of class STANDARD. Customer keys (kmsKeyId), deletion
// protection and other accounts' groups are refused.
package logs

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/logs"
	"lapwing.dev/lapwing/internal/logstore"
)

// Options of a Service. The zero value of a field means its default.
type Options struct {
	Logger *slog.Logger
	// Clock tells the time. Default time.Now.
	Clock func() time.Time
	// Put is told of every message that was put, for the metrics in it; may be
	// nil. It must not block.
	Put func(message string)
	// TailSessions bounds the Live Tail sessions under way (default 15, AWS's
	// quota).
	TailSessions int
}

// Service implements api.API.
type Service struct {
	store *logstore.Store
	opts  Options
	log   *slog.Logger
	tails atomic.Int64 // sessions under way
}

var _ api.API = (*Service)(nil)

// New returns the service over store, which the caller closes after it.
func New(store *logstore.Store, opts Options) *Service {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.TailSessions == 0 {
		opts.TailSessions = 15
	}
	return &Service{store: store, opts: opts, log: opts.Logger}
}

// storeError turns an error of the store into AWS's.
func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, logstore.ErrGroupNotFound):
		return api.NewResourceNotFoundException("The specified log group does not exist.")
	case errors.Is(err, logstore.ErrStreamNotFound):
		return api.NewResourceNotFoundException("The specified log stream does not exist.")
	case errors.Is(err, logstore.ErrGroupExists):
		return api.NewResourceAlreadyExistsException("The specified log group already exists")
	case errors.Is(err, logstore.ErrStreamExists):
		return api.NewResourceAlreadyExistsException("The specified log stream already exists")
	case errors.Is(err, logstore.ErrTooManyStreams):
		return api.NewInvalidParameterException("The limit of log streams of this Lapwing is reached. Delete some first.")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return api.NewServiceUnavailableException("The service cannot complete the request.").WithCause(err)
}

func invalid(format string, args ...any) error {
	return api.NewInvalidParameterException(format, args...)
}

// groupARN returns the ARN of a group without the ":*" at its end.
func groupARN(ctx context.Context, name string) string {
	r := aws.RequestFrom(ctx)
	return fmt.Sprintf("arn:aws:logs:%s:%s:log-group:%s", r.Region, r.AccountID, name)
}

// groupName returns the name in a group's ARN.
func groupName(ctx context.Context, arn string) (string, error) {
	parts := strings.SplitN(arn, ":", 7)
	if len(parts) != 7 || parts[0] != "arn" || parts[2] != "logs" || parts[5] != "log-group" {
		return "", invalid("The ARN '%s' is not that of a log group", arn)
	}
	name := strings.TrimSuffix(parts[6], ":*")
	if name == "" || strings.Contains(name, ":") {
		return "", invalid("The ARN '%s' is not that of a log group", arn)
	}
	if r := aws.RequestFrom(ctx); parts[3] != r.Region || parts[4] != r.AccountID {
		return "", api.NewResourceNotFoundException("The specified log group does not exist.")
	}
	return name, nil
}

// identifiedGroup returns the name in a logGroupIdentifier: a name or an ARN.
func identifiedGroup(ctx context.Context, identifier string) (string, error) {
	if strings.HasPrefix(identifier, "arn:") {
		return groupName(ctx, identifier)
	}
	return identifier, nil
}

// oneGroup returns the group of operations that take either a name or an
// identifier.
func oneGroup(ctx context.Context, name, identifier *string) (string, error) {
	switch {
	case name != nil && identifier != nil:
		return "", invalid("LogGroup name and LogGroup identifier are mutually exclusive parameters.")
	case name != nil:
		return *name, nil
	case identifier != nil:
		return identifiedGroup(ctx, *identifier)
	}
	return "", invalid("Either logGroupName or logGroupIdentifier must be specified")
}

// millis is a time as the API has it, nil for the zero time.
func millis(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return aws.Ptr(t.UnixMilli())
}

// encodeToken makes a pagination token of v.
func encodeToken(v any) *string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // tokens are plain structures
	}
	return aws.Ptr(base64.RawURLEncoding.EncodeToString(b))
}

// decodeToken reads what encodeToken made; nil leaves v alone.
func decodeToken(token *string, v any) error {
	if token == nil {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*token)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return invalid("The specified nextToken is invalid.")
	}
	return nil
}
