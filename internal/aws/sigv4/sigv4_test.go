package sigv4

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"lapwing.dev/lapwing/internal/aws"
)

const (
	testKey    = "AKIAIOSFODNN7EXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

var testTime = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)

func rulesFor(dialect Dialect, service string) *Rules {
	return &Rules{
		Dialect: dialect, Service: service, Regions: []string{"us-east-1"}, MaxBody: 1 << 20,
		TooLarge: func() error { return &aws.Error{Code: "RequestTooLargeException", Status: 413} },
	}
}

// received turns a client's request into what a server's handler would see.
func received(t testing.TB, r *http.Request, body []byte) *http.Request {
	t.Helper()
	var wire bytes.Buffer
	out := r.Clone(context.Background())
	out.Body = io.NopCloser(bytes.NewReader(body))
	if out.ContentLength == 0 {
		out.ContentLength = int64(len(body))
	}
	if err := out.Write(&wire); err != nil {
		t.Fatal(err)
	}
	in, err := http.ReadRequest(bufio.NewReader(&wire))
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func sdkCredentials() sdkaws.Credentials {
	return sdkaws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// signed makes a request that the SDK's signer signed.
func signed(t testing.TB, method, url string, header http.Header, body []byte, service string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header[k] = v
	}
	hash := hashOf(body)
	if service == "s3" {
		if h := r.Header.Get("X-Amz-Content-Sha256"); h != "" {
			hash = h
		}
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	err = v4.NewSigner().SignHTTP(t.Context(), sdkCredentials(), r, hash, service, "us-east-1", testTime,
		func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
	if err != nil {
		t.Fatal(err)
	}
	return received(t, r, body)
}

func newTestVerifier() *Verifier {
	return NewVerifier(func() time.Time { return testTime })
}

func verify(r *http.Request, rules *Rules) error {
	a, err := Parse(r)
	if err != nil {
		return err
	}
	return newTestVerifier().Verify(r, a, testSecret, rules)
}

func wantCode(t *testing.T, err error, dialect Dialect, code string) *aws.Error {
	t.Helper()
	var e *aws.Error
	if f := (*Failure)(nil); errors.As(err, &f) {
		e = f.In(dialect)
	} else if !errors.As(err, &e) {
		t.Fatalf("error is %v, want %s", err, code)
	}
	if e.Code != code {
		t.Fatalf("error is %s (%s), want %s", e.Code, e.Message, code)
	}
	if e.Status < 400 || e.Message == "" && code != "RequestTooLargeException" {
		t.Errorf("error is incomplete: %+v", e)
	}
	return e
}

func TestVerifyAcceptsWhatTheSDKSigned(t *testing.T) {
	tests := map[string]struct {
		method, url, service string
		header               http.Header
		body                 string
	}{
		"plain":            {"GET", "http://localhost:4566/2015-03-31/functions/", "lambda", nil, ""},
		"body":             {"POST", "http://localhost:4566/2015-03-31/functions/f/invocations", "lambda", http.Header{"X-Amz-Log-Type": {"Tail"}}, `{"a":1}`},
		"escaped path":     {"GET", "http://localhost:4566/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Af", "lambda", nil, ""},
		"query":            {"GET", "http://localhost:4566/?b=2&a=z&a=1&empty=&flag&sp=a%20b&plus=a%2Bb&-=x&a-b=1", "lambda", nil, ""},
		"spaces in header": {"GET", "http://localhost:4566/", "lambda", http.Header{"X-Amz-Meta-A": {"  a   b  ", "c"}}, ""},
		"s3 key":           {"GET", "http://localhost:4566/bucket/a%20b//c/../%C3%A9%2B~", "s3", nil, ""},
		"s3 body":          {"PUT", "http://bucket.s3.localhost:4566/key", "s3", nil, "hello"},
		"s3 unsigned":      {"PUT", "http://localhost:4566/bucket/key", "s3", http.Header{"X-Amz-Content-Sha256": {"UNSIGNED-PAYLOAD"}}, "hello"},
		"s3 subresource":   {"POST", "http://localhost:4566/bucket/key?uploads", "s3", nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dialect := RESTJSON
			if tt.service == "s3" {
				dialect = S3
			}
			r := signed(t, tt.method, tt.url, tt.header, []byte(tt.body), tt.service)
			if err := verify(r, rulesFor(dialect, tt.service)); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r.Body)
			if err != nil || string(got) != tt.body {
				t.Errorf("body is %q, %v; want %q", got, err, tt.body)
			}
		})
	}
}

func TestVerifyRefusesWhatWasChangedAfterSigning(t *testing.T) {
	changes := map[string]func(r *http.Request){
		"method":        func(r *http.Request) { r.Method = "PUT" },
		"path":          func(r *http.Request) { r.RequestURI = "/other?a=1" },
		"query":         func(r *http.Request) { r.URL.RawQuery = "a=2" },
		"host":          func(r *http.Request) { r.Host = "elsewhere" },
		"signed header": func(r *http.Request) { r.Header.Set("X-Amz-Log-Type", "None") },
		"body":          func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("evil!")) },
		"signature": func(r *http.Request) {
			h := r.Header.Get("Authorization")
			r.Header.Set("Authorization", h[:len(h)-1]+map[bool]string{true: "0", false: "1"}[h[len(h)-1] != '0'])
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			r := signed(t, "POST", "http://localhost/path?a=1", http.Header{"X-Amz-Log-Type": {"Tail"}}, []byte("hello"), "lambda")
			change(r)
			wantCode(t, verify(r, rulesFor(RESTJSON, "lambda")), RESTJSON, "InvalidSignatureException")
		})
	}
}

func BenchmarkVerifyInvoke(b *testing.B) {
	body := []byte(`{"key1":"value1","key2":"value2"}`)
	r := signed(b, "POST", "http://localhost:4566/2015-03-31/functions/f/invocations", nil, body, "lambda")
	rules := rulesFor(RESTJSON, "lambda")
	v := newTestVerifier()
	b.ReportAllocs()
	for b.Loop() {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		a, err := Parse(r)
		if err != nil {
			b.Fatal(err)
		}
		if err := v.Verify(r, a, testSecret, rules); err != nil {
			b.Fatal(err)
		}
	}
}
