package kinesis

import (
	"fmt"
	"math/big"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
)

// write puts records of a MiB, less the partition key, evenly into a stream.
func write(t *testing.T, s *Service, name string, records int) {
	t.Helper()
	for i := range records {
		key := new(big.Int).Div(new(big.Int).Lsh(one, 128), big.NewInt(int64(records)))
		key.Mul(key, big.NewInt(int64(i)))
		if _, err := s.PutRecord(t.Context(), &api.PutRecordInput{StreamName: &name, PartitionKey: aws.Ptr("k"), ExplicitHashKey: aws.Ptr(key.String()), Data: make([]byte, 1<<20-1)}); err != nil {
			t.Fatal(err)
		}
	}
}

func openShards(t *testing.T, s *Service, name string) int {
	t.Helper()
	out, err := s.DescribeStreamSummary(t.Context(), &api.DescribeStreamSummaryInput{StreamName: &name})
	if err != nil {
		t.Fatal(err)
	}
	return int(*out.StreamDescriptionSummary.OpenShardCount)
}

func createOnDemand(t *testing.T, s *Service, name string) {
	t.Helper()
	if _, err := s.CreateStream(t.Context(), &api.CreateStreamInput{StreamName: &name, StreamModeDetails: &api.StreamModeDetails{StreamMode: api.StreamModeOnDemand}}); err != nil {
		t.Fatal(err)
	}
	awaitActive(t, s, name)
}

func TestAStreamOnDemandHasShardsForTwiceThePeakOfAMonth(t *testing.T) {
	s, now, _ := inTime(t)
	createOnDemand(t, s, "s")
	for i, step := range []struct {
		after  time.Duration
		writes int // MiB in a second
		want   int
	}{
		{0, 0, 4},
		{time.Minute, 2, 4},
		{time.Minute, 3, 8},
		{time.Minute, 3, 8},
		{time.Hour, 8, 16}, // as much as it takes
		{24 * time.Hour, 1, 16},
		{25 * 24 * time.Hour, 3, 16},
		{6 * 24 * time.Hour, 1, 8}, // the 8 are past, the 3 are not
		{24 * 24 * time.Hour, 1, 8},
		{2 * 24 * time.Hour, 0, 4},
	} {
		now.sleep(step.after)
		s.scaleAll(t.Context())
		write(t, s, "s", step.writes)
		now.sleep(time.Second)
		s.scaleAll(t.Context())
		if got := openShards(t, s, "s"); got != step.want {
			t.Errorf("step %d: %d shards, want %d", i, got, step.want)
		}
	}
	out, err := s.ListShards(t.Context(), &api.ListShardsInput{StreamName: aws.Ptr("s")})
	if err != nil {
		t.Fatal(err)
	}
	parents := 0
	for _, sh := range out.Shards {
		if sh.ParentShardId != nil {
			parents++
		}
	}
	if parents == 0 {
		t.Error("no shard says what it was made of")
	}
}

func TestWhatIsWrittenWhileAStreamGrowsIsRead(t *testing.T) {
	s, now, _ := inTime(t)
	createOnDemand(t, s, "s")
	put(t, s, "s", "before")
	now.sleep(time.Second)
	s.scaleAll(t.Context())
	write(t, s, "s", 3)
	now.sleep(time.Second)
	s.scaleAll(t.Context())
	put(t, s, "s", "after")
	hash := hashOf("k")
	list, err := s.ListShards(t.Context(), &api.ListShardsInput{StreamName: aws.Ptr("s")})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, sh := range list.Shards {
		first, _ := parseKey(*sh.HashKeyRange.StartingHashKey)
		last, _ := parseKey(*sh.HashKeyRange.EndingHashKey)
		if hash.compare(first) < 0 || hash.compare(last) > 0 {
			continue
		}
		it, err := s.GetShardIterator(t.Context(), &api.GetShardIteratorInput{StreamName: aws.Ptr("s"), ShardId: sh.ShardId, ShardIteratorType: api.ShardIteratorTypeTrimHorizon})
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.GetRecords(t.Context(), &api.GetRecordsInput{ShardIterator: it.ShardIterator})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Records {
			if len(r.Data) < 10 {
				got += string(r.Data) + " "
			}
		}
	}
	if got != "before after " {
		t.Errorf("the key's records are %q", got)
	}
}

func TestAStreamThatIsSwitchedToOnDemandKeepsItsShardsForAMonth(t *testing.T) {
	s, now, _ := inTime(t)
	create(t, s, "s", 16)
	r, _ := s.records.Get("s")
	for _, mode := range []api.StreamMode{api.StreamModeOnDemand, api.StreamModeProvisioned, api.StreamModeOnDemand} {
		if _, err := s.UpdateStreamMode(t.Context(), &api.UpdateStreamModeInput{StreamARN: aws.Ptr(s.arn("s")), StreamModeDetails: &api.StreamModeDetails{StreamMode: mode}}); err != nil {
			t.Fatal(err)
		}
		s.scaleAll(t.Context())
		now.sleep(29 * 24 * time.Hour)
		s.scaleAll(t.Context())
		if got := openShards(t, s, r.Value.Name); got != 16 {
			t.Fatalf("as %s: %d shards, want 16", mode, got)
		}
	}
	now.sleep(3 * 24 * time.Hour)
	s.scaleAll(t.Context())
	if got := openShards(t, s, "s"); got != 4 {
		t.Errorf("after a month without writes: %d shards, want 4", got)
	}
}

func TestShardsDoubleAndHalve(t *testing.T) {
	for _, tt := range []struct{ open, target, more, want int }{
		{4, 4, 1000, 4}, {4, 5, 1000, 8}, {4, 9, 1000, 16}, {4, 17, 1000, 32}, {128, 150, 1000, 200}, {200, 200, 1000, 200},
		{8, 5, 0, 8}, {8, 4, 0, 4}, {32, 5, 0, 8}, {6, 4, 0, 6}, {7, 4, 0, 7}, {300, 200, 0, 300}, {400, 200, 0, 200},
		{8, 16, 7, 8}, {8, 16, 8, 16},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			if got := scaledTo(tt.open, tt.target, tt.more); got != tt.want {
				t.Errorf("%d shards, want %d", got, tt.want)
			}
		})
	}
}
