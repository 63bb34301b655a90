package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdkcredentials "github.com/aws/aws-sdk-go-v2/credentials"
	sdklambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	sdks3 "github.com/aws/aws-sdk-go-v2/service/s3"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/semaphore"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/aws/s3"
	"lapwing.dev/lapwing/internal/aws/sts"
	"lapwing.dev/lapwing/internal/credentials"
)

const region = "eu-west-3"

// fakeLambda is a Lambda that knows one function, which echoes.
type fakeLambda struct{ lambda.API }

func (fakeLambda) Invoke(_ context.Context, in *lambda.InvokeInput) (*lambda.InvokeOutput, error) {
	switch *in.FunctionName {
	case "panic":
		panic("as asked")
	case "break":
		return nil, errors.New("secret detail")
	case "missing":
		return nil, lambda.NewResourceNotFoundException("Function not found: missing")
	}
	return &lambda.InvokeOutput{StatusCode: aws.Ptr(int32(200)), Payload: in.Payload}, nil
}

// fakeS3 keeps objects in memory.
type fakeS3 struct {
	s3.API
	mu      sync.Mutex
	objects map[string]string
	trailer http.Header
}

func (f *fakeS3) PutObject(ctx context.Context, in *s3.PutObjectInput) (*s3.PutObjectOutput, error) {
	b, err := io.ReadAll(in.Body)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[*in.Bucket+"/"+*in.Key] = string(b)
	f.trailer = aws.RequestFrom(ctx).Trailer
	return &s3.PutObjectOutput{ETag: aws.Ptr(`"e"`)}, nil
}

func (f *fakeS3) GetObject(_ context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.objects[*in.Bucket+"/"+*in.Key]
	if !ok {
		return nil, s3.NewNoSuchKey("The specified key does not exist.")
	}
	return &s3.GetObjectOutput{Body: io.NopCloser(strings.NewReader(b)), ContentLength: aws.Ptr(int64(len(b)))}, nil
}

type fakeSTS struct{ sts.API }

func (fakeSTS) GetCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	r := aws.RequestFrom(ctx)
	return &sts.GetCallerIdentityOutput{Account: &r.Caller.AccountID, Arn: &r.Caller.ARN, UserId: &r.Caller.UserID}, nil
}

// bed is a gateway that is served, and what tests need to use it.
type bed struct {
	t       testing.TB
	url     string
	gateway *Gateway
	creds   *credentials.Store
	s3      *fakeS3
	log     *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newBed(t testing.TB, level slog.Level, change func(*Options)) *bed {
	t.Helper()
	creds, err := credentials.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, creds: creds, s3: &fakeS3{objects: map[string]string{}}, log: &safeBuffer{}}
	o := Options{
		Services:    []*aws.Service{lambda.NewService(fakeLambda{}), s3.NewService(b.s3), sts.NewService(fakeSTS{})},
		Credentials: creds, Region: region, AccountID: creds.AccountID(),
		Logger: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: level})),
	}
	if change != nil {
		change(&o)
	}
	b.gateway = New(o)
	server := httptest.NewServer(b.gateway)
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

func (b *bed) config(key, secret, token string) sdkaws.Config {
	return sdkaws.Config{
		Region: region, BaseEndpoint: &b.url, Retryer: func() sdkaws.Retryer { return sdkaws.NopRetryer{} },
		Credentials: sdkcredentials.NewStaticCredentialsProvider(key, secret, token),
	}
}

func (b *bed) root() sdkaws.Config {
	return b.config(b.creds.Root().AccessKeyID, b.creds.Root().SecretAccessKey, "")
}

