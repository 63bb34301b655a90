package kinesis_test

import (
	"bytes"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func TestRecordsAreGivenAsTheyWerePut(t *testing.T) {
	i := connect(t, t.TempDir())
	i.create("s", 1)
	shard, first := i.put("s", "k", "one")
	_, second := i.put("s", "k2", "two")
	if shard != "shardId-000000000000" || len(first) != 56 || second <= first {
		t.Errorf("shard %s, sequence numbers %s and %s", shard, first, second)
	}
	before := time.Now().Add(-time.Minute)
	for range 2 { // before and after a restart
		for _, tt := range []struct {
			in   sdk.GetShardIteratorInput
			want string
		}{
			{sdk.GetShardIteratorInput{ShardIteratorType: types.ShardIteratorTypeTrimHorizon}, "one two"},
			{sdk.GetShardIteratorInput{ShardIteratorType: types.ShardIteratorTypeLatest}, ""},
			{sdk.GetShardIteratorInput{ShardIteratorType: types.ShardIteratorTypeAtSequenceNumber, StartingSequenceNumber: &second}, "two"},
			{sdk.GetShardIteratorInput{ShardIteratorType: types.ShardIteratorTypeAfterSequenceNumber, StartingSequenceNumber: &first}, "two"},
			{sdk.GetShardIteratorInput{ShardIteratorType: types.ShardIteratorTypeAtTimestamp, Timestamp: &before}, "one two"},
		} {
			tt.in.StreamName = ptr("s")
			got, out := i.read(i.iterator(&tt.in))
			if got != tt.want || *out.MillisBehindLatest != 0 || out.NextShardIterator == nil {
				t.Errorf("%s: %q, %d ms behind; want %q", tt.in.ShardIteratorType, got, *out.MillisBehindLatest, tt.want)
			}
			time.Sleep(time.Second / 5) // five times a second
		}
		i.restart()
	}
	_, out := i.read(i.iterator(&sdk.GetShardIteratorInput{StreamName: ptr("s"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon}))
	r := out.Records[1]
	if *r.SequenceNumber != second || *r.PartitionKey != "k2" || time.Since(*r.ApproximateArrivalTimestamp) > time.Minute || r.EncryptionType != types.EncryptionTypeNone {
		t.Errorf("record %+v", r)
	}
}

func TestAnIteratorGoesOn(t *testing.T) {
	i := connect(t, t.TempDir())
	i.create("s", 1)
	latest := i.iterator(&sdk.GetShardIteratorInput{StreamName: ptr("s"), ShardIteratorType: types.ShardIteratorTypeLatest})
	for n := range 5 {
		i.put("s", "k", fmt.Sprint(n))
	}
	out, err := i.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: latest, Limit: ptr[int32](2)})
	if err != nil || len(out.Records) != 2 || string(out.Records[0].Data) != "0" || *out.MillisBehindLatest < 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	if got, _ := i.read(out.NextShardIterator); got != "2 3 4" {
		t.Errorf("then %q", got)
	}
}

func TestPartitionKeysAreSpreadByTheirMD5(t *testing.T) {
	i := connect(t, t.TempDir())
	i.create("s", 4)
	shards := i.shards("s")
	if len(shards) != 4 || *shards[0].HashKeyRange.StartingHashKey != "0" || *shards[3].HashKeyRange.EndingHashKey != "340282366920938463463374607431768211455" {
		t.Fatalf("shards %+v", shards)
	}
	for n := 1; n < 4; n++ {
		end, _ := new(big.Int).SetString(*shards[n-1].HashKeyRange.EndingHashKey, 10)
		if end.Add(end, big.NewInt(1)).String() != *shards[n].HashKeyRange.StartingHashKey {
			t.Errorf("shard %d begins at %s", n, *shards[n].HashKeyRange.StartingHashKey)
		}
	}
	// md5("a") = 0cc1…, md5("b") = 92eb…, md5("c") = 4a8a…, md5("e") = e167…
	for key, want := range map[string]int{"a": 0, "b": 2, "c": 1, "e": 3} {
		if shard, _ := i.put("s", key, key); shard != fmt.Sprintf("shardId-%012d", want) {
			t.Errorf("key %s goes to %s, want %d", key, shard, want)
		}
	}
	for n, key := range []string{"0", *shards[0].HashKeyRange.EndingHashKey, *shards[1].HashKeyRange.StartingHashKey, *shards[3].HashKeyRange.EndingHashKey} {
		out, err := i.PutRecord(t.Context(), &sdk.PutRecordInput{StreamName: ptr("s"), PartitionKey: ptr("b"), ExplicitHashKey: &key, Data: []byte("x")})
		if want := fmt.Sprintf("shardId-%012d", []int{0, 0, 1, 3}[n]); err != nil || *out.ShardId != want {
			t.Errorf("explicit key %s goes to %v, %v; want %s", key, out, err, want)
		}
	}
}

