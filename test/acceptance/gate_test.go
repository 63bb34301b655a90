package acceptance_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"lapwing.dev/lapwing/test/harness"
)

// patience is how long a test waits for what must happen on any machine.
const patience = 5 * time.Minute

// gate holds functions up until it opens, so that tests do not guess how long
// something takes: an object that is not there before.
type gate struct {
	URL  string // what functions ask for until it is there
	open func()
}

// gates counts them.
var gates atomic.Int64

func newGate(t *testing.T, s *harness.Server) *gate {
	t.Helper()
	bucket, key := fmt.Sprint("gate-", gates.Add(1)), aws.String("open")
	c := s3.NewFromConfig(s.Config(), func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	inside := s3.NewPresignClient(c, s3.WithPresignExpires(time.Hour), s3.WithPresignClientFromClientOptions(func(o *s3.Options) {
		o.BaseEndpoint = aws.String("http://lapwing.internal:4566")
	}))
	url, err := inside.PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return &gate{URL: url.URL, open: func() {
		_, err := c.PutObject(context.WithoutCancel(t.Context()), &s3.PutObjectInput{Bucket: &bucket, Key: key, Body: strings.NewReader("yes")})
		if err != nil {
			t.Errorf("opening the gate: %v", err)
		}
	}}
}