// send signs and sends a request by hand.
func (b *bed) send(method, path, service, host string, body []byte, change func(*http.Request)) *http.Response {
	b.t.Helper()
	r, err := http.NewRequest(method, b.url+path, bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if host != "" {
		r.Host = host
	}
	hash := hashHex(body)
	if service == "s3" {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	c := sdkaws.Credentials{AccessKeyID: b.creds.Root().AccessKeyID, SecretAccessKey: b.creds.Root().SecretAccessKey}
	if service != "" {
		err = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" }).
			SignHTTP(b.t.Context(), c, r, hash, service, region, time.Now())
		if err != nil {
			b.t.Fatal(err)
		}
	}
	if change != nil {
		change(r)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { res.Body.Close() })
	return res
}

func text(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wantAPIError(t *testing.T, err error, code string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code {
		t.Errorf("error is %v, want %s", err, code)
	}
}

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestSDKClientsReachTheirServices(t *testing.T) {
	b := newBed(t, slog.LevelInfo, nil)
	ctx := t.Context()

	out, err := sdklambda.NewFromConfig(b.root()).Invoke(ctx, &sdklambda.InvokeInput{FunctionName: aws.Ptr("f"), Payload: []byte(`{"a":1}`)})
	if err != nil || string(out.Payload) != `{"a":1}` {
		t.Errorf("lambda: %v, %v", out, err)
	}

	who, err := sdksts.NewFromConfig(b.root()).GetCallerIdentity(ctx, nil)
	if err != nil || *who.Arn != "arn:aws:iam::"+b.creds.AccountID()+":root" {
		t.Errorf("sts: %v, %v", who, err)
	}

	client := sdks3.NewFromConfig(b.root(), func(o *sdks3.Options) { o.UsePathStyle = true })
	for name, body := range map[string]io.Reader{"seekable": strings.NewReader("hello"), "empty": strings.NewReader("")} {
		_, err = client.PutObject(ctx, &sdks3.PutObjectInput{Bucket: aws.Ptr("bucket"), Key: aws.Ptr("a key/" + name), Body: body})
		if err != nil {
			t.Errorf("s3, %s: %v", name, err)
		}
	}
	got, err := client.GetObject(ctx, &sdks3.GetObjectInput{Bucket: aws.Ptr("bucket"), Key: aws.Ptr("a key/seekable")})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if s, err := io.ReadAll(got.Body); err != nil || string(s) != "hello" {
		t.Errorf("s3: %q, %v", s, err)
	}
}

func TestPresignedURLIsServed(t *testing.T) {
	b := newBed(t, slog.LevelInfo, nil)
	b.s3.objects["bucket/k +é"] = "content"
	client := sdks3.NewPresignClient(sdks3.NewFromConfig(b.root(), func(o *sdks3.Options) { o.UsePathStyle = true }))
	signed, err := client.PresignGetObject(t.Context(), &sdks3.GetObjectInput{Bucket: aws.Ptr("bucket"), Key: aws.Ptr("k +é")})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get(signed.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if s := text(t, res); res.StatusCode != 200 || s != "content" {
		t.Errorf("%d: %s", res.StatusCode, s)
	}
	res, err = http.Get(strings.Replace(signed.URL, "/bucket/", "/other/", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if s := text(t, res); res.StatusCode != 403 || !strings.Contains(s, "<Code>SignatureDoesNotMatch</Code>") {
		t.Errorf("%d: %s", res.StatusCode, s)
	}
}

func TestVirtualHostStyleFindsTheBucket(t *testing.T) {
	b := newBed(t, slog.LevelInfo, func(o *Options) { o.Domains = []string{"lapwing.example"} })
	for i, host := range []string{"bucket.s3.localhost", "bucket.localhost", "bucket.s3.eu-west-3.lapwing.example", "bucket.s3.eu-west-3.amazonaws.com"} {
		key := fmt.Sprintf("k%%20%d", i)
		if res := b.send("PUT", "/"+key, "s3", host, []byte("v"), nil); res.StatusCode != 200 {
			t.Errorf("%s: %d: %s", host, res.StatusCode, text(t, res))
		}
		if v := b.s3.objects[fmt.Sprintf("bucket/k %d", i)]; v != "v" {
			t.Errorf("%s: stored %q in %v", host, v, b.s3.objects)
		}
	}
}

func TestRefusals(t *testing.T) {
	b := newBed(t, slog.LevelInfo, nil)
	tests := map[string]struct {
		method, path, service, host string
		body                        string
		change                      func(*http.Request)
		status                      int
		want                        string // in the body, or the error type header
	}{
		"unknown service in the scope": {"POST", "/", "dynamodb", "", "{}", nil, 501, "UnknownServiceException"},
		"unknown service in the host":  {"POST", "/", "sqs", "sqs.eu-west-3.amazonaws.com", "{}", nil, 501, "UnknownServiceException"},
		"unknown REST operation":       {"POST", "/2015-03-31/nothing", "lambda", "", "", nil, 501, ""},
		"unknown Query operation":      {"POST", "/", "sts", "", "Action=Nothing&Version=2011-06-15", nil, 501, "Nothing"},
		"anonymous Lambda":             {"GET", "/2015-03-31/functions/f/invocations", "", "", "", func(r *http.Request) { r.Method = "POST" }, 403, "MissingAuthenticationTokenException"},
		"anonymous S3":                 {"GET", "/bucket/key", "", "", "", nil, 403, "<Code>AccessDenied</Code>"},
		"anonymous Query":              {"POST", "/", "", "", "Action=GetCallerIdentity", form, 403, "<Code>MissingAuthenticationToken</Code>"},
		"changed Query body":           {"POST", "/", "sts", "", "Action=GetCallerIdentity", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("Action=GetCallerIdentitz")) }, 403, "<Code>SignatureDoesNotMatch</Code>"},
		"wrong host for the scope":     {"POST", "/2015-03-31/functions/f/invocations", "sts", "lambda.localhost", "Action=GetCallerIdentity", nil, 403, "Credential should be scoped to correct service: 'lambda'."},
		"too large":                    {"POST", "/2015-03-31/functions/f/invocations", "lambda", "", strings.Repeat("a", 6291457), nil, 413, "6291457 byte payload is too large"},
		"too large a form":             {"POST", "/", "sts", "", strings.Repeat("a", maxForm+1), nil, 413, "RequestEntityTooLarge"},
		"other changed S3 body":        {"PUT", "/bucket/key", "s3", "", "hello", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("hullo")) }, 400, "XAmzContentSHA256Mismatch"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			res := b.send(tt.method, tt.path, tt.service, tt.host, []byte(tt.body), tt.change)
			body := text(t, res)
			if res.StatusCode != tt.status || !strings.Contains(res.Header.Get("X-Amzn-Errortype")+body, tt.want) {
				t.Errorf("%d %v: %s", res.StatusCode, res.Header, body)
			}
			if res.Header.Get("X-Amzn-Requestid") == "" && res.Header.Get("X-Amz-Request-Id") == "" {
				t.Error("no request id")
			}
		})
	}
	if len(b.s3.objects) > 0 {
		t.Errorf("stored %v", b.s3.objects)
	}
}

func form(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }

func TestCredentialErrorsReachTheSDK(t *testing.T) {
	b := newBed(t, slog.LevelInfo, nil)
	root := b.creds.Root()
	session, err := b.creds.Issue("arn:aws:iam::"+root.AccountID+":role/r", "name", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		config           sdkaws.Config
		lambda, sts, s3_ string
	}{
		"wrong secret": {b.config(root.AccessKeyID, "wrong", ""), "InvalidSignatureException", "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		"unknown key":  {b.config("AKIAIOSFODNN7EXAMPLE", "x", ""), "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId"},
		"forged token": {b.config(session.AccessKeyID, session.SecretAccessKey, "AQ=="), "UnrecognizedClientException", "InvalidClientTokenId", "InvalidToken"},
		"no token":     {b.config(session.AccessKeyID, session.SecretAccessKey, ""), "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := sdklambda.NewFromConfig(tt.config).Invoke(t.Context(), &sdklambda.InvokeInput{FunctionName: aws.Ptr("f")})
			wantAPIError(t, err, tt.lambda)
			_, err = sdksts.NewFromConfig(tt.config).GetCallerIdentity(t.Context(), nil)
			wantAPIError(t, err, tt.sts)
			_, err = sdks3.NewFromConfig(tt.config, func(o *sdks3.Options) { o.UsePathStyle = true }).
				GetObject(t.Context(), &sdks3.GetObjectInput{Bucket: aws.Ptr("bucket"), Key: aws.Ptr("k")})
			wantAPIError(t, err, tt.s3_)
		})
	}
	who, err := sdksts.NewFromConfig(b.config(session.AccessKeyID, session.SecretAccessKey, session.SessionToken)).GetCallerIdentity(t.Context(), nil)
	if err != nil || *who.Arn != "arn:aws:sts::"+root.AccountID+":assumed-role/r/name" {
		t.Errorf("session: %v, %v", who, err)
	}
}

func TestExpiredSessionsAreRefused(t *testing.T) {
	b := newBed(t, slog.LevelInfo, func(o *Options) { o.Credentials = expired{o.Credentials} })
	_, err := sdklambda.NewFromConfig(b.root()).Invoke(t.Context(), &sdklambda.InvokeInput{FunctionName: aws.Ptr("f")})
	wantAPIError(t, err, "ExpiredTokenException")
}

type expired struct{ Credentials }

func (expired) Lookup(string, string) (string, aws.Identity, error) {
	return "", aws.Identity{}, credentials.ErrExpired
}

func TestAnotherRegionIsRefusedButForGlobalServices(t *testing.T) {
	b := newBed(t, slog.LevelInfo, nil)
	config := b.root()
	config.Region = "us-east-1"
	if _, err := sdksts.NewFromConfig(config).GetCallerIdentity(t.Context(), nil); err != nil {
		t.Errorf("sts: %v", err)
	}
	_, err := sdklambda.NewFromConfig(config).Invoke(t.Context(), &sdklambda.InvokeInput{FunctionName: aws.Ptr("f")})
	wantAPIError(t, err, "InvalidSignatureException")
	_, err = sdks3.NewFromConfig(config, func(o *sdks3.Options) { o.UsePathStyle = true }).
		GetObject(t.Context(), &sdks3.GetObjectInput{Bucket: aws.Ptr("bucket"), Key: aws.Ptr("k")})
	wantAPIError(t, err, "AuthorizationHeaderMalformed")
}

func TestInternalErrorsAreLoggedOnceAndNotShown(t *testing.T) {
	for name, function := range map[string]string{"an error": "break", "a panic": "panic"} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, slog.LevelInfo, nil)
			res := b.send("POST", "/2015-03-31/functions/"+function+"/invocations", "lambda", "", []byte("{}"), nil)
			body := text(t, res)
			if res.StatusCode != 500 || res.Header.Get("X-Amzn-Errortype") != "InternalFailure" || strings.Contains(body, "secret") || strings.Contains(body, "asked") {
				t.Errorf("%d %v: %s", res.StatusCode, res.Header, body)
			}
			id := res.Header.Get("X-Amzn-Requestid")
			if !uuidPattern.MatchString(id) || strings.Count(b.log.String(), id) != 1 {
				t.Errorf("request id %q, log:\n%s", id, b.log)
			}
		})
	}
}

