package conformance_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"lapwing.dev/lapwing/test/harness"
)

// bucket makes a bucket with an object "greeting" in it.
func bucket(t *testing.T, c *s3.Client, name string) {
	t.Helper()
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &name, Key: aws.String("greeting"), Body: strings.NewReader("hello")}); err != nil {
		t.Fatal(err)
	}
}

func pathStyle(o *s3.Options) { o.UsePathStyle = true }

// fetch makes a request and returns the response with its body.
func fetch(t *testing.T, c *http.Client, method, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestAWSCLIOverTLSTrustsWhatEnvPrints(t *testing.T) {
	t.Parallel()
	s, err := harness.Start(filepath.Join(t.TempDir(), "data"), "--tls", "--domain", "lapwing.test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, s.Log())
		}
	})
	if !strings.HasPrefix(s.URL(), "https://") {
		t.Fatalf("endpoint %s", s.URL())
	}
	cli := func(env []string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "aws", append([]string{"--endpoint-url", s.URL()}, args...)...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := cli(s.Environ(), "sts", "get-caller-identity", "--query", "Arn", "--output", "text")
	if want := "arn:aws:iam::" + s.Account() + ":root\n"; err != nil || out != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
	untrusting := slices.DeleteFunc(s.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "AWS_CA_BUNDLE=") })
	untrusting = append(untrusting, "AWS_MAX_ATTEMPTS=1")
	if out, err := cli(untrusting, "sts", "get-caller-identity"); err == nil || !strings.Contains(out, "CERTIFICATE_VERIFY_FAILED") {
		t.Errorf("without AWS_CA_BUNDLE: %v: %s", err, out)
	}

	// HTTP/2 is agreed on by TLS; the certificate is good for every name.
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.HTTPClient()
	if err != nil {
		t.Fatal(err)
	}
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, u.Host)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "lapwing.test", "bucket.lapwing.test"} {
		resp, body := fetch(t, c, http.MethodGet, "https://"+net.JoinHostPort(host, u.Port())+"/_lapwing/health", nil)
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			t.Errorf("%s: %s %s: %s", host, resp.Proto, resp.Status, body)
		}
	}
}

func TestHTTP2WithPriorKnowledge(t *testing.T) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	seen := &protoRecorder{next: &http.Transport{Protocols: protocols}}
	cfg := server.Config()
	cfg.HTTPClient = &http.Client{Transport: seen}
	c := s3.NewFromConfig(cfg, pathStyle)
	bucket(t, c, "over-http2")
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("over-http2"), Key: aws.String("greeting")})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	if b, err := io.ReadAll(out.Body); err != nil || string(b) != "hello" {
		t.Errorf("object %q, %v", b, err)
	}
	if seen.major != 2 {
		t.Errorf("the answer came by HTTP/%d", seen.major)
	}
}

// protoRecorder keeps the HTTP version of the last response.
type protoRecorder struct {
	next  http.RoundTripper
	major int
}

func (p *protoRecorder) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.next.RoundTrip(r)
	if err == nil {
		p.major = resp.ProtoMajor
	}
	return resp, err
}

func TestS3InVirtualHostStyle(t *testing.T) {
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.Config()
	cfg.BaseEndpoint = aws.String("http://lapwing.internal:" + u.Port())
	hosts := map[string]bool{}
	cfg.HTTPClient = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		hosts[address] = true
		return (&net.Dialer{}).DialContext(ctx, network, u.Host)
	}}}
	c := s3.NewFromConfig(cfg) // virtual-host style is its default
	bucket(t, c, "virtual-host")
	list, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("virtual-host")})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Contents) != 1 || *list.Contents[0].Key != "greeting" {
		t.Errorf("contents %+v", list.Contents)
	}
	if want := "virtual-host.lapwing.internal:" + u.Port(); !hosts[want] {
		t.Errorf("the client spoke to %v, not to %s", hosts, want)
	}
}

func TestPresignedURLs(t *testing.T) {
	c := s3.NewFromConfig(server.Config(), pathStyle)
	bucket(t, c, "presigned")
	p := s3.NewPresignClient(c)
	put, err := p.PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("presigned"), Key: aws.String("a b/ü+c")})
	if err != nil {
		t.Fatal(err)
	}
	if resp, body := fetch(t, http.DefaultClient, http.MethodPut, put.URL, strings.NewReader("by URL")); resp.StatusCode != http.StatusOK {
		t.Fatalf("PUT: %s: %s", resp.Status, body)
	}
	get, err := p.PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("presigned"), Key: aws.String("a b/ü+c")})
	if err != nil {
		t.Fatal(err)
	}
	if resp, body := fetch(t, http.DefaultClient, http.MethodGet, get.URL, nil); resp.StatusCode != http.StatusOK || body != "by URL" {
		t.Errorf("GET: %s: %s", resp.Status, body)
	}

	past := s3.NewPresignClient(c, func(o *s3.PresignOptions) { o.Presigner = signedAt{time.Now().Add(-2 * time.Hour)} })
	expired, err := past.PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("presigned"), Key: aws.String("greeting")}, s3.WithPresignExpires(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, method, url, code, message string }{
		{"expired", http.MethodGet, expired.URL, "AccessDenied", "Request has expired"},
		{"another method", http.MethodDelete, get.URL, "SignatureDoesNotMatch", ""},
		{"another key", http.MethodGet, strings.Replace(get.URL, "/presigned/", "/presigned/x", 1), "SignatureDoesNotMatch", ""},
		{"longer than signed", http.MethodGet, strings.Replace(get.URL, "X-Amz-Expires=900", "X-Amz-Expires=901", 1), "SignatureDoesNotMatch", ""},
		{"no credentials", http.MethodGet, strings.SplitN(get.URL, "?", 2)[0], "AccessDenied", ""},
	} {
		resp, body := fetch(t, http.DefaultClient, tt.method, tt.url, nil)
		if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "<Code>"+tt.code+"</Code>") || !strings.Contains(body, tt.message) {
			t.Errorf("%s: %s: %s, want 403 %s", tt.name, resp.Status, body, tt.code)
		}
	}
}

