package kinesis_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func (i *installation) arn(name string) *string {
	i.t.Helper()
	out, err := i.DescribeStreamSummary(i.t.Context(), &sdk.DescribeStreamSummaryInput{StreamName: &name})
	if err != nil {
		i.t.Fatal(err)
	}
	return out.StreamDescriptionSummary.StreamARN
}

func (i *installation) register(stream, name string) *string {
	i.t.Helper()
	out, err := i.RegisterStreamConsumer(i.t.Context(), &sdk.RegisterStreamConsumerInput{StreamARN: i.arn(stream), ConsumerName: &name})
	if err != nil {
		i.t.Fatal(err)
	}
	return out.Consumer.ConsumerARN
}

func (i *installation) subscribe(consumer *string, shard string, p types.StartingPosition) (*sdk.SubscribeToShardEventStream, error) {
	out, err := i.SubscribeToShard(i.t.Context(), &sdk.SubscribeToShardInput{ConsumerARN: consumer, ShardId: &shard, StartingPosition: &p})
	if err != nil {
		return nil, err
	}
	i.t.Cleanup(func() { _ = out.GetStream().Close() })
	return out.GetStream(), nil
}

// next returns the next event of a subscription; nil: it is over.
func next(s *sdk.SubscribeToShardEventStream) *types.SubscribeToShardEvent {
	e, ok := (<-s.Events()).(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
	if !ok {
		return nil
	}
	return &e.Value
}

func TestConsumersAreRegisteredFoundAndListed(t *testing.T) {
	i := connect(t, t.TempDir())
	i.create("s", 1)
	b := i.register("s", "b")
	a := i.register("s", "a")
	if !strings.HasPrefix(*a, *i.arn("s")+"/consumer/a:") {
		t.Errorf("ARN %s", *a)
	}
	_, err := i.RegisterStreamConsumer(t.Context(), &sdk.RegisterStreamConsumerInput{StreamARN: i.arn("s"), ConsumerName: ptr("a")})
	wantCode(t, err, "ResourceInUseException")
	i.restart()
	for what, in := range map[string]*sdk.DescribeStreamConsumerInput{"its ARN": {ConsumerARN: a}, "its name": {StreamARN: i.arn("s"), ConsumerName: ptr("a")}} {
		out, err := i.DescribeStreamConsumer(t.Context(), in)
		if err != nil || *out.ConsumerDescription.ConsumerARN != *a || out.ConsumerDescription.ConsumerStatus != types.ConsumerStatusActive || *out.ConsumerDescription.StreamARN != *i.arn("s") {
			t.Errorf("by %s: %+v, %v", what, out, err)
		}
	}
	var names []string
	for p := sdk.NewListStreamConsumersPaginator(i.Client, &sdk.ListStreamConsumersInput{StreamARN: i.arn("s"), MaxResults: ptr(int32(1))}); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range out.Consumers {
			names = append(names, *c.ConsumerName)
		}
	}
	if fmt.Sprint(names) != "[a b]" {
		t.Errorf("listed %v", names)
	}
	_, err = i.DeleteStream(t.Context(), &sdk.DeleteStreamInput{StreamName: ptr("s")})
	wantCode(t, err, "ResourceInUseException")
	if _, err := i.DeregisterStreamConsumer(t.Context(), &sdk.DeregisterStreamConsumerInput{ConsumerARN: b}); err != nil {
		t.Fatal(err)
	}
	_, err = i.DescribeStreamConsumer(t.Context(), &sdk.DescribeStreamConsumerInput{ConsumerARN: b})
	wantCode(t, err, "ResourceNotFoundException")
	_, err = i.DescribeStreamConsumer(t.Context(), &sdk.DescribeStreamConsumerInput{ConsumerName: ptr("a")})
	wantCode(t, err, "InvalidArgumentException")
	if _, err := i.DeleteStream(t.Context(), &sdk.DeleteStreamInput{StreamName: ptr("s"), EnforceConsumerDeletion: ptr(true)}); err != nil {
		t.Error(err)
	}
}

func TestAStreamHasTwentyConsumersAtMost(t *testing.T) {
	i := connect(t, t.TempDir())
	i.create("s", 1)
	for n := range 20 {
		i.register("s", fmt.Sprint("c", n))
	}
	_, err := i.RegisterStreamConsumer(t.Context(), &sdk.RegisterStreamConsumerInput{StreamARN: i.arn("s"), ConsumerName: ptr("more")})
	wantCode(t, err, "LimitExceededException")
}

func TestRecordsArePushedToSubscribers(t *testing.T) {
	i := connect(t, t.TempDir())
	i.create("s", 1)
	i.put("s", "k", "one")
	const shard = "shardId-000000000000"
	one, two := i.register("s", "one"), i.register("s", "two")
	s, err := i.subscribe(one, shard, types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon})
	if err != nil {
		t.Fatal(err)
	}
	latest, err := i.subscribe(two, shard, types.StartingPosition{Type: types.ShardIteratorTypeLatest})
	if err != nil {
		t.Fatal(err)
	}
	first := next(s)
	if first == nil || len(first.Records) != 1 || string(first.Records[0].Data) != "one" || *first.ContinuationSequenceNumber != *first.Records[0].SequenceNumber {
		t.Fatalf("the first event is %+v, %v", first, s.Err())
	}
	i.put("s", "k", "two")
	for what, s := range map[string]*sdk.SubscribeToShardEventStream{"from the beginning": s, "from the end": latest} {
		if e := next(s); e == nil || len(e.Records) != 1 || string(e.Records[0].Data) != "two" || *e.MillisBehindLatest != 0 {
			t.Errorf("%s: the next event is %+v, %v", what, e, s.Err())
		}
	}
	_, err = i.subscribe(one, shard, types.StartingPosition{Type: types.ShardIteratorTypeLatest})
	wantCode(t, err, "ResourceInUseException")
	_, err = i.subscribe(one, "shardId-000000000007", types.StartingPosition{Type: types.ShardIteratorTypeLatest})
	wantCode(t, err, "ResourceNotFoundException")
	_, err = i.subscribe(ptr(*one+"1"), shard, types.StartingPosition{Type: types.ShardIteratorTypeLatest})
	wantCode(t, err, "ResourceNotFoundException")

	if _, err := i.DeregisterStreamConsumer(t.Context(), &sdk.DeregisterStreamConsumerInput{ConsumerARN: one}); err != nil {
		t.Fatal(err)
	}
	for next(s) != nil {
	}
	if _, ok := errors.AsType[*types.ResourceNotFoundException](s.Err()); !ok {
		t.Errorf("the subscription of a consumer that is gone ends with %v", s.Err())
	}

	three := i.register("s", "three")
	again, err := i.subscribe(three, shard, types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: first.ContinuationSequenceNumber})
	if err != nil {
		t.Fatal(err)
	}
	if e := next(again); e == nil || len(e.Records) != 1 || string(e.Records[0].Data) != "two" {
		t.Errorf("after the first event: %+v, %v", e, again.Err())
	}
	if _, err := i.UpdateShardCount(t.Context(), &sdk.UpdateShardCountInput{StreamName: ptr("s"), TargetShardCount: ptr(int32(2)), ScalingType: types.ScalingTypeUniformScaling}); err != nil {
		t.Fatal(err)
	}
	var last *types.SubscribeToShardEvent
	for e := next(again); e != nil; e = next(again) {
		last = e
	}
	if last == nil || len(last.ChildShards) != 2 || last.ContinuationSequenceNumber != nil || again.Err() != nil {
		t.Errorf("at the end of the shard: %+v, %v", last, again.Err())
	}
}
