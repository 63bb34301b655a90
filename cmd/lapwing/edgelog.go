package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"lapwing.dev/lapwing/internal/edge/accesslog"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/metrics"
)

// edgeLog takes what requests of viewers leave: for the metrics, and for the
// standard logs of distributions that have some.
type edgeLog struct {
	metrics *metrics.CloudFront
	files   *accesslog.Writer
}

func (l *edgeLog) take(r *accesslog.Record) {
	l.metrics.Served(r.Distribution.ID, r.Status, r.BytesSent, r.BytesReceived, r.Detail)
	l.files.Log(r)
}

// count takes a hit that no log wants a record of.
func (l *edgeLog) count(d *distribution.Distribution, status int, sent, received int64) {
	l.metrics.Served(d.ID, status, sent, received, "")
}

// logBuckets puts log files into buckets the way that the location reaches the
// buckets of its origins, be they in this process or at the core.
type logBuckets struct {
	own    *ownOrigins
	signer *originSigner
}

// PutObject implements accesslog.Objects.
func (b *logBuckets) PutObject(ctx context.Context, bucket, key string, body []byte) error {
	host := bucket + ".s3." + b.own.region + ".amazonaws.com"
	dial, ok := b.own.dial(host)
	if !ok {
		return fmt.Errorf("%s is no bucket's name here", host)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	u := url.URL{Scheme: "http", Host: host, Path: "/" + key}
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-gzip")
	sum := sha256.Sum256(body)
	if err := b.signer.Sign(ctx, r, "s3", hex.EncodeToString(sum[:])); err != nil {
		return err
	}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		const enough = 1 << 10
		text, _ := io.ReadAll(io.LimitReader(answer.Body, enough)) // of the error, as far as it goes
		return fmt.Errorf("S3 answers %s: %s", answer.Status, text)
	}
	return nil
}
