package acceptance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"lapwing.dev/lapwing/test/harness"
)

// objects is what the async function has left in the bucket.
type objects struct {
	*s3.Client
	t *testing.T
}

func newObjects(t *testing.T, s *harness.Server) objects {
	return objects{s3.NewFromConfig(s.Config(), func(o *s3.Options) { o.UsePathStyle = true }), t}
}

func (o objects) create() {
	o.t.Helper()
	if _, err := o.CreateBucket(o.t.Context(), &s3.CreateBucketInput{Bucket: aws.String("runs")}); err != nil {
		o.t.Fatal(err)
	}
}

func (o objects) keys(prefix string) (keys []string) {
	o.t.Helper()
	for p := s3.NewListObjectsV2Paginator(o, &s3.ListObjectsV2Input{Bucket: aws.String("runs"), Prefix: &prefix}); p.HasMorePages(); {
		page, err := p.NextPage(o.t.Context())
		if err != nil {
			o.t.Fatal(err)
		}
		for _, object := range page.Contents {
			keys = append(keys, *object.Key)
		}
	}
	return keys
}

// wait waits until there are n objects with a prefix.
func (o objects) wait(prefix string, n int) []string {
	o.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		if keys := o.keys(prefix); len(keys) >= n {
			return keys
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("only %v of %d with the prefix %s", o.keys(prefix), n, prefix)
		}
	}
}

// kept is what the async function was invoked with.
type kept struct {
	Event struct {
		ID             string
		Version        string
		RequestContext struct {
			RequestID, FunctionArn, Condition string
			ApproximateInvokeCount            int
		}
		RequestPayload  struct{ ID string }
		ResponseContext *struct {
			StatusCode                     int
			ExecutedVersion, FunctionError string
		}
		ResponsePayload json.RawMessage
	}
	Custom map[string]string
}

func (o objects) get(key string) (k kept) {
	o.t.Helper()
	out, err := o.GetObject(o.t.Context(), &s3.GetObjectInput{Bucket: aws.String("runs"), Key: &key})
	if err != nil {
		o.t.Fatal(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		o.t.Fatalf("%s: %v", b, err)
	}
	return k
}

func TestAKillLosesNoAcceptedEvent(t *testing.T) {
	t.Parallel()
	s := start(t)
	newObjects(t, s).create()
	deployProgram(t, s, "async", "async", 1769)
	const perRound = 100
	var accepted []string
	for round := range 3 {
		c := lambda.NewFromConfig(s.Config())
		var mu sync.Mutex
		var wg sync.WaitGroup
		var next, acks atomic.Int64
		killed := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				for {
					select {
					case <-killed:
						return
					default:
					}
					id := fmt.Sprintf("%d-%d", round, next.Add(1))
					out, err := c.Invoke(context.Background(), &lambda.InvokeInput{
						FunctionName: aws.String("async"), InvocationType: types.InvocationTypeEvent, Payload: fmt.Appendf(nil, `{"id":%q}`, id),
					})
					if err != nil {
						continue // the kill; whether the event was accepted is unknown
					}
					if out.StatusCode != http.StatusAccepted {
						t.Errorf("status %d", out.StatusCode)
					}
					mu.Lock()
					accepted = append(accepted, id)
					mu.Unlock()
					if acks.Add(1) == perRound {
						if err := s.Kill(); err != nil && !strings.Contains(err.Error(), "killed") {
							t.Error(err)
						}
						close(killed)
					}
				}
			})
		}
		wg.Wait()
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	o := newObjects(t, s)
	missing := map[string]bool{}
	for _, id := range accepted {
		missing[id] = true
	}
	for deadline := time.Now().Add(2 * patience); len(missing) > 0; time.Sleep(200 * time.Millisecond) {
		keys := o.keys("runs/")
		for _, key := range keys {
			delete(missing, strings.Split(key, "/")[1])
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d accepted events have not run", len(missing), len(accepted))
		}
	}
	t.Logf("%d accepted events ran, with %d kills in between", len(accepted), 3)
}