func TestRecordsOfOneCallAreInOrderInTheirShards(t *testing.T) {
	i := connect(t, t.TempDir())
	i.create("s", 2)
	in := &sdk.PutRecordsInput{StreamARN: i.arn("s")}
	for n := range 500 {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: ptr(fmt.Sprint(n % 10)), Data: fmt.Append(nil, n)})
	}
	out, err := i.PutRecords(t.Context(), in)
	if err != nil || *out.FailedRecordCount != 0 || len(out.Records) != 500 {
		t.Fatalf("%+v, %v", out, err)
	}
	last := map[string]string{}
	for n, r := range out.Records {
		if *r.SequenceNumber <= last[*r.ShardId] {
			t.Errorf("record %d has %s after %s", n, *r.SequenceNumber, last[*r.ShardId])
		}
		last[*r.ShardId] = *r.SequenceNumber
	}
	count := 0
	for _, sh := range i.shards("s") {
		before := -1
		for _, data := range strings.Fields(i.all("s", *sh.ShardId)) {
			var n int
			if _, err := fmt.Sscan(data, &n); err != nil || n <= before {
				t.Errorf("%s comes after %d", data, before)
			}
			before = n
			count++
		}
	}
	if count != 500 {
		t.Errorf("%d records are there", count)
	}
}

func TestAShardTakesAMegabyteASecond(t *testing.T) {
	i := connect(t, t.TempDir())
	i.create("s", 1)
	in := &sdk.PutRecordsInput{StreamName: ptr("s")}
	for range 8 {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: ptr("k"), Data: bytes.Repeat([]byte("x"), 250<<10)})
	}
	out, err := i.PutRecords(t.Context(), in)
	if err != nil || *out.FailedRecordCount != 4 {
		t.Fatalf("%d failed, %v", *out.FailedRecordCount, err)
	}
	for n, r := range out.Records {
		if n < 4 && r.SequenceNumber == nil || n >= 4 && (r.ErrorCode == nil || *r.ErrorCode != "ProvisionedThroughputExceededException" || !strings.HasPrefix(*r.ErrorMessage, "Rate exceeded for shard shardId-000000000000 in stream s under account ")) {
			t.Errorf("record %d: %+v", n, r)
		}
	}
}

