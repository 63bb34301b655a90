package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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
// standard and real-time logs of distributions that have some.
type edgeLog struct {
	metrics *metrics.CloudFront
	files   *accesslog.Writer
	streams *accesslog.Streamer
}

func newEdgeLog(s *server, n *edgeNode, signer *originSigner) *edgeLog {
	d := &logDelivery{n.own, signer}
	l := &edgeLog{
		metrics: metrics.NewCloudFront(s.edgeMetrics()),
		files:   accesslog.New(accesslog.Options{Objects: d, Logger: s.log}),
		streams: accesslog.NewStreamer(accesslog.StreamOptions{Streams: d, Logger: s.log, Config: func(arn string) (distribution.RealtimeLog, bool) {
			c, ok := n.records.RealtimeLogs.Get(arn)
			return c.Value, ok
		}}),
	}
	s.onClose(func(context.Context) error { l.metrics.Close(); return nil })
	return l
}

func (l *edgeLog) take(r *accesslog.Record) {
	l.metrics.Served(r.Distribution.ID, r.Status, r.BytesSent, r.BytesReceived, r.Detail)
	l.files.Log(r)
	l.streams.Log(r)
}

// count takes a hit that no log wants a record of.
func (l *edgeLog) count(d *distribution.Distribution, status int, sent, received int64) {
	l.metrics.Served(d.ID, status, sent, received, "")
}

// close delivers what there is.
func (l *edgeLog) close() {
	l.files.Close()
	l.streams.Close()
}

// logDelivery puts log files into buckets, and records into data streams, the way
// that the location reaches the buckets of its origins, be they in this process or
// at the core.
type logDelivery struct {
	own    *ownOrigins
	signer *originSigner
}

// PutObject implements accesslog.Objects.
func (d *logDelivery) PutObject(ctx context.Context, bucket, key string, body []byte) error {
	u := url.URL{Scheme: "http", Host: bucket + ".s3." + d.own.region + ".amazonaws.com", Path: "/" + key}
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-gzip")
	_, err = d.send(ctx, r, "s3", body)
	return err
}

// PutRecords implements accesslog.Streams.
func (d *logDelivery) PutRecords(ctx context.Context, stream string, entries []accesslog.Entry) (refused []int, err error) {
	type record struct {
		Data         []byte
		PartitionKey string
	}
	in := struct {
		StreamARN string
		Records   []record
	}{StreamARN: stream}
	for _, e := range entries {
		in.Records = append(in.Records, record{e.Data, e.Key})
	}
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://kinesis."+d.own.region+".amazonaws.com/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "Kinesis_20131202.PutRecords")
	answer, err := d.send(ctx, r, "kinesis", body)
	if err != nil {
		return nil, err
	}
	var out struct {
		Records []struct{ ErrorCode *string }
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		return nil, fmt.Errorf("kinesis answers what is not understood: %w", err)
	}
	for i, r := range out.Records {
		if r.ErrorCode != nil && i < len(entries) {
			refused = append(refused, i)
		}
	}
	return refused, nil
}

// maxDeliveryAnswer bounds what an answer to a delivery has, in bytes: the results
// of 500 records.
const maxDeliveryAnswer = 1 << 20

// send signs a request, sends it to the endpoint and returns its answer.
func (d *logDelivery) send(ctx context.Context, r *http.Request, service string, body []byte) ([]byte, error) {
	sum := sha256.Sum256(body)
	if err := d.signer.Sign(ctx, r, service, hex.EncodeToString(sum[:])); err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.own.listener.dial(ctx) }}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxDeliveryAnswer))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		const enough = 1 << 10
		return nil, fmt.Errorf("%s answers %s: %s", service, answer.Status, text[:min(enough, len(text))])
	}
	return text, nil
}