func TestOutcomesOfEventsGoToTheirDestinations(t *testing.T) {
	t.Parallel()
	s := start(t)
	o := newObjects(t, s)
	o.create()
	c := deployProgram(t, s, "records", "async", 1769)
	deployProgram(t, s, "dead", "async", 1769)
	deployProgram(t, s, "async", "async", 1769)
	arn := func(name string) *string {
		return aws.String("arn:aws:lambda:" + s.Env["AWS_REGION"] + ":" + s.Account() + ":function:" + name)
	}
	_, err := c.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{
		FunctionName: aws.String("async"), DeadLetterConfig: &types.DeadLetterConfig{TargetArn: arn("dead")},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := lambda.NewFunctionUpdatedV2Waiter(c, func(o *lambda.FunctionUpdatedV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := w.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: aws.String("async")}, patience); err != nil {
		t.Fatal(err)
	}
	put, err := c.PutFunctionEventInvokeConfig(t.Context(), &lambda.PutFunctionEventInvokeConfigInput{
		FunctionName: aws.String("async"), MaximumRetryAttempts: aws.Int32(0), MaximumEventAgeInSeconds: aws.Int32(3600),
		DestinationConfig: &types.DestinationConfig{OnSuccess: &types.OnSuccess{Destination: arn("records")}, OnFailure: &types.OnFailure{Destination: arn("records")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if *put.FunctionArn != *arn("async")+":$LATEST" || time.Since(*put.LastModified).Abs() > time.Hour {
		t.Errorf("%s %v", *put.FunctionArn, put.LastModified)
	}
	for _, e := range []struct {
		payload, condition, functionError string
		dead                              int
	}{
		{`{"id":"good"}`, "Success", "", 0},
		{`{"id":"bad","fail":true}`, "RetriesExhausted", "Unhandled", 1},
	} {
		before := o.keys("records/records/")
		if _, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("async"), InvocationType: types.InvocationTypeEvent, Payload: []byte(e.payload)}); err != nil {
			t.Fatal(err)
		}
		var r kept
		for _, key := range o.wait("records/records/", len(before)+1) {
			if k := o.get(key); k.Event.RequestContext.Condition == e.condition {
				r = k
			}
		}
		if r.Event.Version != "1.0" || r.Event.RequestContext.FunctionArn != *put.FunctionArn || r.Event.RequestContext.ApproximateInvokeCount != 1 ||
			r.Event.ResponseContext == nil || r.Event.ResponseContext.FunctionError != e.functionError || r.Event.ResponseContext.ExecutedVersion != "$LATEST" || r.Event.ResponseContext.StatusCode != 200 {
			t.Errorf("%s: %+v", e.payload, r.Event)
		}
		if run := "runs/" + r.Event.RequestPayload.ID + "/" + r.Event.RequestContext.RequestID; len(o.keys(run)) != 1 {
			t.Errorf("%s: there is no %s", e.payload, run)
		}
		for range e.dead {
			k := o.get(o.wait("runs/bad/", 2)[0]) // the event, run by the dead-letter function
			if k.Custom == nil {
				k = o.get(o.keys("runs/bad/")[1])
			}
			if k.Custom["ErrorCode"] != "200" || k.Custom["ErrorMessage"] != "broken" || k.Custom["RequestID"] != r.Event.RequestContext.RequestID {
				t.Errorf("dead letter: %+v", k.Custom)
			}
		}
	}
	_, err = c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("async"), InvocationType: types.InvocationTypeEvent, Payload: []byte(`"` + strings.Repeat("x", 1<<20) + `"`)})
	var response *awshttp.ResponseError
	if !errors.As(err, &response) || response.HTTPStatusCode() != http.StatusRequestEntityTooLarge {
		t.Errorf("an event over the limit: %v", err)
	}
}

func TestAFunctionThatInvokesItselfIsStopped(t *testing.T) {
	t.Parallel()
	s := start(t)
	o := newObjects(t, s)
	o.create()
	c := deployProgram(t, s, "records", "async", 1769)
	deployProgram(t, s, "async", "async", 1769)
	_, err := c.PutFunctionEventInvokeConfig(t.Context(), &lambda.PutFunctionEventInvokeConfigInput{
		FunctionName: aws.String("async"), MaximumRetryAttempts: aws.Int32(0),
		DestinationConfig: &types.DestinationConfig{OnFailure: &types.OnFailure{Destination: aws.String("arn:aws:lambda:" + s.Env["AWS_REGION"] + ":" + s.Account() + ":function:records")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// The SDK inside the function passes the trace header on.
	if _, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("async"), InvocationType: types.InvocationTypeEvent, Payload: []byte(`{"id":"loop","call":"Event"}`)}); err != nil {
		t.Fatal(err)
	}
	k := o.get(o.wait("records/records/", 1)[0])
	if k.Event.RequestContext.ApproximateInvokeCount != 0 || k.Event.RequestPayload.ID != "loop" {
		t.Errorf("%+v", k.Event)
	}
	if n := len(o.keys("runs/loop/")); n != 16 {
		t.Errorf("the function ran %d times", n)
	}
	out, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("async"), Payload: []byte(`{"id":"deep","call":"RequestResponse"}`)})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(o.wait("runs/deep/", 16)); n != 16 {
		t.Errorf("the function ran %d times, nested: %s", n, out.Payload)
	}
}
