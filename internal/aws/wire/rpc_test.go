package wire_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	cwclient "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	client "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	sqsclient "github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/fxamacker/cbor/v2"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/logs"
	cloudwatch "lapwing.dev/lapwing/internal/aws/wire/internal/testapi/cloudwatchtest"
	"lapwing.dev/lapwing/internal/aws/wire/internal/testapi/sqs"
)

type logsAPI struct {
	logs.API
	put  *logs.PutLogEventsInput
	tail func(yield func(*logs.StartLiveTailResponseStream, error) bool)
}

func (a *logsAPI) PutLogEvents(_ context.Context, in *logs.PutLogEventsInput) (*logs.PutLogEventsOutput, error) {
	a.put = in
	return &logs.PutLogEventsOutput{NextSequenceToken: aws.Ptr("t"), RejectedLogEventsInfo: &logs.RejectedLogEventsInfo{TooOldLogEventEndIndex: aws.Ptr(int32(1))}}, nil
}

func (a *logsAPI) DeleteLogGroup(context.Context, *logs.DeleteLogGroupInput) (*logs.DeleteLogGroupOutput, error) {
	return nil, logs.NewResourceNotFoundException("The specified log group does not exist.")
}

func (a *logsAPI) StartLiveTail(context.Context, *logs.StartLiveTailInput) (*logs.StartLiveTailOutput, error) {
	return &logs.StartLiveTailOutput{ResponseStream: a.tail}, nil
}

func logsClient(t *testing.T, api *logsAPI) (*client.Client, string) {
	address, _ := serve(t, logs.NewService(api))
	host := strings.TrimPrefix(address, "http://")
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, host) // for stream-127.0.0.1, too
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return client.NewFromConfig(config(address), func(o *client.Options) { o.HTTPClient = &http.Client{Transport: transport} }), address
}

