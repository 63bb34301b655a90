package cloudfront

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/accesslog"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// maxRealtimeLogs is how many real-time log configurations an account may have
// (CloudFront quotas).
const maxRealtimeLogs = 150

// realtimeLogResource is a real-time log configuration but for its name.
type realtimeLogResource struct {
	EndPoints    []*api.EndPoint
	Fields       []string // in the order in which records have them
	SamplingRate int64
}

const realtimeLogKind = "realtime-log-config/"

var (
	realtimeLogName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	streamARN       = regexp.MustCompile(`^arn:aws[a-z-]*:kinesis:[a-z0-9-]+:(\d{12}):stream/[a-zA-Z0-9_.-]{1,128}$`)
	roleARN         = regexp.MustCompile(`^arn:aws[a-z-]*:iam::(\d{12}):role/.+$`)
)

func (s *Service) describeRealtimeLog(r record[realtimeLogResource]) *api.RealtimeLogConfig {
	return &api.RealtimeLogConfig{
		ARN: aws.Ptr(s.arn(realtimeLogKind + r.ID)), Name: &r.ID, EndPoints: r.Resource.EndPoints, Fields: r.Resource.Fields, SamplingRate: &r.Resource.SamplingRate,
	}
}

// realtimeLogARN returns the ARN of a configuration that a request names in one way
// or both.
func (s *Service) realtimeLogARN(name, arn *string) (string, error) {
	switch {
	case name == nil && arn == nil:
		return "", api.NewInvalidArgument("Either the name or the ARN of the real-time log configuration is required.")
	case name == nil:
		return *arn, nil
	case arn != nil && *arn != s.arn(realtimeLogKind+*name):
		return "", api.NewInvalidArgument("The name and the ARN are not of the same real-time log configuration.")
	}
	return s.arn(realtimeLogKind + *name), nil
}

// realtimeLog returns a configuration that a request names.
func (s *Service) realtimeLog(name, arn *string) (record[realtimeLogResource], error) {
	full, err := s.realtimeLogARN(name, arn)
	if err != nil {
		return record[realtimeLogResource]{}, err
	}
	id, ok := strings.CutPrefix(full, s.arn(realtimeLogKind))
	if !ok {
		return record[realtimeLogResource]{}, s.realtimeLogs.missing
	}
	return s.realtimeLogs.get(&id)
}

func (s *Service) hasRealtimeLog(arn string) bool {
	_, err := s.realtimeLog(nil, &arn)
	return err == nil
}

func usesRealtimeLog(c *api.DistributionConfig, arn string) bool {
	return slices.ContainsFunc(behaviours(c), func(b *api.CacheBehavior) bool { return aws.Value(b.RealtimeLogConfigArn) == arn })
}

// checkRealtimeLog completes a configuration, or says what is wrong with it.
func (s *Service) checkRealtimeLog(endPoints []*api.EndPoint, fields []string, rate *int64) (r realtimeLogResource, err error) {
	bad := func(parameter, why string) (realtimeLogResource, error) {
		return r, api.NewInvalidArgument("The parameter %s is not valid: %s.", parameter, why)
	}
	if len(endPoints) != 1 {
		return bad("EndPoints", "there must be exactly one")
	}
	k := endPoints[0].KinesisStreamConfig
	if aws.Value(endPoints[0].StreamType) != "Kinesis" || k == nil {
		return bad("StreamType", "the only one is Kinesis, with a KinesisStreamConfig")
	}
	for _, named := range []struct {
		parameter string
		form      *regexp.Regexp
		arn       *string
	}{{"StreamARN", streamARN, k.StreamARN}, {"RoleARN", roleARN, k.RoleARN}} {
		m := named.form.FindStringSubmatch(aws.Value(named.arn))
		if m == nil || m[1] != s.opts.AccountID {
			return bad(named.parameter, "want an ARN of this account")
		}
	}
	if rate == nil || *rate < 1 || *rate > 100 {
		return bad("SamplingRate", "want a number from 1 to 100")
	}
	if len(fields) == 0 {
		return bad("Fields", "there must be at least one")
	}
	for i, f := range fields {
		if slices.Contains(fields[:i], f) {
			return bad("Fields", f+" is there twice")
		}
		if strings.HasPrefix(f, "cmcd-") {
			return r, unsupported("Common media client data (Fields: " + f + ")")
		}
		if !slices.Contains(accesslog.Realtime, f) {
			return bad("Fields", "there is no field "+f)
		}
	}
	for _, f := range accesslog.Realtime {
		if slices.Contains(fields, f) {
			r.Fields = append(r.Fields, f)
		}
	}
	r.EndPoints, r.SamplingRate = endPoints, *rate
	return r, nil
}

// publishRealtimeLog gives edge locations a configuration.
func (s *Service) publishRealtimeLog(ctx context.Context, r *record[realtimeLogResource]) error {
	arn := s.arn(realtimeLogKind + r.ID)
	l := distribution.RealtimeLog{
		Format: distribution.Format, ARN: arn, Fields: r.Resource.Fields, Sampling: int(r.Resource.SamplingRate), Stream: *r.Resource.EndPoints[0].KinesisStreamConfig.StreamARN,
	}
	if now, ok := s.records.RealtimeLogs.Get(arn); ok && equal(now.Value, l) {
		return nil
	}
	_, err := s.records.RealtimeLogs.Put(ctx, arn, l)
	return err
}

