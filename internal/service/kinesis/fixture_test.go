package kinesis_test

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	sdkcredentials "github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/kinesis"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/service/kinesis"
	"lapwing.dev/lapwing/internal/state"
	"lapwing.dev/lapwing/internal/stream"
)

// installation is the service behind the gateway, with the AWS SDK's client.
type installation struct {
	*sdk.Client
	t     *testing.T
	dir   string
	close func()
}

// connect starts the service over a directory.
func connect(t *testing.T, dir string) *installation {
	t.Helper()
	store, err := state.Open(t.Context(), state.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	creds, err := credentials.Open(filepath.Join(dir, "credentials"))
	if err != nil {
		t.Fatal(err)
	}
	streams, err := stream.Open(filepath.Join(dir, "streams"), stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	service, err := kinesis.New(t.Context(), kinesis.Options{Store: store, Streams: streams, AccountID: creds.AccountID(), Region: "eu-central-1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(gateway.New(gateway.Options{
		Services: []*aws.Service{api.NewService(service)}, Credentials: creds, Region: "eu-central-1", AccountID: creds.AccountID(), Logger: slog.New(slog.DiscardHandler),
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	i := &installation{t: t, dir: dir, Client: sdk.NewFromConfig(sdkaws.Config{
		Region: "eu-central-1", BaseEndpoint: &server.URL, HTTPClient: server.Client(), Retryer: func() sdkaws.Retryer { return sdkaws.NopRetryer{} },
		Credentials: sdkcredentials.NewStaticCredentialsProvider(creds.Root().AccessKeyID, creds.Root().SecretAccessKey, ""),
	})}
	i.close = func() {
		service.EndSubscriptions()
		server.Close()
		service.Close()
		if err := errors.Join(streams.Close(), store.Close()); err != nil {
			t.Error(err)
		}
		i.close = func() {}
	}
	t.Cleanup(func() { i.close() })
	return i
}

// restart closes the installation and opens it again.
func (i *installation) restart() {
	i.t.Helper()
	i.close()
	*i = *connect(i.t, i.dir)
}

// create makes a stream and waits until it is ACTIVE.
func (i *installation) create(name string, shards int32) {
	i.t.Helper()
	if _, err := i.CreateStream(i.t.Context(), &sdk.CreateStreamInput{StreamName: &name, ShardCount: &shards}); err != nil {
		i.t.Fatal(err)
	}
	if err := sdk.NewStreamExistsWaiter(i.Client, func(o *sdk.StreamExistsWaiterOptions) { o.MinDelay, o.MaxDelay = time.Millisecond, 20*time.Millisecond }).Wait(
		i.t.Context(), &sdk.DescribeStreamInput{StreamName: &name}, 10*time.Second); err != nil {
		i.t.Fatal(err)
	}
}

// put puts a record and returns its shard and sequence number.
func (i *installation) put(name, key, data string) (shard, sequence string) {
	i.t.Helper()
	out, err := i.PutRecord(i.t.Context(), &sdk.PutRecordInput{StreamName: &name, PartitionKey: &key, Data: []byte(data)})
	if err != nil {
		i.t.Fatal(err)
	}
	return *out.ShardId, *out.SequenceNumber
}

// iterator returns an iterator of the first shard, unless the input names another.
func (i *installation) iterator(in *sdk.GetShardIteratorInput) *string {
	i.t.Helper()
	if in.ShardId == nil {
		in.ShardId = ptr("shardId-000000000000")
	}
	out, err := i.GetShardIterator(i.t.Context(), in)
	if err != nil {
		i.t.Fatal(err)
	}
	return out.ShardIterator
}

// read returns the data that an iterator gives, and what GetRecords answered.
func (i *installation) read(iterator *string) (string, *sdk.GetRecordsOutput) {
	i.t.Helper()
	out, err := i.GetRecords(i.t.Context(), &sdk.GetRecordsInput{ShardIterator: iterator})
	if err != nil {
		i.t.Fatal(err)
	}
	var all []string
	for _, r := range out.Records {
		all = append(all, string(r.Data))
	}
	return strings.Join(all, " "), out
}

// all returns the data of a shard from its beginning.
func (i *installation) all(name, shard string) string {
	i.t.Helper()
	got, _ := i.read(i.iterator(&sdk.GetShardIteratorInput{StreamName: &name, ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}))
	return got
}

func (i *installation) shards(name string) []types.Shard {
	i.t.Helper()
	out, err := i.ListShards(i.t.Context(), &sdk.ListShardsInput{StreamName: &name})
	if err != nil {
		i.t.Fatal(err)
	}
	return out.Shards
}

func ptr[T any](v T) *T { return &v }

func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	var e smithy.APIError
	if want == "" && err == nil {
		return
	}
	if !errors.As(err, &e) || e.ErrorCode() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}
