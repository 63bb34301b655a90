package logs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/logs"
	"lapwing.dev/lapwing/internal/logstore"
)

// defaultPage is the number of groups or streams in a reply.
const defaultPage = 50

// CreateLogGroup implements api.API.
func (s *Service) CreateLogGroup(_ context.Context, in *api.CreateLogGroupInput) (*api.CreateLogGroupOutput, error) {
	switch {
	case in.KmsKeyId != nil:
		return nil, invalid("Lapwing does not encrypt log groups with a customer key: kmsKeyId cannot be specified")
	case in.LogGroupClass != "" && in.LogGroupClass != api.LogGroupClassStandard:
		return nil, invalid("Lapwing has log groups of class STANDARD only: logGroupClass cannot be %s", in.LogGroupClass)
	case aws.Value(in.DeletionProtectionEnabled):
		return nil, invalid("Lapwing has no deletion protection of log groups: deletionProtectionEnabled cannot be true")
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	if err := s.store.CreateGroup(*in.LogGroupName, in.Tags); err != nil {
		return nil, storeError(err)
	}
	return &api.CreateLogGroupOutput{}, nil
}

// DeleteLogGroup implements api.API.
func (s *Service) DeleteLogGroup(_ context.Context, in *api.DeleteLogGroupInput) (*api.DeleteLogGroupOutput, error) {
	if err := s.store.DeleteGroup(*in.LogGroupName); err != nil {
		return nil, storeError(err)
	}
	return &api.DeleteLogGroupOutput{}, nil
}

// namePage is the token of a list sorted by name.
type namePage struct {
	After string `json:"after"`
}

// DescribeLogGroups implements api.API.
func (s *Service) DescribeLogGroups(ctx context.Context, in *api.DescribeLogGroupsInput) (*api.DescribeLogGroupsOutput, error) {
	wanted, err := groupFilter(ctx, in)
	if err != nil {
		return nil, err
	}
	var page namePage
	if err := decodeToken(in.NextToken, &page); err != nil {
		return nil, err
	}
	limit := defaultPage
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	out := &api.DescribeLogGroupsOutput{LogGroups: []*api.LogGroup{}}
	for _, g := range s.store.Groups() {
		if g.Name <= page.After || !wanted(g.Name) {
			continue
		}
		if len(out.LogGroups) == limit {
			out.NextToken = encodeToken(namePage{After: *out.LogGroups[limit-1].LogGroupName})
			break
		}
		out.LogGroups = append(out.LogGroups, describeGroup(ctx, g))
	}
	return out, nil
}

// groupFilter returns which names a DescribeLogGroups asks for.
func groupFilter(ctx context.Context, in *api.DescribeLogGroupsInput) (func(name string) bool, error) {
	account := aws.RequestFrom(ctx).AccountID
	if slices.ContainsFunc(in.AccountIdentifiers, func(id string) bool { return id != account }) {
		return nil, invalid("Lapwing has one account: accountIdentifiers can hold %s only", account)
	}
	prefix, part := in.LogGroupNamePrefix, in.LogGroupNamePattern
	if prefix != nil && part != nil {
		return nil, invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	}
	var names map[string]bool
	if in.LogGroupIdentifiers != nil {
		if prefix != nil || part != nil {
			return nil, invalid("LogGroup identifiers and LogGroup name prefix or pattern are mutually exclusive parameters.")
		}
		names = make(map[string]bool)
		for _, id := range in.LogGroupIdentifiers {
			name, err := identifiedGroup(ctx, id)
			if err != nil {
				return nil, err
			}
			names[name] = true
		}
	}
	return func(name string) bool {
		return (in.LogGroupClass == "" || in.LogGroupClass == api.LogGroupClassStandard) &&
			strings.HasPrefix(name, aws.Value(prefix)) &&
			strings.Contains(name, aws.Value(part)) &&
			(names == nil || names[name])
	}, nil
}

func describeGroup(ctx context.Context, g logstore.Group) *api.LogGroup {
	arn := groupARN(ctx, g.Name)
	d := &api.LogGroup{
		LogGroupName:      aws.Ptr(g.Name),
		CreationTime:      millis(g.Created),
		MetricFilterCount: aws.Ptr(int32(0)),
		Arn:               aws.Ptr(arn + ":*"),
		LogGroupArn:       aws.Ptr(arn),
		StoredBytes:       aws.Ptr(g.StoredBytes),
		LogGroupClass:     api.LogGroupClassStandard,
	}
	if g.RetentionDays > 0 {
		d.RetentionInDays = aws.Ptr(int32(g.RetentionDays))
	}
	return d
}

// retentionDays are the retention times that AWS takes.
var retentionDays = []int32{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

// PutRetentionPolicy implements api.API.
func (s *Service) PutRetentionPolicy(_ context.Context, in *api.PutRetentionPolicyInput) (*api.PutRetentionPolicyOutput, error) {
	if !slices.Contains(retentionDays, *in.RetentionInDays) {
		return nil, invalid("Invalid retention value. Valid values are: %s", strings.ReplaceAll(fmt.Sprint(retentionDays), " ", ", "))
	}
	if err := s.store.SetRetention(*in.LogGroupName, int(*in.RetentionInDays)); err != nil {
		return nil, storeError(err)
	}
	return &api.PutRetentionPolicyOutput{}, nil
}

// DeleteRetentionPolicy implements api.API.
func (s *Service) DeleteRetentionPolicy(_ context.Context, in *api.DeleteRetentionPolicyInput) (*api.DeleteRetentionPolicyOutput, error) {
	if err := s.store.SetRetention(*in.LogGroupName, 0); err != nil {
		return nil, storeError(err)
	}
	return &api.DeleteRetentionPolicyOutput{}, nil
}