// publishRealtimeLogs brings what edge locations have up to what the API's records
// say.
func (s *Service) publishRealtimeLogs(ctx context.Context) error {
	var errs []error
	for _, r := range s.realtimeLogs.all() {
		errs = append(errs, s.publishRealtimeLog(ctx, &r))
	}
	for l := range s.records.RealtimeLogs.Scan("", "") {
		if !s.hasRealtimeLog(l.Key) {
			errs = append(errs, s.records.RealtimeLogs.Delete(ctx, l.Key, l.Revision))
		}
	}
	return errors.Join(errs...)
}

// CreateRealtimeLogConfig implements api.API. The role is kept: CloudFront itself
// puts records into the stream.
func (s *Service) CreateRealtimeLogConfig(ctx context.Context, in *api.CreateRealtimeLogConfigInput) (*api.CreateRealtimeLogConfigOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if !realtimeLogName.MatchString(aws.Value(in.Name)) {
		return nil, api.NewInvalidArgument("The parameter Name is not valid: it has 1 to 64 letters, digits, hyphens and underscores.")
	}
	c, err := s.checkRealtimeLog(in.EndPoints, in.Fields, in.SamplingRate)
	if err != nil {
		return nil, err
	}
	if _, ok := s.realtimeLogs.find(*in.Name); ok {
		return nil, api.NewRealtimeLogConfigAlreadyExists("A real-time log configuration with this name already exists: %s", *in.Name)
	}
	if s.realtimeLogs.collection.Len() >= maxRealtimeLogs {
		return nil, api.NewTooManyRealtimeLogConfigs("You have reached the maximum number of real-time log configurations for this AWS account: %d.", maxRealtimeLogs)
	}
	r, err := s.realtimeLogs.create(ctx, *in.Name, c)
	if err != nil {
		return nil, err
	}
	return &api.CreateRealtimeLogConfigOutput{RealtimeLogConfig: s.describeRealtimeLog(r)}, s.publishRealtimeLog(ctx, &r)
}

// GetRealtimeLogConfig implements api.API.
func (s *Service) GetRealtimeLogConfig(_ context.Context, in *api.GetRealtimeLogConfigInput) (*api.GetRealtimeLogConfigOutput, error) {
	r, err := s.realtimeLog(in.Name, in.ARN)
	if err != nil {
		return nil, err
	}
	return &api.GetRealtimeLogConfigOutput{RealtimeLogConfig: s.describeRealtimeLog(r)}, nil
}

// UpdateRealtimeLogConfig implements api.API. It replaces all but the name.
func (s *Service) UpdateRealtimeLogConfig(ctx context.Context, in *api.UpdateRealtimeLogConfigInput) (*api.UpdateRealtimeLogConfigOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	old, err := s.realtimeLog(in.Name, in.ARN)
	if err != nil {
		return nil, err
	}
	c, err := s.checkRealtimeLog(in.EndPoints, in.Fields, in.SamplingRate)
	if err != nil {
		return nil, err
	}
	r, err := s.realtimeLogs.update(ctx, old, c)
	if err != nil {
		return nil, err
	}
	return &api.UpdateRealtimeLogConfigOutput{RealtimeLogConfig: s.describeRealtimeLog(r)}, s.publishRealtimeLog(ctx, &r)
}

// DeleteRealtimeLogConfig implements api.API.
func (s *Service) DeleteRealtimeLogConfig(ctx context.Context, in *api.DeleteRealtimeLogConfigInput) (*api.DeleteRealtimeLogConfigOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	r, err := s.realtimeLog(in.Name, in.ARN)
	if err != nil {
		return nil, err
	}
	arn := s.arn(realtimeLogKind + r.ID)
	if d, ok := s.distributions.first(func(d *distributionRecord) bool { return usesRealtimeLog(&d.Resource.Config, arn) }); ok {
		return nil, api.NewRealtimeLogConfigInUse("Cannot delete the real-time log configuration because it is attached to one or more cache behaviors, of distribution %s.", d.ID)
	}
	if err := s.realtimeLogs.remove(ctx, r.ID); err != nil {
		return nil, err
	}
	if l, ok := s.records.RealtimeLogs.Get(arn); ok {
		return &api.DeleteRealtimeLogConfigOutput{}, s.records.RealtimeLogs.Delete(ctx, arn, l.Revision)
	}
	return &api.DeleteRealtimeLogConfigOutput{}, nil
}

// ListRealtimeLogConfigs implements api.API.
func (s *Service) ListRealtimeLogConfigs(_ context.Context, in *api.ListRealtimeLogConfigsInput) (*api.ListRealtimeLogConfigsOutput, error) {
	p, err := paginate(s.realtimeLogs.all(), func(r record[realtimeLogResource]) string { return r.ID }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	list := &api.RealtimeLogConfigs{Marker: or(in.Marker, ""), NextMarker: p.NextMarker, MaxItems: p.MaxItems, IsTruncated: p.truncated()}
	for _, r := range p.Items {
		list.Items = append(list.Items, s.describeRealtimeLog(r))
	}
	return &api.ListRealtimeLogConfigsOutput{RealtimeLogConfigs: list}, nil
}
