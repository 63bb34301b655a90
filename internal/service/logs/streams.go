package logs

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/logs"
	"lapwing.dev/lapwing/internal/logstore"
)

// sequenceToken is what callers of old get. AWS ignores the token that they
// send back, and so does Lapwing.
const sequenceToken = "49039859586519463178460990570318427519853386350184964690"

// CreateLogStream implements api.API.
func (s *Service) CreateLogStream(_ context.Context, in *api.CreateLogStreamInput) (*api.CreateLogStreamOutput, error) {
	if err := s.store.CreateStream(*in.LogGroupName, *in.LogStreamName); err != nil {
		return nil, storeError(err)
	}
	return &api.CreateLogStreamOutput{}, nil
}

// DeleteLogStream implements api.API.
func (s *Service) DeleteLogStream(_ context.Context, in *api.DeleteLogStreamInput) (*api.DeleteLogStreamOutput, error) {
	if err := s.store.DeleteStream(*in.LogGroupName, *in.LogStreamName); err != nil {
		return nil, storeError(err)
	}
	return &api.DeleteLogStreamOutput{}, nil
}

// streamPage is the token of a list of streams: the last one shown.
type streamPage struct {
	Name string `json:"name"`
	Time int64  `json:"time,omitempty"` // of its last event, where that is the order
}

// DescribeLogStreams implements api.API.
func (s *Service) DescribeLogStreams(ctx context.Context, in *api.DescribeLogStreamsInput) (*api.DescribeLogStreamsOutput, error) {
	name, err := oneGroup(ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	byTime := in.OrderBy == api.OrderByLastEventTime
	if byTime && in.LogStreamNamePrefix != nil {
		return nil, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	var last *streamPage
	if in.NextToken != nil {
		last = new(streamPage)
		if err := decodeToken(in.NextToken, last); err != nil {
			return nil, err
		}
	}
	all, err := s.store.Streams(name)
	if err != nil {
		return nil, storeError(err)
	}
	key := func(st *logstore.Stream) streamPage {
		k := streamPage{Name: st.Name}
		if byTime && !st.LastEvent.IsZero() {
			k.Time = st.LastEvent.UnixMilli()
		}
		return k
	}
	compare := func(a, b streamPage) int {
		c := cmp.Or(cmp.Compare(a.Time, b.Time), strings.Compare(a.Name, b.Name))
		if aws.Value(in.Descending) {
			return -c
		}
		return c
	}
	all = slices.DeleteFunc(all, func(st logstore.Stream) bool {
		return !strings.HasPrefix(st.Name, aws.Value(in.LogStreamNamePrefix)) || last != nil && compare(key(&st), *last) <= 0
	})
	slices.SortFunc(all, func(a, b logstore.Stream) int { return compare(key(&a), key(&b)) })

	limit := defaultPage
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	out := &api.DescribeLogStreamsOutput{LogStreams: []*api.LogStream{}}
	if len(all) > limit {
		all = all[:limit]
		out.NextToken = encodeToken(key(&all[limit-1]))
	}
	for i := range all {
		out.LogStreams = append(out.LogStreams, describeStream(ctx, name, &all[i]))
	}
	return out, nil
}

func describeStream(ctx context.Context, group string, st *logstore.Stream) *api.LogStream {
	return &api.LogStream{
		LogStreamName:       aws.Ptr(st.Name),
		CreationTime:        millis(st.Created),
		FirstEventTimestamp: millis(st.FirstEvent),
		LastEventTimestamp:  millis(st.LastEvent),
		LastIngestionTime:   millis(st.LastIngestion),
		UploadSequenceToken: aws.Ptr(sequenceToken),
		Arn:                 aws.Ptr(groupARN(ctx, group) + ":log-stream:" + st.Name),
		StoredBytes:         aws.Ptr(int64(0)), // as AWS does since 2019
	}
}