func TestErrorsOfServicesAreNotLogged(t *testing.T) {
	b := newBed(t, slog.LevelInfo, nil)
	_, err := sdklambda.NewFromConfig(b.root()).Invoke(t.Context(), &sdklambda.InvokeInput{FunctionName: aws.Ptr("missing")})
	wantAPIError(t, err, "ResourceNotFoundException")
	if b.log.String() != "" {
		t.Errorf("log:\n%s", b.log)
	}
}

func TestAccessLogLeavesOutSecrets(t *testing.T) {
	b := newBed(t, slog.LevelDebug, nil)
	client := sdks3.NewPresignClient(sdks3.NewFromConfig(b.root(), func(o *sdks3.Options) { o.UsePathStyle = true }))
	signed, err := client.PresignGetObject(t.Context(), &sdks3.GetObjectInput{Bucket: aws.Ptr("bucket"), Key: aws.Ptr("k")})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get(signed.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	log := b.log.String()
	if !strings.Contains(log, "operation=s3:GetObject") || !strings.Contains(log, "status=404") || strings.Contains(log, "X-Amz-Signature") {
		t.Errorf("log:\n%s", log)
	}
}

type refuse struct{ got *aws.Request }

func (a *refuse) Authorize(ctx context.Context, r *aws.Request) error {
	a.got = r
	if aws.RequestFrom(ctx) != r {
		return errors.New("another request in the context")
	}
	return &aws.Error{Code: "AccessDeniedException", Status: 403, Message: "no"}
}

func TestAuthorizerDecidesBeforeTheService(t *testing.T) {
	a := &refuse{}
	b := newBed(t, slog.LevelInfo, func(o *Options) { o.Authorizer = a })
	_, err := sdklambda.NewFromConfig(b.root()).Invoke(t.Context(), &sdklambda.InvokeInput{FunctionName: aws.Ptr("panic")})
	wantAPIError(t, err, "AccessDeniedException")
	if a.got.Service != "lambda" || a.got.Operation != "Invoke" || a.got.Caller.AccessKeyID != b.creds.Root().AccessKeyID ||
		a.got.BaseURL != b.url || a.got.SourceIP != "127.0.0.1" || a.got.Region != region || a.got.AccountID != b.creds.AccountID() {
		t.Errorf("request is %+v", a.got)
	}
}

func TestPermitAccountRefusesOtherAccounts(t *testing.T) {
	for _, r := range []*aws.Request{{}, {AccountID: "1", Caller: aws.Identity{AccountID: "2"}}} {
		if err := (PermitAccount{}).Authorize(t.Context(), r); err == nil {
			t.Errorf("%+v was permitted", r)
		}
	}
	if err := (PermitAccount{}).Authorize(t.Context(), &aws.Request{AccountID: "1", Caller: aws.Identity{AccountID: "1"}}); err != nil {
		t.Error(err)
	}
}

func TestInternalPaths(t *testing.T) {
	b := newBed(t, slog.LevelInfo, nil)
	b.gateway.Handle("/_lapwing/code/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }))
	res := b.send("GET", "/_lapwing/health", "", "", nil, nil)
	var status map[string]string
	if err := json.Unmarshal([]byte(text(t, res)), &status); err != nil || res.StatusCode != 200 || status["status"] != "ok" {
		t.Errorf("health: %d %v, %v", res.StatusCode, status, err)
	}
	if res := b.send("POST", "/_lapwing/health", "", "", nil, nil); res.StatusCode != 405 {
		t.Errorf("POST health: %d", res.StatusCode)
	}
	if res := b.send("GET", "/_lapwing/code/x", "", "", nil, nil); res.StatusCode != 200 || text(t, res) != "/_lapwing/code/x" {
		t.Errorf("code: %d", res.StatusCode)
	}
	if res := b.send("GET", "/_lapwing/other", "", "", nil, nil); res.StatusCode != 404 {
		t.Errorf("other: %d", res.StatusCode)
	}
}

func TestStreamedUploadsAreDecoded(t *testing.T) {
	b := newBed(t, slog.LevelInfo, nil)
	body := "b\r\nhello world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
	r, err := http.NewRequest("PUT", b.url+"/bucket/key", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	const form = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	r.Header.Set("X-Amz-Content-Sha256", form)
	r.Header.Set("X-Amz-Decoded-Content-Length", "11")
	r.Header.Set("X-Amz-Trailer", "x-amz-checksum-crc32")
	r.Header.Set("Content-Encoding", "aws-chunked")
	c := sdkaws.Credentials{AccessKeyID: b.creds.Root().AccessKeyID, SecretAccessKey: b.creds.Root().SecretAccessKey}
	err = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(t.Context(), c, r, form, "s3", region, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 || b.s3.objects["bucket/key"] != "hello world" || b.s3.trailer.Get("X-Amz-Checksum-Crc32") != "DUoRhQ==" {
		t.Errorf("%d: %s; stored %q, trailer %v", res.StatusCode, text(t, res), b.s3.objects, b.s3.trailer)
	}
}

func TestClientsThatStallOrLeaveAreNotOurFailure(t *testing.T) {
	b := newBed(t, slog.LevelInfo, nil)
	b.gateway.stall = 50 * time.Millisecond
	// head signs a request of which the body is to come.
	head := func() string {
		r, err := http.NewRequest("POST", b.url+"/2015-03-31/functions/f/invocations", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		c := sdkaws.Credentials{AccessKeyID: b.creds.Root().AccessKeyID, SecretAccessKey: b.creds.Root().SecretAccessKey}
		if err := v4.NewSigner().SignHTTP(t.Context(), c, r, hashHex([]byte("hello")), "lambda", region, time.Now()); err != nil {
			t.Fatal(err)
		}
		var raw bytes.Buffer
		if err := r.Write(&raw); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(raw.String(), "hello")
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}

	stalled := dial()
	if _, err := io.WriteString(stalled, head()+"he"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(stalled) // until the server closes the connection
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "X-Amzn-Errortype: RequestTimeout") {
		t.Errorf("stalled: %v: %s", err, answer)
	}

	gone := dial().(*net.TCPConn)
	if _, err := io.WriteString(gone, head()+"he"); err != nil {
		t.Fatal(err)
	}
	if err := gone.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err = io.ReadAll(gone)
	if err != nil || !strings.Contains(string(answer), "X-Amzn-Errortype: IncompleteBody") {
		t.Errorf("gone: %v: %s", err, answer)
	}
	if b.log.String() != "" {
		t.Errorf("log:\n%s", b.log)
	}
}

// slowLambda answers after longer than a client may stall.
type slowLambda struct{ fakeLambda }

func (slowLambda) Invoke(ctx context.Context, in *lambda.InvokeInput) (*lambda.InvokeOutput, error) {
	select {
	case <-time.After(500 * time.Millisecond):
		return fakeLambda{}.Invoke(ctx, in)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lateLambda does something once its answer has left.
type lateLambda struct {
	fakeLambda
	answered chan struct{}
	late     chan bool // whether the client had the answer
}

func (l lateLambda) Invoke(ctx context.Context, in *lambda.InvokeInput) (*lambda.InvokeOutput, error) {
	aws.RequestFrom(ctx).After(func() {
		select {
		case <-l.answered:
			l.late <- true
		case <-time.After(10 * time.Second):
			l.late <- false
		}
	})
	return l.fakeLambda.Invoke(ctx, in)
}

func TestWhatComesAfterTheAnswerDoesNotHoldItUp(t *testing.T) {
	l := lateLambda{answered: make(chan struct{}, 1), late: make(chan bool, 1)}
	b := newBed(t, slog.LevelInfo, func(o *Options) { o.Services = []*aws.Service{lambda.NewService(l)} })
	client := sdklambda.NewFromConfig(b.root())
	for _, function := range []string{"f", "panic"} {
		if function == "panic" {
			l.answered <- struct{}{} // it is done whatever becomes of the request, and before an error is told
		}
		_, err := client.Invoke(t.Context(), &sdklambda.InvokeInput{FunctionName: &function, Payload: []byte(`{"a":1}`)})
		if (err == nil) != (function == "f") {
			t.Errorf("%s: %v", function, err)
		}
		if function == "f" {
			l.answered <- struct{}{}
		}
		if !<-l.late {
			t.Errorf("%s: the answer waited", function)
		}
	}
}

func TestSlowFunctionsAreNoStall(t *testing.T) {
	b := newBed(t, slog.LevelInfo, func(o *Options) { o.Services = []*aws.Service{lambda.NewService(slowLambda{})} })
	b.gateway.stall = 250 * time.Millisecond
	client := sdklambda.NewFromConfig(b.root())
	for range 2 { // the second on the same connection
		out, err := client.Invoke(t.Context(), &sdklambda.InvokeInput{FunctionName: aws.Ptr("f"), Payload: []byte(`{"a":1}`)})
		if err != nil || string(out.Payload) != `{"a":1}` {
			t.Errorf("%v, %v", out, err)
		}
	}
}

// abandonedLambda reports that its caller has left as a fault of its own.
type abandonedLambda struct {
	fakeLambda
	called, left chan struct{}
}

func (l abandonedLambda) Invoke(ctx context.Context, _ *lambda.InvokeInput) (*lambda.InvokeOutput, error) {
	close(l.called)
	defer close(l.left)
	<-ctx.Done()
	return nil, lambda.NewServiceException("internal").WithCause(ctx.Err())
}

func TestClientsThatLeaveAreNoFault(t *testing.T) {
	l := abandonedLambda{called: make(chan struct{}), left: make(chan struct{})}
	b := newBed(t, slog.LevelDebug, func(o *Options) { o.Services = []*aws.Service{lambda.NewService(l)} })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-l.called
		cancel()
	}()
	if _, err := sdklambda.NewFromConfig(b.root()).Invoke(ctx, &sdklambda.InvokeInput{FunctionName: aws.Ptr("f")}); err == nil {
		t.Error("answered")
	}
	<-l.left
	for range 3000 {
		if strings.Contains(b.log.String(), "status=") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if log := b.log.String(); !strings.Contains(log, "status=") || strings.Contains(log, "level=ERROR") {
		t.Errorf("log:\n%s", log)
	}
}

// countingLambda counts the updates that are under way.
type countingLambda struct {
	fakeLambda
	now, most *atomic.Int32
}

func (l countingLambda) UpdateFunctionCode(context.Context, *lambda.UpdateFunctionCodeInput) (*lambda.UpdateFunctionCodeOutput, error) {
	n := l.now.Add(1)
	defer l.now.Add(-1)
	for most := l.most.Load(); n > most && !l.most.CompareAndSwap(most, n); most = l.most.Load() {
	}
	time.Sleep(20 * time.Millisecond)
	return &lambda.UpdateFunctionCodeOutput{}, nil
}

func TestLargeUploadsTakeTurns(t *testing.T) {
	l := countingLambda{now: new(atomic.Int32), most: new(atomic.Int32)}
	b := newBed(t, slog.LevelInfo, func(o *Options) { o.Services = []*aws.Service{lambda.NewService(l)} })
	b.gateway.uploads = semaphore.NewWeighted(3 * smallUpload) // room for one of them
	client := sdklambda.NewFromConfig(b.root())
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			_, err := client.UpdateFunctionCode(t.Context(), &sdklambda.UpdateFunctionCodeInput{FunctionName: aws.Ptr("f"), ZipFile: make([]byte, 3*smallUpload/2)})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most := l.most.Load(); most != 1 {
		t.Errorf("%d large bodies at once", most)
	}
	if !b.gateway.uploads.TryAcquire(3 * smallUpload) {
		t.Error("a turn did not end")
	}
}

func BenchmarkInvokeThroughGateway(b *testing.B) {
	bed := newBed(b, slog.LevelInfo, nil)
	body := []byte(`{"key1":"value1"}`)
	r, err := http.NewRequest("POST", "http://localhost/2015-03-31/functions/f/invocations", bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	c := sdkaws.Credentials{AccessKeyID: bed.creds.Root().AccessKeyID, SecretAccessKey: bed.creds.Root().SecretAccessKey}
	if err := v4.NewSigner().SignHTTP(b.Context(), c, r, hashHex(body), "lambda", region, time.Now()); err != nil {
		b.Fatal(err)
	}
	r.RequestURI = r.URL.Path
	b.ReportAllocs()
	for b.Loop() {
		in := *r
		in.Body = io.NopCloser(bytes.NewReader(body))
		w := httptest.NewRecorder()
		bed.gateway.ServeHTTP(w, &in)
		if w.Code != 200 {
			b.Fatal(w.Body.String())
		}
	}
}
