package logs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/logs"
	"lapwing.dev/lapwing/internal/aws/wire"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/service/logs"
)

const (
	region  = "eu-west-1"
	account = "123456789012"
)

// fixture is the service behind HTTP and a client of the AWS SDK for it.
type fixture struct {
	*cloudwatchlogs.Client
	store *logstore.Store
	dir   string
	// another returns one more client of the same server: event streams side by
	// side on one client share a buffer in this version of the SDK.
	another func() *cloudwatchlogs.Client
}

func setUp(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir()}
	f.open(t)
	return f
}

// open opens the store in f.dir and serves it; calling it again restarts.
func (f *fixture) open(t *testing.T) {
	t.Helper()
	if f.store != nil {
		if err := f.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	store, err := logstore.Open(f.dir, logstore.Options{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	f.store = store
	service := api.NewService(logs.New(store, logs.Options{Logger: log, TailSessions: 2}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := aws.WithRequest(r.Context(), &aws.Request{ID: "request-id", Service: "logs", Region: region, AccountID: account})
		call, err := wire.Find(service, r)
		if err == nil {
			err = call.Serve(ctx, w, r)
		}
		if err != nil {
			e, ok := errors.AsType[*aws.Error](err)
			if !ok {
				t.Errorf("%v", err)
				e = &aws.Error{Code: "InternalFailure", Status: 500}
			}
			wire.WriteError(w, r, service, call, e, "request-id")
		}
	}))
	t.Cleanup(func() {
		server.Close()
		store.Close()
	})
	// StartLiveTail goes to "stream-" + host, as with AWS: every name is ours.
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	f.another = func() *cloudwatchlogs.Client {
		return cloudwatchlogs.New(cloudwatchlogs.Options{
			Region:           region,
			BaseEndpoint:     sdk.String("http://lapwing.test"),
			Credentials:      credentials.NewStaticCredentialsProvider("id", "secret", ""),
			HTTPClient:       &http.Client{Transport: transport},
			RetryMaxAttempts: 1,
		})
	}
	f.Client = f.another()
}

func (f *fixture) group(t *testing.T, name string, streams ...string) {
	t.Helper()
	must(t)(f.CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &name}))
	for _, s := range streams {
		must(t)(f.CreateLogStream(t.Context(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &name, LogStreamName: &s}))
	}
}

// put puts events one millisecond apart from at on.
func (f *fixture) put(t *testing.T, group, stream string, at time.Time, messages ...string) {
	t.Helper()
	in := &cloudwatchlogs.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream}
	for i, m := range messages {
		in.LogEvents = append(in.LogEvents, types.InputLogEvent{Timestamp: sdk.Int64(at.UnixMilli() + int64(i)), Message: sdk.String(m)})
	}
	out := must(t)(f.PutLogEvents(t.Context(), in)).(*cloudwatchlogs.PutLogEventsOutput)
	if out.RejectedLogEventsInfo != nil {
		t.Fatalf("rejected: %+v", *out.RejectedLogEventsInfo)
	}
}

