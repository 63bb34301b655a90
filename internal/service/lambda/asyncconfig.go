package lambda

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/events"
	"lapwing.dev/lapwing/internal/function"
)

// asyncRecord is the configuration of asynchronous invocation of $LATEST, a
// version or an alias. It is part of their records, with which it goes.
type asyncRecord struct {
	MaxRetries *int32    `json:"maxRetries,omitempty"`
	MaxAgeSec  *int32    `json:"maxAgeSec,omitempty"`
	OnSuccess  string    `json:"onSuccess,omitempty"` // ARN
	OnFailure  string    `json:"onFailure,omitempty"` // ARN
	Modified   time.Time `json:"modified"`
}

// asyncHolder finds what can have a configuration of asynchronous invocation:
// $LATEST, for which the function holds it, a version or an alias.
func (s *Service) asyncHolder(e *entry, ref reference) *holder {
	return s.holder(e, latestAsFunction(ref.qualifier))
}

// asyncARN is the ARN of h in what concerns asynchronous invocation: that of
// $LATEST for the function.
func (h *holder) asyncARN() string {
	if h.qualifier == "" {
		return qualify(h.arn, function.Latest)
	}
	return h.arn
}

func noSuchFunction() error { return notFound("The function doesn't exist.") }

// notConfigured is the error where there is nothing to get, update or delete:
// for the first and last AWS does not tell whether the function is there.
func notConfigured(ref reference) error {
	return notFound("The function %s doesn't have an EventInvokeConfig", qualify(ref.arn, cmp.Or(ref.qualifier, function.Latest)))
}

// changeAsync changes the configuration of what a request names. change gets
// the holder, nil where there is none, and returns the configuration to be.
func (s *Service) changeAsync(ctx context.Context, name, qualifier *string, change func(reference, *holder) (*asyncRecord, error)) (*api.FunctionEventInvokeConfig, error) {
	ref, err := s.resolve(ctx, aws.Value(name), aws.Value(qualifier))
	if err != nil {
		return nil, err
	}
	defer s.lock(ref.functionKey)()
	h := s.asyncHolder(s.entries.get(ref.functionKey), ref)
	config, err := change(ref, h)
	if err != nil {
		return nil, err
	}
	h.Async = config
	if err := s.writeHolder(ctx, ref.functionKey, h); err != nil {
		return nil, err
	}
	return h.describeAsync(), nil
}

// PutFunctionEventInvokeConfig implements lambda.API: what is not given is as if
// it had never been.
func (s *Service) PutFunctionEventInvokeConfig(ctx context.Context, in *api.PutFunctionEventInvokeConfigInput) (*api.PutFunctionEventInvokeConfigOutput, error) {
	if err := checkAsyncGiven(in.MaximumRetryAttempts, in.MaximumEventAgeInSeconds, in.DestinationConfig); err != nil {
		return nil, err
	}
	return s.changeAsync(ctx, in.FunctionName, in.Qualifier, func(ref reference, h *holder) (*asyncRecord, error) {
		if h == nil {
			return nil, noSuchFunction()
		}
		c := &asyncRecord{MaxRetries: in.MaximumRetryAttempts, MaxAgeSec: in.MaximumEventAgeInSeconds, Modified: s.opts.Now().UTC()}
		return c, s.setDestinations(ref, c, in.DestinationConfig)
	})
}

// UpdateFunctionEventInvokeConfig implements lambda.API: what is not given stays.
func (s *Service) UpdateFunctionEventInvokeConfig(ctx context.Context, in *api.UpdateFunctionEventInvokeConfigInput) (*api.UpdateFunctionEventInvokeConfigOutput, error) {
	if err := checkAsyncGiven(in.MaximumRetryAttempts, in.MaximumEventAgeInSeconds, in.DestinationConfig); err != nil {
		return nil, err
	}
	return s.changeAsync(ctx, in.FunctionName, in.Qualifier, func(ref reference, h *holder) (*asyncRecord, error) {
		switch {
		case h == nil:
			return nil, noSuchFunction()
		case h.Async == nil:
			return nil, notConfigured(ref)
		}
		c := *h.Async
		c.Modified = s.opts.Now().UTC()
		if in.MaximumRetryAttempts != nil {
			c.MaxRetries = in.MaximumRetryAttempts
		}
		if in.MaximumEventAgeInSeconds != nil {
			c.MaxAgeSec = in.MaximumEventAgeInSeconds
		}
		return &c, s.setDestinations(ref, &c, in.DestinationConfig)
	})
}

// GetFunctionEventInvokeConfig implements lambda.API.
func (s *Service) GetFunctionEventInvokeConfig(ctx context.Context, in *api.GetFunctionEventInvokeConfigInput) (*api.GetFunctionEventInvokeConfigOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), aws.Value(in.Qualifier))
	if err != nil {
		return nil, err
	}
	h := s.asyncHolder(s.entries.get(ref.functionKey), ref)
	if h == nil || h.Async == nil {
		return nil, notConfigured(ref)
	}
	return h.describeAsync(), nil
}

