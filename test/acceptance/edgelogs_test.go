package acceptance_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kintypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"lapwing.dev/lapwing/test/harness"
)

// Requests at a remote location leave what those at the core's own do: a record in
// the data stream of the real-time log, a line in a file of the standard log, and a
// count in the metrics, each once, also where the location is cut off and killed.
func TestWhatRequestsLeaveReachesTheCoreFromEveryLocation(t *testing.T) {
	n := newEdgeNet(t)
	// The origin is localhost, beside either location.
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := origin.Addr().(*net.TCPAddr).Port
	var there net.Listener
	n.inside(func() (err error) {
		there, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err
	})
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		fmt.Fprint(w, "object")
	})}
	for _, l := range []net.Listener{origin, there} {
		go web.Serve(l) //nolint:errcheck // ends with the test
	}
	t.Cleanup(func() { web.Close() })

	join := n.core + ":7422"
	dir := t.TempDir()
	s, err := harness.Start(filepath.Join(dir, "core"), "--edge-join", join, "--origin-allow", "127.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, s.Log())
		}
	})
	token, err := s.Run("edge", "token", "FRA56-P1")
	if err != nil {
		t.Fatal(err)
	}
	e := &edgeLocation{net: n, data: filepath.Join(dir, "edge"), args: []string{"--join", join, "--join-token", strings.TrimSpace(string(token)), "--origin-allow", "127.0.0.0/8"}}
	e.start()
	running := true
	t.Cleanup(func() {
		if running {
			e.end(syscall.SIGTERM)
		}
	})
	l := &edgeLogs{t: t, s: s, kinesis: kinesis.NewFromConfig(s.Config()), s3: s3.NewFromConfig(s.Config(), func(o *s3.Options) { o.UsePathStyle = true }), cloudwatch: cloudwatch.NewFromConfig(s.Config())}
	l.distribution(port)

	waitFor(t, "the distribution at the location", func() bool {
		status, _, _, err := e.get(l.host, "/warm")
		return err == nil && status == http.StatusOK
	})
	l.settle("FRA56-P1")
	began := time.Now()
	for range 10 {
		if status, _, _, err := e.get(l.host, "/remote?x=1"); err != nil || status != http.StatusOK {
			t.Fatalf("status %d, %v", status, err)
		}
	}
	for range 5 {
		l.getAtCore("/core")
	}
	waitFor(t, "records of both locations in the stream", func() bool {
		return l.records("FRA56-P1", "/remote") == 10 && l.records("LPW50-P1", "/core") == 5
	})
	t.Logf("real-time records were there after %v", time.Since(began).Round(10*time.Millisecond))
	total := l.total
	waitFor(t, "the requests of both locations in the metrics", func() bool { return l.metric() == float64(total) })

	// Counted in the dark, and killed there: what is on the disk is handed on once.
	n.cut(true)
	for range 4 {
		if status, _, _, err := e.get(l.host, "/remote?x=1"); err != nil || status != http.StatusOK {
			t.Fatalf("in the dark status %d, %v", status, err)
		}
	}
	time.Sleep(12 * time.Second) // until it is on the disk
	e.end(syscall.SIGKILL)
	e.start()
	n.cut(false)
	waitFor(t, "what was counted in the dark", func() bool { return l.metric() == float64(total+4) })

	// The file of a standard log comes at the latest when the location ends.
	for range 3 {
		if status, _, _, err := e.get(l.host, "/last"); err != nil || status != http.StatusOK {
			t.Fatalf("status %d, %v", status, err)
		}
	}
	waitFor(t, "the last requests in the metrics", func() bool { return l.metric() == float64(total+7) })
	e.end(syscall.SIGTERM)
	running = false
	lines := 0
	for _, line := range l.files() {
		fields := strings.Split(line, "\t")
		if len(fields) == 33 && fields[2] == "FRA56-P1" && fields[7] == "/last" && fields[8] == "200" {
			lines++
		}
	}
	if lines != 3 {
		t.Errorf("the standard log has %d of 3 lines\n%s", lines, e.log())
	}
}

// edgeLogs reads what requests of a distribution leave.
type edgeLogs struct {
	t          *testing.T
	s          *harness.Server
	kinesis    *kinesis.Client
	s3         *s3.Client
	cloudwatch *cloudwatch.Client
	id, host   string

	next  *string             // iterator of the stream
	lines map[string][]string // of its records, by location
	total int                 // of its records
}