// must returns a function that passes on a result or fails the test.
func must(t *testing.T) func(v any, err error) any {
	return func(v any, err error) any {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantError checks the code and (a part of) the message of an API error.
func wantError(t *testing.T, err error, code, message string) {
	t.Helper()
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		t.Errorf("got %v, want %s", err, code)
	} else if e.ErrorCode() != code || !strings.Contains(e.ErrorMessage(), message) {
		t.Errorf("got %s: %s, want %s: %s", e.ErrorCode(), e.ErrorMessage(), code, message)
	}
}

func TestGroupsAreCreatedListedAndDeleted(t *testing.T) {
	f := setUp(t)
	ctx := t.Context()
	for i := range 120 {
		f.group(t, fmt.Sprintf("/app/%03d", i))
	}
	must(t)(f.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: sdk.String("Other#1"), Tags: map[string]string{"a": "b"}}))

	_, err := f.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: sdk.String("/app/000")})
	wantError(t, err, "ResourceAlreadyExistsException", "The specified log group already exists")
	_, err = f.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: sdk.String("no spaces")})
	wantError(t, err, "InvalidParameterException", "logGroupName")
	for _, in := range []*cloudwatchlogs.CreateLogGroupInput{
		{KmsKeyId: sdk.String("arn:aws:kms:eu-west-1:123456789012:key/x")},
		{LogGroupClass: types.LogGroupClassInfrequentAccess},
		{DeletionProtectionEnabled: sdk.Bool(true)},
		{Tags: map[string]string{"aws:x": "y"}},
	} {
		in.LogGroupName = sdk.String("refused")
		_, err := f.CreateLogGroup(ctx, in)
		wantError(t, err, "InvalidParameterException", "")
	}

	list := func(in *cloudwatchlogs.DescribeLogGroupsInput) (names []string) {
		t.Helper()
		for p := cloudwatchlogs.NewDescribeLogGroupsPaginator(f, in); p.HasMorePages(); {
			page, err := p.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if len(page.LogGroups) > 50 {
				t.Errorf("page of %d groups", len(page.LogGroups))
			}
			for _, g := range page.LogGroups {
				names = append(names, *g.LogGroupName)
			}
		}
		return names
	}
	if n := list(&cloudwatchlogs.DescribeLogGroupsInput{}); len(n) != 121 || !slices.IsSorted(n) {
		t.Errorf("listed %q", n)
	}
	if n := list(&cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: sdk.String("/app/01"), Limit: sdk.Int32(3)}); len(n) != 10 {
		t.Errorf("listed %q", n)
	}
	if n := list(&cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePattern: sdk.String("app/11")}); len(n) != 10 {
		t.Errorf("listed %q", n)
	}
	if n := list(&cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePattern: sdk.String("other")}); len(n) != 0 {
		t.Errorf("listed %q", n)
	}
	if n := list(&cloudwatchlogs.DescribeLogGroupsInput{LogGroupIdentifiers: []string{"Other#1", "arn:aws:logs:eu-west-1:123456789012:log-group:/app/007"}}); len(n) != 2 {
		t.Errorf("listed %q", n)
	}
	_, err = f.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: sdk.String("a"), LogGroupNamePattern: sdk.String("b")})
	wantError(t, err, "InvalidParameterException", "mutually exclusive")
	_, err = f.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{NextToken: sdk.String("!")})
	wantError(t, err, "InvalidParameterException", "nextToken")

	out, err := f.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: sdk.String("Other")})
	if err != nil {
		t.Fatal(err)
	}
	g := out.LogGroups[0]
	if sdk.ToString(g.Arn) != "arn:aws:logs:eu-west-1:123456789012:log-group:Other#1:*" ||
		sdk.ToString(g.LogGroupArn) != "arn:aws:logs:eu-west-1:123456789012:log-group:Other#1" ||
		g.RetentionInDays != nil || sdk.ToInt64(g.StoredBytes) != 0 || g.LogGroupClass != types.LogGroupClassStandard ||
		time.Since(time.UnixMilli(sdk.ToInt64(g.CreationTime))).Abs() > time.Minute {
		t.Errorf("group %+v", g)
	}

	must(t)(f.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: sdk.String("Other#1")}))
	_, err = f.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: sdk.String("Other#1")})
	wantError(t, err, "ResourceNotFoundException", "The specified log group does not exist.")
}

func TestRetentionTakesOnlyWhatAWSTakes(t *testing.T) {
	f := setUp(t)
	f.group(t, "g")
	retention := func() *int32 {
		out := must(t)(f.DescribeLogGroups(t.Context(), &cloudwatchlogs.DescribeLogGroupsInput{})).(*cloudwatchlogs.DescribeLogGroupsOutput)
		return out.LogGroups[0].RetentionInDays
	}
	must(t)(f.PutRetentionPolicy(t.Context(), &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: sdk.String("g"), RetentionInDays: sdk.Int32(14)}))
	if d := retention(); d == nil || *d != 14 {
		t.Errorf("retention %v", d)
	}
	_, err := f.PutRetentionPolicy(t.Context(), &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: sdk.String("g"), RetentionInDays: sdk.Int32(2)})
	wantError(t, err, "InvalidParameterException", "Invalid retention value. Valid values are: [1, 3, 5, 7, 14,")
	_, err = f.PutRetentionPolicy(t.Context(), &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: sdk.String("h"), RetentionInDays: sdk.Int32(1)})
	wantError(t, err, "ResourceNotFoundException", "The specified log group does not exist.")
	must(t)(f.DeleteRetentionPolicy(t.Context(), &cloudwatchlogs.DeleteRetentionPolicyInput{LogGroupName: sdk.String("g")}))
	if d := retention(); d != nil {
		t.Errorf("retention %v", d)
	}
}

