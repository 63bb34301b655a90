package cloudfront

import (
	"context"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

// Real-time logs go to a Kinesis data stream, and there is no Kinesis here: none
// can be configured, and none is there.

func noRealtimeLog() error {
	return api.NewNoSuchRealtimeLogConfig("The real-time log configuration (RealtimeLogConfigArn) does not exist.")
}

// CreateRealtimeLogConfig implements api.API.
func (s *Service) CreateRealtimeLogConfig(context.Context, *api.CreateRealtimeLogConfigInput) (*api.CreateRealtimeLogConfigOutput, error) {
	return nil, unsupported("Real-time logs: a destination in Amazon Kinesis Data Streams")
}

// GetRealtimeLogConfig implements api.API.
func (s *Service) GetRealtimeLogConfig(context.Context, *api.GetRealtimeLogConfigInput) (*api.GetRealtimeLogConfigOutput, error) {
	return nil, noRealtimeLog()
}

// UpdateRealtimeLogConfig implements api.API.
func (s *Service) UpdateRealtimeLogConfig(context.Context, *api.UpdateRealtimeLogConfigInput) (*api.UpdateRealtimeLogConfigOutput, error) {
	return nil, noRealtimeLog()
}

// DeleteRealtimeLogConfig implements api.API.
func (s *Service) DeleteRealtimeLogConfig(context.Context, *api.DeleteRealtimeLogConfigInput) (*api.DeleteRealtimeLogConfigOutput, error) {
	return nil, noRealtimeLog()
}

// ListRealtimeLogConfigs implements api.API.
func (s *Service) ListRealtimeLogConfigs(_ context.Context, in *api.ListRealtimeLogConfigsInput) (*api.ListRealtimeLogConfigsOutput, error) {
	p, err := paginate([]string(nil), func(id string) string { return id }, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	return &api.ListRealtimeLogConfigsOutput{RealtimeLogConfigs: &api.RealtimeLogConfigs{Marker: or(in.Marker, ""), MaxItems: p.MaxItems, IsTruncated: aws.Ptr(false)}}, nil
}
