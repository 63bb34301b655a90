package kinesis_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func TestAStreamWhoseFilesAreDamagedKeepsNoOtherFromServing(t *testing.T) {
	for name, harm := range map[string]func(file string) error{
		"a file that is no segment":    func(file string) error { return os.WriteFile(file, []byte("something else"), 0o600) },
		"a segment of a newer program": func(file string) error { return os.WriteFile(file, []byte("LWSHARD\xff"), 0o600) },
		"a file among its shards": func(file string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(filepath.Dir(file)), "x"), nil, 0o600)
		},
		"no directory": func(file string) error {
			dir := filepath.Dir(filepath.Dir(file))
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := connect(t, t.TempDir())
			i.create("broken", 2)
			i.create("whole", 1)
			i.put("broken", "k", "a")
			i.put("whole", "k", "a")
			it := i.iterator(&sdk.GetShardIteratorInput{StreamName: ptr("broken"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
			described, err := i.DescribeStreamSummary(t.Context(), &sdk.DescribeStreamSummaryInput{StreamName: ptr("broken")})
			if err != nil {
				t.Fatal(err)
			}
			i.close()
			dir := filepath.Join(i.dir, "streams", *described.StreamDescriptionSummary.StreamId)
			files, err := filepath.Glob(filepath.Join(dir, "000000", "*"))
			if err != nil || len(files) != 1 {
				t.Fatalf("files %v, %v", files, err)
			}
			before := filepath.Join(i.dir, "backup")
			if err := errors.Join(os.CopyFS(before, os.DirFS(dir)), harm(files[0])); err != nil {
				t.Fatal(err)
			}
			*i = *connect(t, i.dir)
			_, putting := i.PutRecord(t.Context(), &sdk.PutRecordInput{StreamName: ptr("broken"), PartitionKey: ptr("k"), Data: []byte("b")})
			_, reading := i.GetRecords(t.Context(), &sdk.GetRecordsInput{ShardIterator: it})
			_, splitting := i.UpdateShardCount(t.Context(), &sdk.UpdateShardCountInput{StreamName: ptr("broken"), TargetShardCount: ptr(int32(4)), ScalingType: types.ScalingTypeUniformScaling})
			for what, err := range map[string]error{"PutRecord": putting, "GetRecords": reading, "UpdateShardCount": splitting} {
				if wantCode(t, err, "InternalFailureException"); err == nil || !strings.Contains(err.Error(), "Restore them and restart the server, or delete the stream") {
					t.Errorf("%s: %v", what, err)
				}
			}
			i.put("whole", "k", "b")
			if got := i.all("whole", "shardId-000000000000"); got != "a b" {
				t.Errorf("the other stream has %q", got)
			}
			if name != "no directory" { // is put right
				i.close()
				if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(before))); err != nil {
					t.Fatal(err)
				}
				*i = *connect(t, i.dir)
				shard, _ := i.put("broken", "k", "b")
				if got := i.all("broken", shard); got != "a b" {
					t.Errorf("the stream that was put right has %q", got)
				}
				return
			}
			if _, err := i.DeleteStream(t.Context(), &sdk.DeleteStreamInput{StreamName: ptr("broken")}); err != nil {
				t.Fatal(err)
			}
			if err := sdk.NewStreamNotExistsWaiter(i.Client, func(o *sdk.StreamNotExistsWaiterOptions) {
				o.MinDelay, o.MaxDelay = time.Millisecond, 20*time.Millisecond
			}).Wait(
				t.Context(), &sdk.DescribeStreamInput{StreamName: ptr("broken")}, 10*time.Second); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something is left of it: %v", err)
			}
			i.create("broken", 1)
			i.put("broken", "k", "new")
		})
	}
}

func TestAClosedShardWhoseLastRecordsAreLostLeadsToItsChildren(t *testing.T) {
	i := connect(t, t.TempDir())
	i.create("s", 1)
	i.put("s", "k", "a")
	i.put("s", "k", "b")
	if _, err := i.UpdateShardCount(t.Context(), &sdk.UpdateShardCountInput{StreamName: ptr("s"), TargetShardCount: ptr(int32(2)), ScalingType: types.ScalingTypeUniformScaling}); err != nil {
		t.Fatal(err)
	}
	i.close()
	files, err := filepath.Glob(filepath.Join(i.dir, "streams", "*", "000000", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	info, err := os.Stat(files[0])
	if err == nil {
		err = os.Truncate(files[0], info.Size()-1)
	}
	if err != nil {
		t.Fatal(err)
	}
	*i = *connect(t, i.dir)
	got, out := i.read(i.iterator(&sdk.GetShardIteratorInput{StreamName: ptr("s"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon}))
	if got != "a" || out.NextShardIterator != nil || len(out.ChildShards) != 2 {
		t.Errorf("records %q, next %v, %d children", got, out.NextShardIterator, len(out.ChildShards))
	}
}