func TestStreamsAreListedInTheOrderAskedFor(t *testing.T) {
	f := setUp(t)
	ctx := t.Context()
	f.group(t, "g", "a", "b", "c", "x/1")
	now := time.Now().Truncate(time.Millisecond)
	f.put(t, "g", "b", now, "latest")
	f.put(t, "g", "c", now.Add(-time.Minute), "older", "old")
	f.put(t, "g", "x/1", now.Add(-time.Hour), "oldest")
	_, err := f.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("a")})
	wantError(t, err, "ResourceAlreadyExistsException", "The specified log stream already exists")
	_, err = f.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: sdk.String("h"), LogStreamName: sdk.String("a")})
	wantError(t, err, "ResourceNotFoundException", "The specified log group does not exist.")
	_, err = f.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("a:b")})
	wantError(t, err, "InvalidParameterException", "logStreamName")

	for _, tt := range []struct {
		in   cloudwatchlogs.DescribeLogStreamsInput
		want string
	}{
		{cloudwatchlogs.DescribeLogStreamsInput{}, "a b c x/1"},
		{cloudwatchlogs.DescribeLogStreamsInput{Descending: sdk.Bool(true)}, "x/1 c b a"},
		{cloudwatchlogs.DescribeLogStreamsInput{OrderBy: types.OrderByLastEventTime}, "a x/1 c b"},
		{cloudwatchlogs.DescribeLogStreamsInput{OrderBy: types.OrderByLastEventTime, Descending: sdk.Bool(true)}, "b c x/1 a"},
		{cloudwatchlogs.DescribeLogStreamsInput{LogStreamNamePrefix: sdk.String("x/")}, "x/1"},
	} {
		for _, limit := range []int32{1, 3, 50} {
			in := tt.in
			in.LogGroupIdentifier = sdk.String("arn:aws:logs:eu-west-1:123456789012:log-group:g")
			in.Limit = &limit
			var names []string
			for p := cloudwatchlogs.NewDescribeLogStreamsPaginator(f, &in); p.HasMorePages(); {
				page, err := p.NextPage(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range page.LogStreams {
					names = append(names, *s.LogStreamName)
				}
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("limit %d: got %s, want %s", limit, got, tt.want)
			}
		}
	}
	_, err = f.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: sdk.String("g"), OrderBy: types.OrderByLastEventTime, LogStreamNamePrefix: sdk.String("a")})
	wantError(t, err, "InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix.")
	_, err = f.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{})
	wantError(t, err, "InvalidParameterException", "")

	out := must(t)(f.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: sdk.String("g"), LogStreamNamePrefix: sdk.String("c")})).(*cloudwatchlogs.DescribeLogStreamsOutput)
	c := out.LogStreams[0]
	if sdk.ToString(c.Arn) != "arn:aws:logs:eu-west-1:123456789012:log-group:g:log-stream:c" || c.UploadSequenceToken == nil ||
		sdk.ToInt64(c.FirstEventTimestamp) != now.Add(-time.Minute).UnixMilli() ||
		sdk.ToInt64(c.LastEventTimestamp) != now.Add(-time.Minute).UnixMilli()+1 || sdk.ToInt64(c.LastIngestionTime) < now.UnixMilli() {
		t.Errorf("stream %+v", c)
	}
	must(t)(f.DeleteLogStream(ctx, &cloudwatchlogs.DeleteLogStreamInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("c")}))
	_, err = f.DeleteLogStream(ctx, &cloudwatchlogs.DeleteLogStreamInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("c")})
	wantError(t, err, "ResourceNotFoundException", "The specified log stream does not exist.")
}