// distribution makes a bucket, a stream, a real-time log and a distribution that has
// both.
func (l *edgeLogs) distribution(port int) {
	l.t.Helper()
	ctx := l.t.Context()
	if _, err := l.s3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("logs")}); err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.kinesis.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: aws.String("edge"), ShardCount: aws.Int32(1)}); err != nil {
		l.t.Fatal(err)
	}
	if err := kinesis.NewStreamExistsWaiter(l.kinesis).Wait(ctx, &kinesis.DescribeStreamInput{StreamName: aws.String("edge")}, time.Minute); err != nil {
		l.t.Fatal(err)
	}
	cf := cloudfront.NewFromConfig(l.s.Config())
	account, region := l.s.Account(), l.s.Env["AWS_REGION"]
	config, err := cf.CreateRealtimeLogConfig(ctx, &cloudfront.CreateRealtimeLogConfigInput{
		Name: aws.String("all"), SamplingRate: aws.Int64(100), Fields: []string{"cs-uri-stem", "x-edge-location", "sc-status"},
		EndPoints: []cftypes.EndPoint{{StreamType: aws.String("Kinesis"), KinesisStreamConfig: &cftypes.KinesisStreamConfig{
			StreamARN: aws.String("arn:aws:kinesis:" + region + ":" + account + ":stream/edge"), RoleARN: aws.String("arn:aws:iam::" + account + ":role/logs"),
		}}},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	d, err := cf.CreateDistribution(ctx, &cloudfront.CreateDistributionInput{DistributionConfig: &cftypes.DistributionConfig{
		CallerReference: aws.String("logs"), Comment: aws.String(""), Enabled: aws.Bool(true),
		Origins: &cftypes.Origins{Quantity: aws.Int32(1), Items: []cftypes.Origin{{
			Id: aws.String("o"), DomainName: aws.String("localhost"),
			CustomOriginConfig: &cftypes.CustomOriginConfig{HTTPPort: aws.Int32(int32(port)), HTTPSPort: aws.Int32(443), OriginProtocolPolicy: cftypes.OriginProtocolPolicyHttpOnly},
		}}},
		DefaultCacheBehavior: &cftypes.DefaultCacheBehavior{
			TargetOriginId: aws.String("o"), ViewerProtocolPolicy: cftypes.ViewerProtocolPolicyAllowAll, RealtimeLogConfigArn: config.RealtimeLogConfig.ARN,
			CachePolicyId: aws.String("658327ea-f89d-4fab-a63d-7e88639e58f6"), // CachingOptimized
		},
		Logging: &cftypes.LoggingConfig{Enabled: aws.Bool(true), Bucket: aws.String("logs.s3.amazonaws.com"), Prefix: aws.String("cdn"), IncludeCookies: aws.Bool(false)},
	}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.id, l.host = *d.Distribution.Id, *d.Distribution.DomainName
}

func (l *edgeLogs) getAtCore(path string) {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, l.s.URL()+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Host = l.host
	resp, err := viewerClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		l.t.Fatalf("at the core: %v, %v", resp, err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // what it says is not the matter
}

// settle waits until requests before it are in the stream.
func (l *edgeLogs) settle(location string) {
	l.t.Helper()
	waitFor(l.t, "the first record in the stream", func() bool { return l.records(location, "/warm") > 0 })
}

// records returns how many records of a location's requests for a path are in the
// stream by now.
func (l *edgeLogs) records(location, path string) (n int) {
	l.t.Helper()
	if l.next == nil {
		it, err := l.kinesis.GetShardIterator(l.t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: aws.String("edge"), ShardId: aws.String("shardId-000000000000"), ShardIteratorType: kintypes.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			l.t.Fatal(err)
		}
		l.next, l.lines = it.ShardIterator, map[string][]string{}
	}
	time.Sleep(time.Second / 5) // as often as a shard may be read
	out, err := l.kinesis.GetRecords(l.t.Context(), &kinesis.GetRecordsInput{ShardIterator: l.next})
	if err != nil {
		l.t.Fatal(err)
	}
	l.next = out.NextShardIterator
	for _, r := range out.Records {
		fields := strings.Split(strings.TrimSpace(string(r.Data)), "\t") // in the order of CloudFront
		if len(fields) != 3 {
			l.t.Errorf("record %q", r.Data)
			continue
		}
		l.total++
		l.lines[fields[2]] = append(l.lines[fields[2]], fields[1])
	}
	for _, p := range l.lines[location] {
		if p == path {
			n++
		}
	}
	return n
}

// metric returns how many requests the metrics of the distribution count.
func (l *edgeLogs) metric() (sum float64) {
	l.t.Helper()
	out, err := l.cloudwatch.GetMetricStatistics(l.t.Context(), &cloudwatch.GetMetricStatisticsInput{
		Namespace: aws.String("AWS/CloudFront"), MetricName: aws.String("Requests"), Period: aws.Int32(60), Statistics: []cwtypes.Statistic{cwtypes.StatisticSum},
		StartTime: aws.Time(time.Now().Add(-time.Hour)), EndTime: aws.Time(time.Now().Add(time.Minute)),
		Dimensions: []cwtypes.Dimension{{Name: aws.String("DistributionId"), Value: &l.id}, {Name: aws.String("Region"), Value: aws.String("Global")}},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range out.Datapoints {
		sum += *p.Sum
	}
	return sum
}

// files returns the lines of the files in the bucket.
func (l *edgeLogs) files() (lines []string) {
	l.t.Helper()
	list, err := l.s3.ListObjectsV2(l.t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("logs"), Prefix: aws.String("cdn/" + l.id + ".")})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, o := range list.Contents {
		got, err := l.s3.GetObject(l.t.Context(), &s3.GetObjectInput{Bucket: aws.String("logs"), Key: o.Key})
		if err != nil {
			l.t.Fatal(err)
		}
		b, err := io.ReadAll(got.Body)
		if err != nil {
			l.t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			l.t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil {
			l.t.Fatal(err)
		}
		lines = append(lines, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")...)
	}
	return lines
}