// DeleteFunctionEventInvokeConfig implements lambda.API.
func (s *Service) DeleteFunctionEventInvokeConfig(ctx context.Context, in *api.DeleteFunctionEventInvokeConfigInput) (*api.DeleteFunctionEventInvokeConfigOutput, error) {
	_, err := s.changeAsync(ctx, in.FunctionName, in.Qualifier, func(ref reference, h *holder) (*asyncRecord, error) {
		if h == nil || h.Async == nil {
			return nil, notConfigured(ref)
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteFunctionEventInvokeConfigOutput{}, nil
}

// ListFunctionEventInvokeConfigs implements lambda.API: those of $LATEST, of the
// versions and of the aliases, in this order.
func (s *Service) ListFunctionEventInvokeConfigs(ctx context.Context, in *api.ListFunctionEventInvokeConfigsInput) (*api.ListFunctionEventInvokeConfigsOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), "")
	if err != nil {
		return nil, err
	}
	e := s.entries.get(ref.functionKey)
	if e == nil {
		return nil, noSuchFunction()
	}
	var qualifiers []string
	for _, v := range e.allVersions() {
		qualifiers = append(qualifiers, v.number)
	}
	qualifiers = append(qualifiers, slices.Sorted(maps.Keys(e.aliases))...)
	var found []*holder
	for _, q := range qualifiers {
		// What the marker names may have gone since the page before.
		if h := s.asyncHolder(e, reference{ref.functionKey, q, ref.arn}); h.Async != nil && !comesBefore(q, aws.Value(in.Marker)) {
			found = append(found, h)
		}
	}
	found, next := pageOf(found, in.MaxItems, maxPage)
	out := &api.ListFunctionEventInvokeConfigsOutput{FunctionEventInvokeConfigs: []*api.FunctionEventInvokeConfig{}}
	for _, h := range found {
		out.FunctionEventInvokeConfigs = append(out.FunctionEventInvokeConfigs, h.describeAsync())
	}
	if next != nil {
		out.NextMarker = aws.Ptr(cmp.Or((*next).qualifier, function.Latest))
	}
	return out, nil
}

// comesBefore orders qualifiers: $LATEST and the versions by their numbers, then
// the aliases by their names.
func comesBefore(a, b string) bool {
	switch {
	case b == "" || isAlias(a) && !isAlias(b):
		return false
	case isAlias(b):
		return !isAlias(a) || a < b
	}
	return resolvedVersion{number: a}.ordinal() < resolvedVersion{number: b}.ordinal()
}

// describeAsync is the configuration as the API shows it. Both destinations are
// always there, if only as {}.
func (h *holder) describeAsync() *api.FunctionEventInvokeConfig {
	out := &api.FunctionEventInvokeConfig{
		FunctionArn: aws.Ptr(h.asyncARN()), DestinationConfig: &api.DestinationConfig{OnSuccess: &api.OnSuccess{}, OnFailure: &api.OnFailure{}},
	}
	if c := h.Async; c != nil {
		out.LastModified, out.MaximumRetryAttempts, out.MaximumEventAgeInSeconds = aws.Ptr(c.Modified), c.MaxRetries, c.MaxAgeSec
		out.DestinationConfig.OnSuccess.Destination = optional(c.OnSuccess)
		out.DestinationConfig.OnFailure.Destination = optional(c.OnFailure)
	}
	return out
}

func checkAsyncGiven(retries, age *int32, d *api.DestinationConfig) error {
	if retries == nil && age == nil && d == nil {
		return invalidParameter("You must specify at least one of error handling or destination setting.")
	}
	return nil
}

// setDestinations checks the destinations of a request, if it has any, and sets
// them in c.
func (s *Service) setDestinations(ref reference, c *asyncRecord, in *api.DestinationConfig) error {
	if in == nil {
		return nil
	}
	c.OnSuccess, c.OnFailure = "", ""
	if in.OnSuccess != nil {
		c.OnSuccess = aws.Value(in.OnSuccess.Destination)
	}
	if in.OnFailure != nil {
		c.OnFailure = aws.Value(in.OnFailure.Destination)
	}
	if !destination(c.OnSuccess) || !destination(c.OnFailure) {
		return invalidParameter("The provided destination config DestinationConfig(onSuccess=%s, onFailure=%s) is invalid.",
			javaObject("OnSuccess", c.OnSuccess), javaObject("OnFailure", c.OnFailure))
	}
	for _, d := range []struct{ name, arn string }{{"OnSuccess", c.OnSuccess}, {"OnFailure", c.OnFailure}} {
		if err := s.checkDestination(ref, d.name, d.arn); err != nil {
			return err
		}
	}
	return nil
}

// javaObject writes a destination as AWS's messages do.
func javaObject(class, arn string) string {
	if arn == "" {
		return "null"
	}
	return class + "(destination=" + arn + ")"
}

// otherDestinations are the services besides Lambda that AWS has destinations
// in, s3 for failures only.
var otherDestinations = []string{"sqs", "sns", "events", "s3"}

// destination tells whether an ARN is of a service that has destinations.
func destination(arn string) bool {
	service := serviceOf(arn)
	return arn == "" || service == "lambda" || slices.Contains(otherDestinations, service)
}

// serviceOf returns the service in an ARN.
func serviceOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[2]
	}
	return ""
}

func (s *Service) checkDestination(ref reference, name, arn string) error {
	if arn == "" {
		return nil
	}
	if service := serviceOf(arn); service != "lambda" {
		return unsupported("DestinationConfig " + name + " with the service " + service)
	}
	target, ok := events.TargetOf(arn)
	if !ok || !s.invocable(arn, target) {
		return invalidParameter("The destination ARN %s is invalid.", arn)
	}
	if target.Region == ref.region && target.Function == ref.name {
		return invalidParameter("You can't specify the function as a destination for itself.")
	}
	return nil
}
