package wire_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/aws/logs"
	"lapwing.dev/lapwing/internal/aws/wire"
)

// discard is a ResponseWriter that keeps nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// BenchmarkInvoke is what the wire adds to one invocation with 1 KB each way:
// finding the operation, decoding, validating and encoding.
func BenchmarkInvoke(b *testing.B) {
	payload := bytes.Repeat([]byte("x"), 1024)
	svc := lambda.NewService(lambdaAPI{invoke: func(in *lambda.InvokeInput) (*lambda.InvokeOutput, error) {
		return &lambda.InvokeOutput{StatusCode: aws.Ptr(int32(200)), ExecutedVersion: aws.Ptr("$LATEST"), Payload: in.Payload}, nil
	}})
	target := &url.URL{Path: "/2015-03-31/functions/hello/invocations"}
	body := bytes.NewReader(payload)
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(payload)
		r := &http.Request{Method: "POST", URL: target, Header: http.Header{"Content-Type": {"application/octet-stream"}}, Body: io.NopCloser(body), ContentLength: 1024}
		call, err := wire.Find(svc, r)
		if err == nil {
			err = call.Serve(b.Context(), discard{http.Header{}}, r)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPutLogEvents decodes a document of 100 elements.
func BenchmarkPutLogEvents(b *testing.B) {
	doc := []byte(`{"logGroupName":"g","logStreamName":"s","logEvents":[`)
	for i := range 100 {
		if i > 0 {
			doc = append(doc, ',')
		}
		doc = append(doc, `{"timestamp":1700000000000,"message":"a line of the log of a function, not too long"}`...)
	}
	doc = append(doc, "]}"...)
	svc := logs.NewService(&logsAPI{})
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(doc))
		r.Header.Set("X-Amz-Target", "Logs_20140328.PutLogEvents")
		call, err := wire.Find(svc, r)
		if err == nil {
			err = call.Serve(b.Context(), discard{http.Header{}}, r)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
