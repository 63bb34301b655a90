package kinesis

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
	"lapwing.dev/lapwing/internal/state"
	"lapwing.dev/lapwing/internal/stream"
)

// clock is the time of a test.
type clock struct{ now time.Time }

func (c *clock) sleep(d time.Duration) { c.now = c.now.Add(d) }

// inTime returns a service with a time of its own, and the directory of its streams.
func inTime(t *testing.T) (*Service, *clock, string) {
	t.Helper()
	dir := t.TempDir()
	c := &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	now := func() time.Time { return c.now }
	store, err := state.Open(t.Context(), state.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	streams, err := stream.Open(filepath.Join(dir, "streams"), stream.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), Options{Store: store, Streams: streams, AccountID: "123456789012", Region: "eu-central-1", Logger: slog.New(slog.DiscardHandler), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if err := errors.Join(streams.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return s, c, filepath.Join(dir, "streams")
}

func create(t *testing.T, s *Service, name string, shards int32) {
	t.Helper()
	if _, err := s.CreateStream(t.Context(), &api.CreateStreamInput{StreamName: &name, ShardCount: &shards}); err != nil {
		t.Fatal(err)
	}
	awaitActive(t, s, name)
}

func awaitActive(t *testing.T, s *Service, name string) {
	t.Helper()
	for range 1000 {
		if r, _ := s.records.Get(name); r.Value.Status == api.StreamStatusActive {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the stream is not ACTIVE")
}

func put(t *testing.T, s *Service, name, data string) {
	t.Helper()
	if _, err := s.PutRecord(t.Context(), &api.PutRecordInput{StreamName: &name, PartitionKey: aws.Ptr("k"), Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
}

func horizonIterator(t *testing.T, s *Service, name string) *string {
	t.Helper()
	out, err := s.GetShardIterator(t.Context(), &api.GetShardIteratorInput{StreamName: &name, ShardId: aws.Ptr("shardId-000000000000"), ShardIteratorType: api.ShardIteratorTypeTrimHorizon})
	if err != nil {
		t.Fatal(err)
	}
	return out.ShardIterator
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*aws.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestIteratorsExpireAfterFiveMinutes(t *testing.T) {
	s, now, _ := inTime(t)
	create(t, s, "s", 1)
	it := horizonIterator(t, s, "s")
	now.sleep(iteratorLife)
	out, err := s.GetRecords(t.Context(), &api.GetRecordsInput{ShardIterator: it})
	if err != nil {
		t.Fatal(err)
	}
	now.sleep(time.Second)
	if _, err := s.GetRecords(t.Context(), &api.GetRecordsInput{ShardIterator: it}); codeOf(err) != "ExpiredIteratorException" {
		t.Errorf("an old iterator: %v", err)
	}
	if _, err := s.GetRecords(t.Context(), &api.GetRecordsInput{ShardIterator: out.NextShardIterator}); err != nil {
		t.Errorf("the next iterator: %v", err)
	}
}

func TestRecordsAreThereForTheirRetentionAndTakeNoDiskAfterIt(t *testing.T) {
	s, now, dir := inTime(t)
	create(t, s, "s", 1)
	put(t, s, "s", "old")
	now.sleep(12 * time.Hour)
	put(t, s, "s", "new")
	read := func() string {
		out, err := s.GetRecords(t.Context(), &api.GetRecordsInput{ShardIterator: horizonIterator(t, s, "s")})
		if err != nil {
			t.Fatal(err)
		}
		all := ""
		for _, r := range out.Records {
			all += string(r.Data)
		}
		return all
	}
	segments := func() int {
		files, err := filepath.Glob(filepath.Join(dir, "*", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	now.sleep(12*time.Hour - time.Second)
	if got := read(); got != "oldnew" {
		t.Errorf("within the retention %q", got)
	}
	now.sleep(2 * time.Second)
	if got := read(); got != "new" {
		t.Errorf("after the retention %q", got)
	}
	now.sleep(2 * trimEvery)
	s.trimAll(t.Context())
	if n := segments(); n != 1 {
		t.Errorf("%d segments, want 1", n)
	}
	now.sleep(24 * time.Hour)
	put(t, s, "s", "newest")
	if got := read(); got != "newest" {
		t.Errorf("a day later %q", got)
	}
}

func TestClosedShardsGoWithTheirRecords(t *testing.T) {
	s, now, dir := inTime(t)
	create(t, s, "s", 1)
	put(t, s, "s", "x")
	if _, err := s.UpdateShardCount(t.Context(), &api.UpdateShardCountInput{StreamName: aws.Ptr("s"), TargetShardCount: aws.Ptr(int32(2)), ScalingType: api.ScalingTypeUniformScaling}); err != nil {
		t.Fatal(err)
	}
	count := func() (listed, there int) {
		out, err := s.ListShards(t.Context(), &api.ListShardsInput{StreamName: aws.Ptr("s")})
		if err != nil {
			t.Fatal(err)
		}
		dirs, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(out.Shards), len(dirs)
	}
	if listed, there := count(); listed != 3 || there != 3 {
		t.Errorf("%d shards are listed, %d there; want 3", listed, there)
	}
	now.sleep(24*time.Hour + 2*trimEvery)
	s.trimAll(t.Context())
	if listed, there := count(); listed != 2 || there != 2 {
		t.Errorf("after the retention %d shards are listed, %d there; want 2", listed, there)
	}
}

func TestShardsThatACrashLeftBehindAreRemovedAtTheStart(t *testing.T) {
	s, _, dir := inTime(t)
	create(t, s, "s", 1)
	r, _ := s.records.Get("s")
	left, kept := filepath.Join(dir, r.Value.ID, "000007"), filepath.Join(dir, r.Value.ID, "000000")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a shard that is not in the record is still there: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

func TestAStreamCanBeUsedAsSoonAsItIsActive(t *testing.T) {
	s, _, _ := inTime(t)
	for i := range 30 {
		name := fmt.Sprint("s", i)
		if _, err := s.CreateStream(t.Context(), &api.CreateStreamInput{StreamName: &name, ShardCount: aws.Ptr(int32(1))}); err != nil {
			t.Fatal(err)
		}
		for r, _ := s.records.Get(name); r.Value.Status != api.StreamStatusActive; r, _ = s.records.Get(name) {
			if t.Context().Err() != nil {
				t.Fatal("the stream is not ACTIVE")
			}
			runtime.Gosched()
		}
		put(t, s, name, "x")
	}
}

func scale(t *testing.T, s *Service, name string, shards int32) error {
	t.Helper()
	_, err := s.UpdateShardCount(t.Context(), &api.UpdateShardCountInput{StreamName: &name, TargetShardCount: &shards, ScalingType: api.ScalingTypeUniformScaling})
	return err
}

func TestAStreamIsScaledTenTimesADayAtMost(t *testing.T) {
	s, now, _ := inTime(t)
	create(t, s, "s", 1)
	for i := range maxScalings {
		if err := scale(t, s, "s", int32(2-i%2)); err != nil {
			t.Fatal(err)
		}
		now.sleep(time.Hour)
	}
	if err := scale(t, s, "s", 2); codeOf(err) != "LimitExceededException" {
		t.Errorf("one more: %v", err)
	}
	now.sleep(scaleWindow - maxScalings*time.Hour)
	if err := scale(t, s, "s", 2); err != nil {
		t.Errorf("a day after the first: %v", err)
	}
	if err := scale(t, s, "s", 1); codeOf(err) != "LimitExceededException" {
		t.Errorf("before the second was a day ago: %v", err)
	}
}

func TestAStreamWithMoreShardsThanFitItsRecordIsRefused(t *testing.T) {
	s, _, _ := inTime(t)
	create(t, s, "s", 1)
	_, err := s.records.Modify(t.Context(), "s", func(r *record) error {
		b, err := json.Marshal(r)
		r.Tags = map[string]string{"k": strings.Repeat("x", state.MaxValueSize-len(b)-100)}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.SplitShard(t.Context(), &api.SplitShardInput{StreamName: aws.Ptr("s"), ShardToSplit: aws.Ptr("shardId-000000000000"), NewStartingHashKey: aws.Ptr("1000")})
	if codeOf(err) != "LimitExceededException" {
		t.Errorf("%v", err)
	}
	put(t, s, "s", "x")
}

func TestCallsThatMeetADeletionAreToldThatTheStreamIsGone(t *testing.T) {
	s, now, _ := inTime(t)
	create(t, s, "s", 1)
	put(t, s, "s", "x")
	it := horizonIterator(t, s, "s")
	r, _ := s.records.Get("s")
	if err := s.opts.Streams.Remove(r.Value.ID); err != nil { // as DeleteStream does, when these calls had found the stream
		t.Fatal(err)
	}
	_, putting := s.PutRecord(t.Context(), &api.PutRecordInput{StreamName: aws.Ptr("s"), PartitionKey: aws.Ptr("k"), Data: []byte("x")})
	_, finding := s.GetShardIterator(t.Context(), &api.GetShardIteratorInput{StreamName: aws.Ptr("s"), ShardId: aws.Ptr("shardId-000000000000"), ShardIteratorType: api.ShardIteratorTypeAtTimestamp, Timestamp: &now.now})
	_, reading := s.GetRecords(t.Context(), &api.GetRecordsInput{ShardIterator: it})
	for what, err := range map[string]error{"PutRecord": putting, "GetShardIterator": finding, "GetRecords": reading} {
		if codeOf(err) != "ResourceNotFoundException" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAReaderThatIsBehindIsTold(t *testing.T) {
	s, now, _ := inTime(t)
	create(t, s, "s", 1)
	put(t, s, "s", "a")
	now.sleep(time.Minute)
	put(t, s, "s", "b")
	out, err := s.GetRecords(t.Context(), &api.GetRecordsInput{ShardIterator: horizonIterator(t, s, "s"), Limit: aws.Ptr(int32(1))})
	if err != nil || *out.MillisBehindLatest != time.Minute.Milliseconds() {
		t.Errorf("%d ms behind, %v", *out.MillisBehindLatest, err)
	}
	out, err = s.GetRecords(t.Context(), &api.GetRecordsInput{ShardIterator: out.NextShardIterator})
	if err != nil || *out.MillisBehindLatest != 0 || len(out.Records) != 1 {
		t.Errorf("%d ms behind, %v", *out.MillisBehindLatest, err)
	}
}

func TestRatesOfAShard(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newRates()
	n := 0
	for r.write(now, 1) {
		n++
	}
	if n != writeRecords {
		t.Errorf("%d records in a second, want %d", n, writeRecords)
	}
	if now = now.Add(time.Second); !r.write(now, 10<<20) {
		t.Error("a record larger than a second's worth is refused when nothing was written")
	}
	for range 9 {
		if now = now.Add(time.Second); r.write(now, 1) {
			t.Errorf("a record is taken before the large one is made good, at %v", now)
		}
	}
	if now = now.Add(time.Second); !r.write(now, 1<<19) || !r.write(now, 1<<18) || r.write(now, 1<<19) {
		t.Error("a second's worth is not what it should be")
	}
	for range readCalls {
		if !r.call(now) {
			t.Error("five calls a second are refused")
		}
	}
	if r.call(now) || !r.call(now.Add(time.Second)) {
		t.Error("a sixth call is taken, or none in the next second")
	}
	if r.gave(10 << 20); r.call(now.Add(5 * time.Second)) {
		t.Error("a call is taken before 10 MiB are made good")
	}
	if !r.call(now.Add(7 * time.Second)) {
		t.Error("no call is taken when 10 MiB are made good")
	}
}

func FuzzIterator(f *testing.F) {
	f.Add(iterator{stream: "abcdefghij0123456789-xyz", shard: 3, offset: 77, made: time.UnixMilli(1e12)}.String())
	f.Add("AAAA")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		it, err := parseIterator(s)
		if err != nil {
			return
		}
		again, err := parseIterator(it.String())
		if err != nil || again != it {
			t.Errorf("%+v becomes %+v, %v", it, again, err)
		}
	})
}