func TestPutLogEventsKeepsTheRulesOfABatch(t *testing.T) {
	f := setUp(t)
	f.group(t, "g", "s")
	now := time.Now().UnixMilli()
	event := func(at int64, message string) types.InputLogEvent {
		return types.InputLogEvent{Timestamp: &at, Message: &message}
	}
	many := make([]types.InputLogEvent, 10_001)
	for i := range many {
		many[i] = event(now, "x")
	}
	for _, tt := range []struct {
		events        []types.InputLogEvent
		code, message string
	}{
		{[]types.InputLogEvent{event(now, "a"), event(now-1, "b")}, "InvalidParameterException", "Log events in a single PutLogEvents request must be in chronological order."},
		{[]types.InputLogEvent{event(now-25*3600_000, "a"), event(now, "b")}, "InvalidParameterException", "cannot span more than 24 hours"},
		{[]types.InputLogEvent{event(now, strings.Repeat("x", 1<<20-26+1))}, "InvalidParameterException", "Upload too large: 1048577 bytes exceeds limit of 1048576"},
		{[]types.InputLogEvent{event(now, strings.Repeat("x", 1<<20+1))}, "InvalidParameterException", "Log event too large: 1048603 bytes exceeds limit of 1048576"},
		{[]types.InputLogEvent{event(now, "")}, "InvalidParameterException", "message"},
		{many, "InvalidParameterException", "logEvents"},
		{[]types.InputLogEvent{}, "InvalidParameterException", "logEvents"},
	} {
		_, err := f.PutLogEvents(t.Context(), &cloudwatchlogs.PutLogEventsInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("s"), LogEvents: tt.events})
		wantError(t, err, tt.code, tt.message)
	}
	for _, tt := range []struct{ group, stream, message string }{
		{"h", "s", "The specified log group does not exist."}, {"g", "t", "The specified log stream does not exist."},
	} {
		_, err := f.PutLogEvents(t.Context(), &cloudwatchlogs.PutLogEventsInput{LogGroupName: &tt.group, LogStreamName: &tt.stream, LogEvents: many[:1]})
		wantError(t, err, "ResourceNotFoundException", tt.message)
	}
	f.put(t, "g", "s", time.Now(), strings.Repeat("x", 1<<20-26))
	in := &cloudwatchlogs.PutLogEventsInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("s"), LogEvents: many[:10_000], SequenceToken: sdk.String("anything")}
	out := must(t)(f.PutLogEvents(t.Context(), in)).(*cloudwatchlogs.PutLogEventsOutput)
	if out.NextSequenceToken == nil {
		t.Error("no sequence token")
	}
}

func TestEventsOutsideTheAgeLimitsAreRejectedAlone(t *testing.T) {
	f := setUp(t)
	f.group(t, "g", "s")
	now := time.Now()
	put := func(offsets ...time.Duration) *types.RejectedLogEventsInfo {
		t.Helper()
		in := &cloudwatchlogs.PutLogEventsInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("s")}
		for _, o := range offsets {
			in.LogEvents = append(in.LogEvents, types.InputLogEvent{Timestamp: sdk.Int64(now.Add(o).UnixMilli()), Message: sdk.String(o.String())})
		}
		return must(t)(f.PutLogEvents(t.Context(), in)).(*cloudwatchlogs.PutLogEventsOutput).RejectedLogEventsInfo
	}
	day := 24 * time.Hour
	if r := put(-14*day-time.Hour, -14*day-time.Minute, -14*day+time.Hour); r == nil || r.TooOldLogEventEndIndex == nil ||
		*r.TooOldLogEventEndIndex != 2 || r.ExpiredLogEventEndIndex != nil || r.TooNewLogEventStartIndex != nil {
		t.Errorf("too old: %+v", r)
	}
	if r := put(0, time.Hour, 3*time.Hour, 4*time.Hour); r == nil || r.TooNewLogEventStartIndex == nil || *r.TooNewLogEventStartIndex != 2 {
		t.Errorf("too new: %+v", r)
	}
	if r := put(0, time.Second); r != nil {
		t.Errorf("rejected %+v", r)
	}
	must(t)(f.PutRetentionPolicy(t.Context(), &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: sdk.String("g"), RetentionInDays: sdk.Int32(1)}))
	if r := put(-day-time.Hour, -day+time.Hour); r == nil || r.ExpiredLogEventEndIndex == nil || *r.ExpiredLogEventEndIndex != 1 {
		t.Errorf("expired: %+v", r)
	}
	got := must(t)(f.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("s"), StartFromHead: sdk.Bool(true)})).(*cloudwatchlogs.GetLogEventsOutput)
	if m := texts(got.Events); m != "-23h0m0s 0s 0s 1s 1h0m0s" {
		t.Errorf("stored %s", m)
	}
}