func TestAStreamIsMadeDescribedAndDeleted(t *testing.T) {
	i := connect(t, t.TempDir())
	ctx := t.Context()
	_, err := i.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: ptr("on-demand"), StreamModeDetails: &types.StreamModeDetails{StreamMode: types.StreamModeOnDemand}, Tags: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	i.create("s", 3)
	d, err := i.DescribeStream(ctx, &sdk.DescribeStreamInput{StreamName: ptr("s"), Limit: ptr[int32](2)})
	if err != nil || len(d.StreamDescription.Shards) != 2 || !*d.StreamDescription.HasMoreShards || *d.StreamDescription.RetentionPeriodHours != 24 || d.StreamDescription.StreamStatus != types.StreamStatusActive {
		t.Errorf("described %+v, %v", d, err)
	}
	d, err = i.DescribeStream(ctx, &sdk.DescribeStreamInput{StreamName: ptr("s"), ExclusiveStartShardId: ptr("shardId-000000000001")})
	if err != nil || len(d.StreamDescription.Shards) != 1 || *d.StreamDescription.HasMoreShards {
		t.Errorf("then %+v, %v", d, err)
	}
	l, err := i.ListStreams(ctx, &sdk.ListStreamsInput{Limit: ptr[int32](1)})
	if err != nil || len(l.StreamNames) != 1 || l.StreamNames[0] != "on-demand" || !*l.HasMoreStreams {
		t.Errorf("listed %+v, %v", l, err)
	}
	l, err = i.ListStreams(ctx, &sdk.ListStreamsInput{NextToken: l.NextToken})
	if err != nil || len(l.StreamSummaries) != 1 || *l.StreamSummaries[0].StreamName != "s" || *l.HasMoreStreams {
		t.Errorf("then %+v, %v", l, err)
	}
	limits, err := i.DescribeLimits(ctx, &sdk.DescribeLimitsInput{})
	if err != nil || *limits.OpenShardCount != 7 || *limits.OnDemandStreamCount != 1 {
		t.Errorf("limits %+v, %v", limits, err)
	}
	first, err := i.ListShards(ctx, &sdk.ListShardsInput{StreamName: ptr("s"), MaxResults: ptr[int32](2)})
	if err != nil || len(first.Shards) != 2 || first.NextToken == nil {
		t.Fatalf("shards %+v, %v", first, err)
	}
	rest, err := i.ListShards(ctx, &sdk.ListShardsInput{NextToken: first.NextToken})
	if err != nil || len(rest.Shards) != 1 || rest.NextToken != nil {
		t.Errorf("then %+v, %v", rest, err)
	}
	i.put("s", "k", "gone")
	if _, err := i.DeleteStream(ctx, &sdk.DeleteStreamInput{StreamName: ptr("s")}); err != nil {
		t.Fatal(err)
	}
	if err := sdk.NewStreamNotExistsWaiter(i.Client, func(o *sdk.StreamNotExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = time.Millisecond, 20*time.Millisecond
	}).Wait(ctx, &sdk.DescribeStreamInput{StreamName: ptr("s")}, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	i.create("s", 1)
	if got := i.all("s", "shardId-000000000000"); got != "" {
		t.Errorf("a new stream has %q of the old one", got)
	}
}

func TestSettingsOfAStream(t *testing.T) {
	i := connect(t, t.TempDir())
	ctx := t.Context()
	i.create("s", 1)
	arn := *i.arn("s")
	for _, f := range []func() error{
		func() error {
			_, err := i.IncreaseStreamRetentionPeriod(ctx, &sdk.IncreaseStreamRetentionPeriodInput{StreamName: ptr("s"), RetentionPeriodHours: ptr[int32](8760)})
			return err
		},
		func() error {
			_, err := i.DecreaseStreamRetentionPeriod(ctx, &sdk.DecreaseStreamRetentionPeriodInput{StreamARN: &arn, RetentionPeriodHours: ptr[int32](48)})
			return err
		},
		func() error {
			_, err := i.UpdateStreamMode(ctx, &sdk.UpdateStreamModeInput{StreamARN: &arn, StreamModeDetails: &types.StreamModeDetails{StreamMode: types.StreamModeOnDemand}})
			return err
		},
		func() error {
			_, err := i.UpdateMaxRecordSize(ctx, &sdk.UpdateMaxRecordSizeInput{StreamARN: &arn, MaxRecordSizeInKiB: ptr[int32](2048)})
			return err
		},
		func() error {
			_, err := i.AddTagsToStream(ctx, &sdk.AddTagsToStreamInput{StreamName: ptr("s"), Tags: map[string]string{"b": "2", "a": "1", "c": "3"}})
			return err
		},
		func() error {
			_, err := i.RemoveTagsFromStream(ctx, &sdk.RemoveTagsFromStreamInput{StreamName: ptr("s"), TagKeys: []string{"b"}})
			return err
		},
		func() error {
			_, err := i.TagResource(ctx, &sdk.TagResourceInput{ResourceARN: &arn, Tags: map[string]string{"d": "4"}})
			return err
		},
		func() error {
			_, err := i.UntagResource(ctx, &sdk.UntagResourceInput{ResourceARN: &arn, TagKeys: []string{"a"}})
			return err
		},
	} {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
	i.restart()
	out, err := i.DescribeStreamSummary(ctx, &sdk.DescribeStreamSummaryInput{StreamARN: &arn})
	if d := out.StreamDescriptionSummary; err != nil || *d.RetentionPeriodHours != 48 || d.StreamModeDetails.StreamMode != types.StreamModeOnDemand || *d.MaxRecordSizeInKiB != 2048 || *d.OpenShardCount != 1 {
		t.Errorf("described %+v, %v", d, err)
	}
	tags, err := i.ListTagsForStream(ctx, &sdk.ListTagsForStreamInput{StreamName: ptr("s"), Limit: ptr[int32](1)})
	if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "c" || !*tags.HasMoreTags {
		t.Errorf("tags %+v, %v", tags, err)
	}
	more, err := i.ListTagsForResource(ctx, &sdk.ListTagsForResourceInput{ResourceARN: &arn})
	if err != nil || len(more.Tags) != 2 || *more.Tags[1].Value != "4" {
		t.Errorf("tags %+v, %v", more, err)
	}
	_, err = i.PutRecord(ctx, &sdk.PutRecordInput{StreamName: ptr("s"), PartitionKey: ptr("k"), Data: make([]byte, 2<<20-1)})
	wantCode(t, err, "")
}

func TestRequestsThatKinesisRefuses(t *testing.T) {
	i := connect(t, t.TempDir())
	ctx := t.Context()
	i.create("s", 1)
	i.create("other", 1)
	_, foreign := i.put("other", "k", "x")
	for name, tt := range map[string]struct {
		call func() error
		want string
	}{
		"a stream that exists": {func() error {
			_, err := i.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: ptr("s"), ShardCount: ptr[int32](1)})
			return err
		}, "ResourceInUseException"},
		"too many shards": {func() error {
			_, err := i.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: ptr("big"), ShardCount: ptr[int32](1001)})
			return err
		}, "LimitExceededException"},
		"no shard": {func() error {
			_, err := i.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: ptr("none")})
			return err
		}, "InvalidArgumentException"},
		"a name that is none": {func() error {
			_, err := i.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: ptr("a b"), ShardCount: ptr[int32](1)})
			return err
		}, "ValidationException"},
		"shards of a stream on demand": {func() error {
			_, err := i.CreateStream(ctx, &sdk.CreateStreamInput{StreamName: ptr("od"), ShardCount: ptr[int32](1), StreamModeDetails: &types.StreamModeDetails{StreamMode: types.StreamModeOnDemand}})
			return err
		}, "ValidationException"},
		"no stream": {func() error {
			_, err := i.PutRecord(ctx, &sdk.PutRecordInput{StreamName: ptr("missing"), PartitionKey: ptr("k"), Data: []byte("x")})
			return err
		}, "ResourceNotFoundException"},
		"an ARN of another account": {func() error {
			_, err := i.DescribeStreamSummary(ctx, &sdk.DescribeStreamSummaryInput{StreamARN: ptr("arn:aws:kinesis:eu-central-1:999999999999:stream/s")})
			return err
		}, "ResourceNotFoundException"},
		"two streams at once": {func() error {
			_, err := i.DescribeStreamSummary(ctx, &sdk.DescribeStreamSummaryInput{StreamName: ptr("s"), StreamARN: i.arn("other")})
			return err
		}, "InvalidArgumentException"},
		"neither name nor ARN": {func() error {
			_, err := i.DescribeStreamSummary(ctx, &sdk.DescribeStreamSummaryInput{})
			return err
		}, "InvalidArgumentException"},
		"a hash key that is too large": {func() error {
			_, err := i.PutRecord(ctx, &sdk.PutRecordInput{StreamName: ptr("s"), PartitionKey: ptr("k"), Data: []byte("x"), ExplicitHashKey: ptr("340282366920938463463374607431768211456")})
			return err
		}, "InvalidArgumentException"},
		"a record that is too large": {func() error {
			_, err := i.PutRecord(ctx, &sdk.PutRecordInput{StreamName: ptr("s"), PartitionKey: ptr("k"), Data: make([]byte, 1<<20)})
			return err
		}, "InvalidArgumentException"},
		"an iterator that is none": {func() error {
			_, err := i.GetRecords(ctx, &sdk.GetRecordsInput{ShardIterator: ptr("AAAA")})
			return err
		}, "InvalidArgumentException"},
		"a shard that is not there": {func() error {
			_, err := i.GetShardIterator(ctx, &sdk.GetShardIteratorInput{StreamName: ptr("s"), ShardId: ptr("shardId-000000000001"), ShardIteratorType: types.ShardIteratorTypeLatest})
			return err
		}, "ResourceNotFoundException"},
		"a sequence number of another stream": {func() error {
			_, err := i.GetShardIterator(ctx, &sdk.GetShardIteratorInput{StreamName: ptr("s"), ShardId: ptr("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeAtSequenceNumber, StartingSequenceNumber: &foreign})
			return err
		}, "InvalidArgumentException"},
		"no sequence number": {func() error {
			_, err := i.GetShardIterator(ctx, &sdk.GetShardIteratorInput{StreamName: ptr("s"), ShardId: ptr("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeAtSequenceNumber})
			return err
		}, "InvalidArgumentException"},
		"a time to come": {func() error {
			_, err := i.GetShardIterator(ctx, &sdk.GetShardIteratorInput{StreamName: ptr("s"), ShardId: ptr("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeAtTimestamp, Timestamp: ptr(time.Now().Add(time.Hour))})
			return err
		}, "InvalidArgumentException"},
		"a retention that is too long": {func() error {
			_, err := i.IncreaseStreamRetentionPeriod(ctx, &sdk.IncreaseStreamRetentionPeriodInput{StreamName: ptr("s"), RetentionPeriodHours: ptr[int32](8761)})
			return err
		}, "InvalidArgumentException"},
		"a longer retention by Decrease": {func() error {
			_, err := i.DecreaseStreamRetentionPeriod(ctx, &sdk.DecreaseStreamRetentionPeriodInput{StreamName: ptr("s"), RetentionPeriodHours: ptr[int32](25)})
			return err
		}, "InvalidArgumentException"},
		"tags of AWS": {func() error {
			_, err := i.AddTagsToStream(ctx, &sdk.AddTagsToStreamInput{StreamName: ptr("s"), Tags: map[string]string{"aws:x": "y"}})
			return err
		}, "InvalidArgumentException"},
		"tags of a consumer": {func() error {
			_, err := i.RegisterStreamConsumer(ctx, &sdk.RegisterStreamConsumerInput{StreamARN: i.arn("s"), ConsumerName: ptr("c"), Tags: map[string]string{"a": "b"}})
			return err
		}, "InvalidArgumentException"},
		"encryption": {func() error {
			_, err := i.StartStreamEncryption(ctx, &sdk.StartStreamEncryptionInput{StreamName: ptr("s"), EncryptionType: types.EncryptionTypeKms, KeyId: ptr("alias/aws/kinesis")})
			return err
		}, "UnknownOperationException"},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, tt.call(), tt.want) })
	}
}

func TestShardsAreSplitAndMerged(t *testing.T) {
	i := connect(t, t.TempDir())
	ctx := t.Context()
	i.create("s", 1)
	_, before := i.put("s", "a", "before")
	half := new(big.Int).Lsh(big.NewInt(1), 127).String()
	if _, err := i.SplitShard(ctx, &sdk.SplitShardInput{StreamName: ptr("s"), ShardToSplit: ptr("shardId-000000000000"), NewStartingHashKey: &half}); err != nil {
		t.Fatal(err)
	}
	low, after := i.put("s", "a", "low")
	high, _ := i.put("s", "b", "high")
	if low != "shardId-000000000001" || high != "shardId-000000000002" || after <= before {
		t.Errorf("%s and %s, sequence %s after %s", low, high, after, before)
	}
	// A reader of the parent is led to its children.
	got, out := i.read(i.iterator(&sdk.GetShardIteratorInput{StreamName: ptr("s"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon}))
	if got != "before" || out.NextShardIterator != nil || len(out.ChildShards) != 2 || *out.ChildShards[1].ShardId != high || out.ChildShards[1].ParentShards[0] != "shardId-000000000000" {
		t.Errorf("the parent gives %q, %+v", got, out)
	}
	shards := i.shards("s")
	if len(shards) != 3 || *shards[0].SequenceNumberRange.EndingSequenceNumber != before || *shards[1].ParentShardId != "shardId-000000000000" || shards[1].SequenceNumberRange.EndingSequenceNumber != nil {
		t.Errorf("shards %+v", shards)
	}
	if _, err := i.MergeShards(ctx, &sdk.MergeShardsInput{StreamName: ptr("s"), ShardToMerge: &high, AdjacentShardToMerge: &low}); err != nil {
		t.Fatal(err)
	}
	i.restart()
	merged, _ := i.put("s", "b", "merged")
	shards = i.shards("s")
	if last := shards[len(shards)-1]; merged != "shardId-000000000003" || *last.ParentShardId != low || *last.AdjacentParentShardId != high || *last.HashKeyRange.StartingHashKey != "0" {
		t.Errorf("merged into %s: %+v", merged, last)
	}
	if got := i.all("s", high); got != "high" {
		t.Errorf("the closed shard gives %q", got)
	}
	_, err := i.SplitShard(ctx, &sdk.SplitShardInput{StreamName: ptr("s"), ShardToSplit: &low, NewStartingHashKey: ptr("5")})
	wantCode(t, err, "InvalidArgumentException")
	_, err = i.SplitShard(ctx, &sdk.SplitShardInput{StreamName: ptr("s"), ShardToSplit: &merged, NewStartingHashKey: ptr("1")})
	wantCode(t, err, "InvalidArgumentException")
	open, err := i.ListShards(ctx, &sdk.ListShardsInput{StreamName: ptr("s"), ShardFilter: &types.ShardFilter{Type: types.ShardFilterTypeAtLatest}})
	if err != nil || len(open.Shards) != 1 || *open.Shards[0].ShardId != merged {
		t.Errorf("open are %+v, %v", open, err)
	}
	oldest, err := i.ListShards(ctx, &sdk.ListShardsInput{StreamName: ptr("s"), ShardFilter: &types.ShardFilter{Type: types.ShardFilterTypeAtTrimHorizon}})
	if err != nil || len(oldest.Shards) != 1 || *oldest.Shards[0].ShardId != "shardId-000000000000" {
		t.Errorf("at the trim horizon are %+v, %v", oldest, err)
	}
}

func TestTheNumberOfShardsIsChanged(t *testing.T) {
	i := connect(t, t.TempDir())
	ctx := t.Context()
	i.create("s", 3)
	for _, n := range []int32{5, 4, 8, 7, 4, 2, 1, 2} {
		out, err := i.UpdateShardCount(ctx, &sdk.UpdateShardCountInput{StreamName: ptr("s"), TargetShardCount: &n, ScalingType: types.ScalingTypeUniformScaling})
		if err != nil || *out.TargetShardCount != n {
			t.Fatalf("to %d: %+v, %v", n, out, err)
		}
		open, err := i.ListShards(ctx, &sdk.ListShardsInput{StreamName: ptr("s"), ShardFilter: &types.ShardFilter{Type: types.ShardFilterTypeAtLatest}})
		if err != nil || len(open.Shards) != int(n) {
			t.Fatalf("%d shards are open, want %d (%v)", len(open.Shards), n, err)
		}
		share := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(int64(n)))
		begins := map[string]bool{}
		for _, sh := range open.Shards {
			begins[*sh.HashKeyRange.StartingHashKey] = true
		}
		for k := range n {
			if at := new(big.Int).Mul(share, big.NewInt(int64(k))); !begins[at.String()] {
				t.Errorf("of %d shards none begins at %s", n, at)
			}
		}
		i.put("s", "k", "x")
	}
	for _, n := range []int32{5, 1} {
		i.restart()
		_, err := i.UpdateShardCount(ctx, &sdk.UpdateShardCountInput{StreamName: ptr("s"), TargetShardCount: &n, ScalingType: types.ScalingTypeUniformScaling})
		if n == 5 {
			wantCode(t, err, "InvalidArgumentException")
		} else {
			wantCode(t, err, "")
		}
	}
}