// signedAt presigns as of another time.
type signedAt struct{ at time.Time }

func (s signedAt) PresignHTTP(ctx context.Context, creds aws.Credentials, r *http.Request, hash, service, region string, _ time.Time, opts ...func(*v4.SignerOptions)) (string, http.Header, error) {
	return v4.NewSigner().PresignHTTP(ctx, creds, r, hash, service, region, s.at, append(opts, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })...)
}

func TestWrongCredentialsAreToldInAWSsCodes(t *testing.T) {
	good, err := server.Config().Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func(aws.Config) error{
		"s3": func(cfg aws.Config) error {
			_, err := s3.NewFromConfig(cfg, pathStyle).ListBuckets(t.Context(), nil)
			return err
		},
		"lambda": func(cfg aws.Config) error {
			_, err := lambda.NewFromConfig(cfg).ListFunctions(t.Context(), nil)
			return err
		},
		"sts": func(cfg aws.Config) error {
			_, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), nil)
			return err
		},
	}
	for _, tt := range []struct {
		name               string
		key, secret, token string
		skew               time.Duration
		want               map[string]string
	}{
		{name: "wrong secret", key: good.AccessKeyID, secret: "wrong",
			want: map[string]string{"s3": "SignatureDoesNotMatch", "lambda": "InvalidSignatureException", "sts": "SignatureDoesNotMatch"}},
		{name: "wrong key", key: "AKIAIOSFODNN7EXAMPLE", secret: good.SecretAccessKey,
			want: map[string]string{"s3": "InvalidAccessKeyId", "lambda": "UnrecognizedClientException", "sts": "InvalidClientTokenId"}},
		{name: "wrong session token", key: good.AccessKeyID, secret: good.SecretAccessKey, token: "nonsense",
			want: map[string]string{"s3": "InvalidToken", "lambda": "UnrecognizedClientException", "sts": "InvalidClientTokenId"}},
		{name: "skewed clock", key: good.AccessKeyID, secret: good.SecretAccessKey, skew: -time.Hour,
			want: map[string]string{"s3": "RequestTimeTooSkewed", "lambda": "InvalidSignatureException", "sts": "SignatureDoesNotMatch"}},
	} {
		for service, call := range calls {
			t.Run(tt.name+"/"+service, func(t *testing.T) {
				cfg := server.Config()
				cfg.Credentials = credentials.NewStaticCredentialsProvider(tt.key, tt.secret, tt.token)
				if tt.skew != 0 {
					cfg.HTTPClient = &http.Client{Transport: resign{cfg, service, tt.skew}}
				}
				err := call(cfg)
				api, ok := errors.AsType[smithy.APIError](err)
				if !ok || api.ErrorCode() != tt.want[service] {
					t.Errorf("%v, want %s", err, tt.want[service])
				}
			})
		}
	}
}

// resign signs requests once more, as if the clock were another. The SDK itself
// learns the server's time from errors, but a client without retries shows them.
type resign struct {
	cfg     aws.Config
	service string
	skew    time.Duration
}

func (r resign) RoundTrip(req *http.Request) (*http.Response, error) {
	creds, err := r.cfg.Credentials.Retrieve(req.Context())
	if err != nil {
		return nil, err
	}
	hash := req.Header.Get("X-Amz-Content-Sha256")
	req.Header.Del("Authorization")
	if hash == "" {
		var body []byte
		if req.Body != nil {
			if body, err = io.ReadAll(req.Body); err != nil {
				return nil, err
			}
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		hash = sha256Hex(body)
	}
	if err := v4.NewSigner().SignHTTP(req.Context(), creds, req, hash, r.service, r.cfg.Region, time.Now().Add(r.skew)); err != nil {
		return nil, err
	}
	return http.DefaultTransport.RoundTrip(req)
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestWhatIsNotThereIsRefusedWith501(t *testing.T) {
	creds, err := server.Config().Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, service, method, path, body string
		header                            map[string]string
	}{
		{name: "a service", service: "dynamodb", method: http.MethodPost, path: "/", body: `{}`,
			header: map[string]string{"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.ListTables"}},
		{name: "an operation of a JSON service", service: "logs", method: http.MethodPost, path: "/", body: `{}`,
			header: map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Logs_20140328.PutQueryDefinition"}},
		{name: "an operation of a Query service", service: "iam", method: http.MethodPost, path: "/", body: `Action=CreateSAMLProvider&Version=2010-05-08`,
			header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}},
		{name: "an operation of a REST service", service: "lambda", method: http.MethodPost, path: "/2015-03-31/event-source-mappings", body: `{}`,
			header: map[string]string{"Content-Type": "application/json"}},
		{name: "an operation of S3", service: "s3", method: http.MethodPut, path: "/some-bucket?website"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, server.URL()+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range maps.All(tt.header) {
				req.Header.Set(k, v)
			}
			hash := sha256Hex([]byte(tt.body))
			req.Header.Set("X-Amz-Content-Sha256", hash)
			if err := v4.NewSigner().SignHTTP(t.Context(), creds, req, hash, tt.service, "us-east-1", time.Now()); err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusNotImplemented {
				t.Errorf("%s: %s", resp.Status, b)
			}
		})
	}
}