func texts(events []types.OutputLogEvent) string {
	var out []string
	for _, e := range events {
		out = append(out, *e.Message)
	}
	return strings.Join(out, " ")
}

func TestGetLogEventsPagesBothWays(t *testing.T) {
	f := setUp(t)
	f.group(t, "g", "s", "other")
	now := time.Now().Add(-time.Minute)
	f.put(t, "g", "other", now, "other")
	for i := range 10 {
		f.put(t, "g", "s", now.Add(time.Duration(i/2)*time.Second), fmt.Sprint(i)) // two at a time
	}
	get := func(in cloudwatchlogs.GetLogEventsInput) *cloudwatchlogs.GetLogEventsOutput {
		t.Helper()
		in.LogGroupName, in.LogStreamName = sdk.String("g"), sdk.String("s")
		return must(t)(f.GetLogEvents(t.Context(), &in)).(*cloudwatchlogs.GetLogEventsOutput)
	}
	check := func(out *cloudwatchlogs.GetLogEventsOutput, want string) {
		t.Helper()
		if got := texts(out.Events); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	three := sdk.Int32(3)
	out := get(cloudwatchlogs.GetLogEventsInput{})
	check(out, "0 1 2 3 4 5 6 7 8 9")
	out = get(cloudwatchlogs.GetLogEventsInput{Limit: three})
	check(out, "7 8 9")
	back := get(cloudwatchlogs.GetLogEventsInput{Limit: three, NextToken: out.NextBackwardToken})
	check(back, "4 5 6")
	check(get(cloudwatchlogs.GetLogEventsInput{Limit: three, NextToken: back.NextForwardToken}), "7 8 9")
	end := get(cloudwatchlogs.GetLogEventsInput{Limit: three, NextToken: out.NextForwardToken})
	check(end, "")
	if *end.NextForwardToken != *out.NextForwardToken {
		t.Errorf("at the end the token changes from %s to %s", *out.NextForwardToken, *end.NextForwardToken)
	}
	f.put(t, "g", "s", now.Add(time.Minute), "new")
	check(get(cloudwatchlogs.GetLogEventsInput{NextToken: end.NextForwardToken}), "new")

	out = get(cloudwatchlogs.GetLogEventsInput{Limit: three, StartFromHead: sdk.Bool(true)})
	check(out, "0 1 2")
	begin := get(cloudwatchlogs.GetLogEventsInput{NextToken: out.NextBackwardToken})
	check(begin, "")
	if *begin.NextBackwardToken != *out.NextBackwardToken {
		t.Errorf("at the begin the token changes from %s to %s", *out.NextBackwardToken, *begin.NextBackwardToken)
	}
	// The start is inclusive, the end exclusive.
	check(get(cloudwatchlogs.GetLogEventsInput{StartTime: sdk.Int64(now.UnixMilli() + 1000), EndTime: sdk.Int64(now.UnixMilli() + 3000)}), "2 3 4 5")
	_, err := f.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("s"), NextToken: sdk.String("f/1")})
	wantError(t, err, "InvalidParameterException", "The specified nextToken is invalid.")
	_, err = f.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("none")})
	wantError(t, err, "ResourceNotFoundException", "The specified log stream does not exist.")

	// A stream without events has tokens, with which its first ones are found.
	f.group(t, "empty", "s")
	none := must(t)(f.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: sdk.String("empty"), LogStreamName: sdk.String("s")})).(*cloudwatchlogs.GetLogEventsOutput)
	f.put(t, "empty", "s", now, "first")
	first := must(t)(f.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: sdk.String("empty"), LogStreamName: sdk.String("s"), NextToken: none.NextForwardToken})).(*cloudwatchlogs.GetLogEventsOutput)
	check(first, "first")
}

