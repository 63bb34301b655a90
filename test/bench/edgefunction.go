package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

// edgeTemplate is a distribution with the same object twice: below /plain without
// a function, and below /function behind one that returns the request as it is.
const edgeTemplate = `AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement: [{Effect: Allow, Principal: {Service: [lambda.amazonaws.com, edgelambda.amazonaws.com]}, Action: "sts:AssumeRole"}]
  Same:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: edge-same
      Runtime: %s
      Handler: index.handler
      MemorySize: %d
      Role: !GetAtt Role.Arn
      AutoPublishAlias: live
      InlineCode: "exports.handler = async (event) => event.Records[0].cf.request;"
  Distribution:
    Type: AWS::CloudFront::Distribution
    Properties:
      DistributionConfig:
        Enabled: true
        Origins: [{Id: o, DomainName: localhost, CustomOriginConfig: {OriginProtocolPolicy: http-only, HTTPPort: %s}}]
        DefaultCacheBehavior: {TargetOriginId: o, ViewerProtocolPolicy: allow-all, CachePolicyId: 658327ea-f89d-4fab-a63d-7e88639e58f6}
        CacheBehaviors:
          - PathPattern: /function/*
            TargetOriginId: o
            ViewerProtocolPolicy: allow-all
            CachePolicyId: 658327ea-f89d-4fab-a63d-7e88639e58f6
            LambdaFunctionAssociations: [{EventType: viewer-request, LambdaFunctionARN: !Ref Same.Version}]
Outputs: {DomainName: {Value: !GetAtt Distribution.DomainName}}
`

// maxEdgeFunction is what a viewer-request function that is warm may add to a hit.
const maxEdgeFunction = time.Millisecond

// edgeFunction measures what a viewer-request function adds to a hit, beside what
// its invocation through the Lambda API costs less what HTTP, the signature and
// the API alone do, which a dry run shows.
func (b *bench) edgeFunction(ctx context.Context) error {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = w.Write(payload) // a viewer that is gone shows at its own end
	}))
	defer origin.Close()
	domain, err := b.deployEdge(origin.Listener.Addr())
	if err != nil {
		return err
	}
	client := lambda.NewFromConfig(b.server.Config())
	name, alias := "edge-same", "live"
	event := []byte(`{"Records":[{"cf":{"request":{"clientIp":"127.0.0.1","method":"GET","uri":"/","querystring":"","headers":{}}}}]}`)
	invoke := func(how types.InvocationType) func() error {
		return func() error {
			out, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, Qualifier: &alias, Payload: event, InvocationType: how})
			if err == nil && out.FunctionError != nil {
				err = fmt.Errorf("%s: %s", *out.FunctionError, out.Payload)
			}
			return err
		}
	}
	hit := func(path string) func() error { return func() error { return b.hit(ctx, domain, path) } }
	const plain, function, invocation, dry = "hit", "hit behind a function", "invocation", "dry run"
	measured := map[string]func() error{
		plain: hit("/plain/a"), function: hit("/function/a"), invocation: invoke(types.InvocationTypeRequestResponse), dry: invoke(types.InvocationTypeDryRun),
	}
	times := map[string][]time.Duration{}
	for turn := range turns + 1 {
		for what, f := range measured {
			for began := time.Now(); time.Since(began) < b.duration/turns; {
				start := time.Now()
				if err := f(); err != nil {
					return fmt.Errorf("%s: %w", what, err)
				}
				if turn > 0 { // the first one warms up
					times[what] = append(times[what], time.Since(start))
				}
			}
		}
	}
	p50 := func(what string) time.Duration { return loadOf(times[what]).percentile(.5) }
	floor := p50(invocation) - p50(dry)
	b.report.atMost("a warm viewer-request function adds to a hit, p50", "an invocation less HTTP and SigV4", floor, p50(function)-p50(plain), 2)
	b.report.atMostMore("a hit behind a warm viewer-request function, p50", "a hit", p50(plain), p50(function), maxEdgeFunction)
	b.report.note("p50 of %s %s, %s %s, %s %s, %s %s", plain, short(p50(plain)), function, short(p50(function)), invocation, short(p50(invocation)), dry, short(p50(dry)))
	return nil
}

var domainOutput = regexp.MustCompile(`DomainName = (\S+)`)

// deployEdge deploys the distribution and returns its domain name.
func (b *bench) deployEdge(origin net.Addr) (string, error) {
	_, port, err := net.SplitHostPort(origin.String())
	if err != nil {
		return "", err
	}
	file := filepath.Join(b.dir, "edge.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, edgeTemplate, nodeRuntime, memoryMB, port), 0o644); err != nil {
		return "", err
	}
	out, err := b.server.Run("deploy", file)
	m := domainOutput.FindSubmatch(out)
	if err != nil || m == nil {
		return "", fmt.Errorf("deploy: %w\n%s", errors.Join(err, errors.New("no distribution")), out)
	}
	return string(m[1]), nil
}

// hit asks the distribution for an object.
func (b *bench) hit(ctx context.Context, domain, path string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.server.URL()+path, nil)
	if err != nil {
		return err
	}
	r.Host = domain
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || len(body) != len(payload)) {
		err = fmt.Errorf("%s: %s: %.300s", path, res.Status, body)
	}
	return err
}
