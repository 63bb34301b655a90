package gateway

import (
	"net/http"
	"testing"
)

func TestParseHost(t *testing.T) {
	isService := func(p string) bool { return p == "lambda" || p == "s3" || p == "iam" }
	domains := []string{"localhost", "lapwing.example"}
	tests := []struct {
		host, signedFor string
		want            address
	}{
		{"127.0.0.1:4566", "s3", address{}},
		{"[::1]:4566", "s3", address{}},
		{"localhost:4566", "lambda", address{}},
		{"localhost:4566", "s3", address{}},
		{"LOCALHOST.", "s3", address{}},
		{"elsewhere.test", "s3", address{}},
		{"notlocalhost", "s3", address{}},
		{"lambda.localhost:4566", "", address{service: "lambda"}},
		{"lambda.us-east-1.localhost", "lambda", address{service: "lambda"}},
		{"lambda.us-gov-west-1.lapwing.example", "", address{service: "lambda"}},
		{"other.localhost", "lambda", address{}},
		{"lambda.us-east-1.amazonaws.com", "lambda", address{service: "lambda"}},
		{"lambda.us-east-1.api.aws", "lambda", address{service: "lambda"}},
		{"iam.amazonaws.com", "iam", address{service: "iam"}},
		{"dynamodb.us-east-1.amazonaws.com", "dynamodb", address{service: "dynamodb"}},
		{"123456789012.cloudfront-kvs.global.api.aws", "", address{service: "cloudfront-keyvaluestore"}},
		{"123456789012.localhost:4566", "cloudfront-keyvaluestore", address{}},
		{"s3.localhost:4566", "s3", address{service: "s3"}},
		{"s3.us-east-1.amazonaws.com", "s3", address{service: "s3"}},
		{"s3.dualstack.us-east-1.amazonaws.com", "s3", address{service: "s3"}},
		{"bucket.s3.localhost:4566", "", address{"s3", "bucket"}},
		{"my.bucket.s3.us-east-1.amazonaws.com", "s3", address{"s3", "my.bucket"}},
		{"bucket.localhost:4566", "s3", address{"s3", "bucket"}},
		{"my.bucket.localhost", "s3", address{"s3", "my.bucket"}},
		{"lambda.localhost", "s3", address{"s3", "lambda"}}, // a bucket of that name
		{"bucket.lapwing.example", "s3", address{"s3", "bucket"}},
	}
	for _, tt := range tests {
		if got := parseHost(tt.host, tt.signedFor, domains, isService); got != tt.want {
			t.Errorf("host %q signed for %q is %+v, want %+v", tt.host, tt.signedFor, got, tt.want)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	f.Add("bucket.s3.us-east-1.localhost:4566", "s3")
	f.Add("[::1", "lambda")
	f.Fuzz(func(t *testing.T, host, signedFor string) {
		at := parseHost(host, signedFor, []string{"localhost"}, func(p string) bool { return p == "s3" })
		if at.bucket != "" && at.service != "s3" {
			t.Errorf("host %q is %+v", host, at)
		}
	})
}

func TestPathStyleKeepsEscapesAndTheOriginal(t *testing.T) {
	r, err := http.NewRequest("GET", "http://bucket.localhost/a%2Fb%20c?x=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := pathStyle(r, "bucket")
	if p.URL.EscapedPath() != "/bucket/a%2Fb%20c" || p.URL.Path != "/bucket/a/b c" || p.URL.RawQuery != "x=1" || p.RequestURI != "/bucket/a%2Fb%20c?x=1" {
		t.Errorf("rewritten to %q, %q", p.URL, p.RequestURI)
	}
	if r.URL.Path != "/a/b c" {
		t.Errorf("the original became %q", r.URL)
	}
}

func TestSourceIP(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1", "[::1]:80": "::1", "[::ffff:192.0.2.4]:5": "192.0.2.4", "[fe80::1%eth0]:5": "fe80::1%eth0", "@": "@", ":80": ":80", "": "",
	} {
		if got := sourceIP(&http.Request{RemoteAddr: in}); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