func TestRepliesAreBoundedInBytes(t *testing.T) {
	f := setUp(t)
	f.group(t, "g", "s")
	now := time.Now().Add(-time.Minute)
	for i := range 5 {
		f.put(t, "g", "s", now.Add(time.Duration(i)*time.Second), strings.Repeat("x", 400<<10))
	}
	var sizes []int
	in := &cloudwatchlogs.FilterLogEventsInput{LogGroupName: sdk.String("g")}
	for p := cloudwatchlogs.NewFilterLogEventsPaginator(f, in); p.HasMorePages(); {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.Events))
	}
	if fmt.Sprint(sizes) != "[2 2 1]" {
		t.Errorf("pages of %v events", sizes)
	}
}

func TestFilterLogEventsFindsAcrossStreams(t *testing.T) {
	f := setUp(t)
	f.group(t, "g", "a/1", "a/2", "b/1")
	now := time.Now().Add(-time.Minute)
	for i := range 30 {
		f.put(t, "g", []string{"a/1", "a/2", "b/1"}[i%3], now.Add(time.Duration(i)*time.Second),
			fmt.Sprintf(`{"n": %d, "level": "%s"}`, i, []string{"INFO", "ERROR"}[i%2]))
	}
	numbers := func(in cloudwatchlogs.FilterLogEventsInput) string {
		t.Helper()
		in.LogGroupName = sdk.String("g")
		var out []string
		seen := make(map[string]bool)
		for p := cloudwatchlogs.NewFilterLogEventsPaginator(f, &in); p.HasMorePages(); {
			page, err := p.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Events {
				if seen[*e.EventId] || e.LogStreamName == nil || e.IngestionTime == nil {
					t.Errorf("event %+v", e)
				}
				seen[*e.EventId] = true
				var n int
				if _, err := fmt.Sscanf(*e.Message, `{"n": %d`, &n); err != nil {
					t.Fatal(err)
				}
				out = append(out, fmt.Sprint(n))
			}
		}
		return strings.Join(out, " ")
	}
	for _, tt := range []struct {
		in   cloudwatchlogs.FilterLogEventsInput
		want string
	}{
		{cloudwatchlogs.FilterLogEventsInput{FilterPattern: sdk.String(`{ $.level = "ERR*" && $.n >= 20 }`)}, "21 23 25 27 29"},
		{cloudwatchlogs.FilterLogEventsInput{FilterPattern: sdk.String(`ERROR`), LogStreamNamePrefix: sdk.String("a/"), Limit: sdk.Int32(2)}, "1 3 7 9 13 15 19 21 25 27"},
		{cloudwatchlogs.FilterLogEventsInput{FilterPattern: sdk.String(`?ERROR ?INFO`), LogStreamNames: []string{"b/1"}}, "2 5 8 11 14 17 20 23 26 29"},
		{cloudwatchlogs.FilterLogEventsInput{StartTime: sdk.Int64(now.UnixMilli() + 3000), EndTime: sdk.Int64(now.UnixMilli() + 5000)}, "3 4 5"},
		{cloudwatchlogs.FilterLogEventsInput{FilterPattern: sdk.String(`nowhere`)}, ""},
		{cloudwatchlogs.FilterLogEventsInput{StartFromHead: sdk.Bool(false), FilterPattern: sdk.String("ERROR"), LogStreamNames: []string{"a/1"}, Limit: sdk.Int32(2)}, "27 21 15 9 3"},
	} {
		if got := numbers(tt.in); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
	for _, tt := range []struct {
		in            cloudwatchlogs.FilterLogEventsInput
		code, message string
	}{
		{cloudwatchlogs.FilterLogEventsInput{FilterPattern: sdk.String("ERROR:")}, "InvalidParameterException", "Invalid character(s) in term 'ERROR:'"},
		{cloudwatchlogs.FilterLogEventsInput{FilterPattern: sdk.String("{ $.a }")}, "InvalidParameterException", "Invalid filter pattern"},
		{cloudwatchlogs.FilterLogEventsInput{LogStreamNames: []string{"a/1"}, LogStreamNamePrefix: sdk.String("a")}, "InvalidParameterException", "mutually exclusive"},
		{cloudwatchlogs.FilterLogEventsInput{LogStreamNames: []string{"z"}}, "ResourceNotFoundException", "The specified log stream does not exist."},
		{cloudwatchlogs.FilterLogEventsInput{NextToken: sdk.String("x")}, "InvalidParameterException", "nextToken"},
		{cloudwatchlogs.FilterLogEventsInput{LogGroupIdentifier: sdk.String("g")}, "InvalidParameterException", "mutually exclusive"},
	} {
		tt.in.LogGroupName = sdk.String("g")
		_, err := f.FilterLogEvents(t.Context(), &tt.in)
		wantError(t, err, tt.code, tt.message)
	}
	_, err := f.FilterLogEvents(t.Context(), &cloudwatchlogs.FilterLogEventsInput{LogGroupIdentifier: sdk.String("arn:aws:logs:eu-west-1:210987654321:log-group:g")})
	wantError(t, err, "ResourceNotFoundException", "The specified log group does not exist.")
}

func TestTagsByARNAndByName(t *testing.T) {
	f := setUp(t)
	ctx := t.Context()
	f.group(t, "g")
	arn := sdk.String("arn:aws:logs:eu-west-1:123456789012:log-group:g")
	check := func(want string) {
		t.Helper()
		byARN := must(t)(f.ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: arn})).(*cloudwatchlogs.ListTagsForResourceOutput)
		//lint:ignore SA1019 the legacy operation is what is tested
		byName := must(t)(f.ListTagsLogGroup(ctx, &cloudwatchlogs.ListTagsLogGroupInput{LogGroupName: sdk.String("g")})).(*cloudwatchlogs.ListTagsLogGroupOutput)
		if fmt.Sprint(byARN.Tags) != want || fmt.Sprint(byName.Tags) != want {
			t.Errorf("got %v and %v, want %s", byARN.Tags, byName.Tags, want)
		}
	}
	check("map[]")
	must(t)(f.TagResource(ctx, &cloudwatchlogs.TagResourceInput{ResourceArn: arn, Tags: map[string]string{"a": "1", "b": "2"}}))
	//lint:ignore SA1019 the legacy operation is what is tested
	must(t)(f.TagLogGroup(ctx, &cloudwatchlogs.TagLogGroupInput{LogGroupName: sdk.String("g"), Tags: map[string]string{"b": "3", "c": ""}}))
	check("map[a:1 b:3 c:]")
	must(t)(f.UntagResource(ctx, &cloudwatchlogs.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"a", "none"}}))
	//lint:ignore SA1019 the legacy operation is what is tested
	must(t)(f.UntagLogGroup(ctx, &cloudwatchlogs.UntagLogGroupInput{LogGroupName: sdk.String("g"), Tags: []string{"c"}}))
	f.open(t)
	check("map[b:3]")

	many := make(map[string]string)
	for i := range 50 {
		many[fmt.Sprint("k", i)] = ""
	}
	_, err := f.TagResource(ctx, &cloudwatchlogs.TagResourceInput{ResourceArn: arn, Tags: many})
	wantError(t, err, "TooManyTagsException", "50")
	check("map[b:3]")
	_, err = f.TagResource(ctx, &cloudwatchlogs.TagResourceInput{ResourceArn: sdk.String("arn:aws:s3:::b"), Tags: map[string]string{"a": "b"}})
	wantError(t, err, "InvalidParameterException", "")
	_, err = f.ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: sdk.String(*arn + "x")})
	wantError(t, err, "ResourceNotFoundException", "")
}