func TestAWSJSONRoundTrip(t *testing.T) {
	api := &logsAPI{}
	c, _ := logsClient(t, api)
	out, err := c.PutLogEvents(t.Context(), &client.PutLogEventsInput{LogGroupName: sdk.String("g"), LogStreamName: sdk.String("s"),
		LogEvents: []types.InputLogEvent{{Message: sdk.String("line\x00\x1b[1m\U0001f426"), Timestamp: sdk.Int64(1<<53 + 1)}}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "events", api.put.LogEvents, []*logs.InputLogEvent{{Message: aws.Ptr("line\x00\x1b[1m\U0001f426"), Timestamp: aws.Ptr(int64(1<<53 + 1))}})
	equal(t, "output", []any{*out.NextSequenceToken, *out.RejectedLogEventsInfo.TooOldLogEventEndIndex}, []any{"t", int32(1)})
}

func TestAWSJSONErrorsAreTyped(t *testing.T) {
	c, address := logsClient(t, &logsAPI{})
	_, err := c.DeleteLogGroup(t.Context(), &client.DeleteLogGroupInput{LogGroupName: sdk.String("g")})
	if e, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok || *e.Message != "The specified log group does not exist." {
		t.Fatalf("got %v", err)
	}
	_, err = c.DeleteLogGroup(t.Context(), &client.DeleteLogGroupInput{LogGroupName: sdk.String("g g")})
	contains(t, apiError(t, err).ErrorMessage(), "1 validation error detected: Value 'g g' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: ")
	_, err = c.DescribeQueries(t.Context(), &client.DescribeQueriesInput{})
	equal(t, "code", apiError(t, err).ErrorCode(), "UnknownOperationException")
	contains(t, apiError(t, err).ErrorMessage(), `"DescribeQueries"`)

	resp, body := send(t, "POST", address, "{", "X-Amz-Target", "Logs_20140328.DeleteLogGroup")
	equal(t, "status", resp.StatusCode, 400)
	equal(t, "content type", resp.Header.Get("Content-Type"), "application/x-amz-json-1.1")
	contains(t, body, `"__type":"SerializationException"`)
	resp, _ = send(t, "POST", address, strings.Repeat(" ", 1<<20+1), "X-Amz-Target", "Logs_20140328.DeleteLogGroup")
	equal(t, "status of a large body", resp.StatusCode, 413)
}

func TestAWSJSONStreamBeginsWithTheInitialResponse(t *testing.T) {
	proceed := make(chan struct{})
	c, _ := logsClient(t, &logsAPI{tail: func(yield func(*logs.StartLiveTailResponseStream, error) bool) {
		if !yield(&logs.StartLiveTailResponseStream{SessionStart: &logs.LiveTailSessionStart{SessionId: aws.Ptr("id")}}, nil) {
			return
		}
		<-proceed // the client has the first event before there is a second
		if !yield(&logs.StartLiveTailResponseStream{SessionUpdate: &logs.LiveTailSessionUpdate{SessionResults: []*logs.LiveTailSessionLogEvent{{Message: aws.Ptr("m"), Timestamp: aws.Ptr(int64(7))}}}}, nil) {
			return
		}
		yield(nil, &aws.Error{Code: "SessionTimeoutException", Message: "The session has timed out."})
	}})
	out, err := c.StartLiveTail(t.Context(), &client.StartLiveTailInput{LogGroupIdentifiers: []string{"arn:aws:logs:us-east-1:123456789012:log-group:g"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for event := range out.GetStream().Events() {
		switch e := event.(type) {
		case *types.StartLiveTailResponseStreamMemberSessionStart:
			got = append(got, *e.Value.SessionId)
			close(proceed)
		case *types.StartLiveTailResponseStreamMemberSessionUpdate:
			got = append(got, *e.Value.SessionResults[0].Message)
		}
	}
	equal(t, "events", got, []string{"id", "m"})
	if _, ok := errors.AsType[*types.SessionTimeoutException](out.GetStream().Err()); !ok {
		t.Errorf("the stream ended with %v", out.GetStream().Err())
	}
}

type sqsAPI struct {
	sqs.API
	sent *sqs.SendMessageInput
}

func (a *sqsAPI) SendMessage(_ context.Context, in *sqs.SendMessageInput) (*sqs.SendMessageOutput, error) {
	if *in.QueueUrl == "missing" {
		return nil, sqs.NewQueueDoesNotExist("The specified queue does not exist.")
	}
	a.sent = in
	return &sqs.SendMessageOutput{MessageId: aws.Ptr("id")}, nil
}

func (a *sqsAPI) ReceiveMessage(context.Context, *sqs.ReceiveMessageInput) (*sqs.ReceiveMessageOutput, error) {
	return &sqs.ReceiveMessageOutput{Messages: []*sqs.Message{{MessageId: aws.Ptr("id"), MessageAttributes: a.sent.MessageAttributes}}}, nil
}

func TestAWSJSON10CarriesMapsOfBlobs(t *testing.T) {
	api := &sqsAPI{}
	address, _ := serve(t, sqs.NewService(api))
	c := sqsclient.NewFromConfig(config(address), func(o *sqsclient.Options) { o.DisableMessageChecksumValidation = true })
	attributes := map[string]sqstypes.MessageAttributeValue{"blob": {DataType: sdk.String("Binary"), BinaryValue: []byte{0, 255}, BinaryListValues: [][]byte{{1}, {2, 3}}}, "text": {DataType: sdk.String("String"), StringValue: sdk.String("")}}
	if _, err := c.SendMessage(t.Context(), &sqsclient.SendMessageInput{QueueUrl: sdk.String("q"), MessageBody: sdk.String("b"), MessageAttributes: attributes}); err != nil {
		t.Fatal(err)
	}
	equal(t, "blob", api.sent.MessageAttributes["blob"], &sqs.MessageAttributeValue{DataType: aws.Ptr("Binary"), BinaryValue: []byte{0, 255}, BinaryListValues: [][]byte{{1}, {2, 3}}})
	out, err := c.ReceiveMessage(t.Context(), &sqsclient.ReceiveMessageInput{QueueUrl: sdk.String("q")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "attributes", out.Messages[0].MessageAttributes, attributes)
	_, err = c.SendMessage(t.Context(), &sqsclient.SendMessageInput{QueueUrl: sdk.String("missing"), MessageBody: sdk.String("b")})
	if _, ok := errors.AsType[*sqstypes.QueueDoesNotExist](err); !ok {
		t.Fatalf("got %v", err)
	}
	resp, _ := send(t, "POST", address, `{"QueueUrl":"missing","MessageBody":"b"}`, "X-Amz-Target", "AmazonSQS.SendMessage")
	equal(t, "query-compatible error", resp.Header.Get("X-Amzn-Query-Error"), "QueueDoesNotExist;Sender")
}

type cloudwatchAPI struct {
	cloudwatch.API
	put *cloudwatch.PutMetricDataInput
	get *cloudwatch.GetMetricDataInput
}

func (a *cloudwatchAPI) PutMetricData(_ context.Context, in *cloudwatch.PutMetricDataInput) (*cloudwatch.PutMetricDataOutput, error) {
	a.put = in
	return &cloudwatch.PutMetricDataOutput{}, nil
}

func (a *cloudwatchAPI) GetMetricData(_ context.Context, in *cloudwatch.GetMetricDataInput) (*cloudwatch.GetMetricDataOutput, error) {
	a.get = in
	return &cloudwatch.GetMetricDataOutput{MetricDataResults: []*cloudwatch.MetricDataResult{{Id: aws.Ptr("m1"), Timestamps: []time.Time{moment, moment.Add(1500 * time.Millisecond)},
		Values: []float64{0, -1.5, 1e300, math.Inf(1)}, StatusCode: cloudwatch.StatusCodeComplete}}}, nil
}

func (a *cloudwatchAPI) GetMetricWidgetImage(context.Context, *cloudwatch.GetMetricWidgetImageInput) (*cloudwatch.GetMetricWidgetImageOutput, error) {
	return &cloudwatch.GetMetricWidgetImageOutput{MetricWidgetImage: []byte{0x89, 'P', 0, 255}}, nil
}

func (a *cloudwatchAPI) DeleteDashboards(context.Context, *cloudwatch.DeleteDashboardsInput) (*cloudwatch.DeleteDashboardsOutput, error) {
	return nil, cloudwatch.NewInvalidParameterValueException("no such dashboard")
}

func TestCBORRoundTrip(t *testing.T) {
	api := &cloudwatchAPI{}
	address, _ := serve(t, cloudwatch.NewService(api))
	c := cwclient.NewFromConfig(config(address))
	if _, err := c.PutMetricData(t.Context(), &cwclient.PutMetricDataInput{Namespace: sdk.String("N"), StrictEntityValidation: sdk.Bool(true),
		MetricData: []cwtypes.MetricDatum{{MetricName: sdk.String("m"), Timestamp: aws.Ptr(moment.Add(250 * time.Millisecond)), Values: []float64{1, 2.5}, Unit: cwtypes.StandardUnitSeconds, StorageResolution: sdk.Int32(60),
			Dimensions: []cwtypes.Dimension{{Name: sdk.String("d"), Value: sdk.String("v")}}}}}); err != nil {
		t.Fatal(err)
	}
	equal(t, "input", api.put, &cloudwatch.PutMetricDataInput{Namespace: aws.Ptr("N"), StrictEntityValidation: aws.Ptr(true),
		MetricData: []*cloudwatch.MetricDatum{{MetricName: aws.Ptr("m"), Timestamp: aws.Ptr(moment.Add(250 * time.Millisecond)), Values: []float64{1, 2.5}, Unit: cloudwatch.StandardUnitSeconds, StorageResolution: aws.Ptr(int32(60)),
			Dimensions: []*cloudwatch.Dimension{{Name: aws.Ptr("d"), Value: aws.Ptr("v")}}}}})
	out, err := c.GetMetricData(t.Context(), &cwclient.GetMetricDataInput{StartTime: aws.Ptr(moment), EndTime: aws.Ptr(moment), MetricDataQueries: []cwtypes.MetricDataQuery{{Id: sdk.String("m1")}}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "start", *api.get.StartTime, moment)
	result := out.MetricDataResults[0]
	equal(t, "times", []time.Time{result.Timestamps[0].UTC(), result.Timestamps[1].UTC()}, []time.Time{moment, moment.Add(1500 * time.Millisecond)})
	equal(t, "values", result.Values, []float64{0, -1.5, 1e300, math.Inf(1)})
	image, err := c.GetMetricWidgetImage(t.Context(), &cwclient.GetMetricWidgetImageInput{MetricWidget: sdk.String("{}")})
	if err != nil || !bytes.Equal(image.MetricWidgetImage, []byte{0x89, 'P', 0, 255}) {
		t.Errorf("got %v, %v", image, err)
	}
}

func TestErrorIsNamedAsEachProtocolDoes(t *testing.T) {
	address, _ := serve(t, cloudwatch.NewService(&cloudwatchAPI{}))
	_, err := cwclient.NewFromConfig(config(address)).DeleteDashboards(t.Context(), &cwclient.DeleteDashboardsInput{DashboardNames: []string{"d"}})
	if e, ok := errors.AsType[*cwtypes.InvalidParameterValueException](err); !ok || *e.Message != "no such dashboard" {
		t.Fatalf("over CBOR: %v", err)
	}
	resp, body := send(t, "POST", address, `{"DashboardNames":["d"]}`, "X-Amz-Target", "GraniteServiceVersion20100801.DeleteDashboards", "Content-Type", "application/x-amz-json-1.0")
	equal(t, "status over JSON", resp.StatusCode, 400)
	equal(t, "compatible code", resp.Header.Get("X-Amzn-Query-Error"), "InvalidParameterValue;Sender")
	contains(t, body, `"__type":"InvalidParameterValueException"`)
	resp, body = send(t, "POST", address, "Action=DeleteDashboards&DashboardNames.member.1=d", "Content-Type", "application/x-www-form-urlencoded")
	equal(t, "status over Query", resp.StatusCode, 400)
	contains(t, body, "<Code>InvalidParameterValue</Code>")
}

func TestCompressedBodiesAreExpandedWithinTheLimit(t *testing.T) {
	address, _ := serve(t, cloudwatch.NewService(&cloudwatchAPI{}))
	compress := func(s string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(s)) // to memory
		_ = z.Close()
		return b.String()
	}
	target := []string{"X-Amz-Target", "GraniteServiceVersion20100801.PutMetricData", "Content-Encoding", "gzip"}
	for _, tt := range []struct {
		body string
		want int
	}{
		{compress(`{"Namespace":"N"}`), 200}, {compress(strings.Repeat(" ", 2<<20)), 413}, {"{}", 400}, {compress("{}")[:15], 400},
	} {
		resp, body := send(t, "POST", address, tt.body, target...)
		if resp.StatusCode != tt.want {
			t.Errorf("got status %d, want %d: %s", resp.StatusCode, tt.want, body)
		}
	}
	form := []string{"Content-Type", "application/x-www-form-urlencoded", "Content-Encoding", "gzip"}
	resp, _ := send(t, "POST", address, compress("Action=PutMetricData&Namespace=N"), form...)
	equal(t, "status of a form", resp.StatusCode, 200)
	resp, _ = send(t, "POST", address, compress("Action=PutMetricData&x="+strings.Repeat("y", 2<<20)), form...)
	equal(t, "status of a large form", resp.StatusCode, 413)
}

func TestMalformedCBORIsRefused(t *testing.T) {
	address, _ := serve(t, cloudwatch.NewService(&cloudwatchAPI{}))
	encode := func(v any) string {
		b, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, body := range map[string]string{
		"not CBOR": "{}", "cut off": encode(map[string]any{"Namespace": "N"})[:5], "a list": encode([]int{1}), "wrong kind": encode(map[string]any{"Namespace": 1}),
		"key is no text": encode(map[int]int{1: 2}), "deep": strings.Repeat("\x81", 1000) + "\x80", "huge length": "\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
		"bignum": encode(map[string]any{"MetricData": []any{map[string]any{"StorageResolution": cbor.Tag{Number: 2, Content: make([]byte, 16)}}}}),
	} {
		t.Run(name, func(t *testing.T) {
			resp, text := send(t, "POST", address+"/service/GraniteServiceVersion20100801/operation/PutMetricData", body, "Smithy-Protocol", "rpc-v2-cbor", "Content-Type", "application/cbor")
			equal(t, "status", resp.StatusCode, 400)
			equal(t, "protocol", resp.Header.Get("Smithy-Protocol"), "rpc-v2-cbor")
			var e map[string]string
			if err := cbor.Unmarshal([]byte(text), &e); err != nil || e["__type"] != "SerializationException" {
				t.Errorf("got %v, %v", e, err)
			}
		})
	}
	resp, _ := send(t, "POST", address+"/service/GraniteServiceVersion20100801/operation/ListMetrics", "", "Smithy-Protocol", "rpc-v2-cbor")
	equal(t, "status of an unserved operation", resp.StatusCode, 501)
}