func TestEverythingIsThereAfterARestart(t *testing.T) {
	f := setUp(t)
	f.group(t, "g", "s")
	now := time.Now()
	f.put(t, "g", "s", now, "one", "two")
	before := must(t)(f.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("s"), Limit: sdk.Int32(1), StartFromHead: sdk.Bool(true)})).(*cloudwatchlogs.GetLogEventsOutput)
	f.open(t)
	after := must(t)(f.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("s"), NextToken: before.NextForwardToken})).(*cloudwatchlogs.GetLogEventsOutput)
	if texts(before.Events) != "one" || texts(after.Events) != "two" {
		t.Errorf("got %q, then %q", texts(before.Events), texts(after.Events))
	}
}

func TestLiveTailStreamsNewEvents(t *testing.T) {
	f := setUp(t)
	f.group(t, "g", "s", "t")
	arn := "arn:aws:logs:eu-west-1:123456789012:log-group:g"
	out, err := f.StartLiveTail(t.Context(), &cloudwatchlogs.StartLiveTailInput{
		LogGroupIdentifiers: []string{arn}, LogStreamNames: []string{"s"}, LogEventFilterPattern: sdk.String("yes"),
	})
	if err != nil {
		t.Fatal(err)
	}
	stream := out.GetStream()
	defer stream.Close()
	start, ok := (<-stream.Events()).(*types.StartLiveTailResponseStreamMemberSessionStart)
	if !ok || start.Value.SessionId == nil || !slices.Equal(start.Value.LogGroupIdentifiers, []string{arn}) {
		t.Fatalf("first event %+v", start)
	}
	f.put(t, "g", "t", time.Now(), "yes in another stream")
	f.put(t, "g", "s", time.Now(), "yes", "no")
	for e := range stream.Events() {
		u, ok := e.(*types.StartLiveTailResponseStreamMemberSessionUpdate)
		if !ok {
			t.Fatalf("event %+v", e)
		}
		if len(u.Value.SessionResults) == 0 {
			continue
		}
		r := u.Value.SessionResults
		if len(r) != 1 || *r[0].Message != "yes" || *r[0].LogStreamName != "s" || u.Value.SessionMetadata.Sampled {
			t.Errorf("update %+v", u.Value)
		}
		break
	}
	if err := stream.Err(); err != nil {
		t.Error(err)
	}

	for _, tt := range []struct {
		in            cloudwatchlogs.StartLiveTailInput
		code, message string
	}{
		{cloudwatchlogs.StartLiveTailInput{LogGroupIdentifiers: []string{arn + "x"}}, "ResourceNotFoundException", "The specified log group does not exist."},
		{cloudwatchlogs.StartLiveTailInput{LogGroupIdentifiers: []string{arn}, LogEventFilterPattern: sdk.String("{")}, "InvalidParameterException", "Invalid filter pattern"},
		{cloudwatchlogs.StartLiveTailInput{LogGroupIdentifiers: []string{arn}, LogStreamNames: []string{"s"}, LogStreamNamePrefixes: []string{"s"}}, "InvalidParameterException", "mutually exclusive"},
	} {
		_, err := f.another().StartLiveTail(t.Context(), &tt.in)
		wantError(t, err, tt.code, tt.message)
	}
	second, err := f.another().StartLiveTail(t.Context(), &cloudwatchlogs.StartLiveTailInput{LogGroupIdentifiers: []string{arn}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.another().StartLiveTail(t.Context(), &cloudwatchlogs.StartLiveTailInput{LogGroupIdentifiers: []string{arn}})
	wantError(t, err, "LimitExceededException", "2 concurrent")
	second.GetStream().Close()
	for deadline := time.Now().Add(time.Minute); ; {
		third, err := f.another().StartLiveTail(t.Context(), &cloudwatchlogs.StartLiveTailInput{LogGroupIdentifiers: []string{arn}})
		if err == nil {
			third.GetStream().Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("an ended session still counts: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
