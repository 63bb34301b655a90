package sigv4

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"hash"
	"net/http"
	"strings"
	"testing"
)

func newHash() hash.Hash { return sha256.New() }

func FuzzAuthorizationHeader(f *testing.F) {
	f.Add(goodHeader, "20150830T123600Z")
	f.Add("AWS4-HMAC-SHA256 Credential=////,,Signature==", "x")
	f.Add("AWS4-ECDSA-P256-SHA256 x", "")
	f.Fuzz(func(t *testing.T, authorization, date string) {
		r := unsigned("", "")
		r.Header["Authorization"] = []string{authorization}
		r.Header["X-Amz-Date"] = []string{date}
		for _, dialect := range []Dialect{RESTJSON, RPC, Query, S3} {
			err := verify(r.Clone(t.Context()), rulesFor(dialect, "lambda"))
			if err == nil {
				t.Fatal("a forged signature was accepted")
			}
			f, ok := err.(*Failure)
			if !ok {
				t.Fatalf("error is %v", err)
			}
			if e := f.In(dialect); e.Code == "" || e.Status < 400 || e.Message == "" {
				t.Fatalf("error is incomplete: %+v", e)
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add("/a//b/../c?x=%zz&X-Amz-Algorithm=AWS4-HMAC-SHA256", "host;x-amz-date;;", "v")
	f.Add("/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="+testKey+"%2F20150830%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00", "host", "v")
	f.Add("/b/k?AWSAccessKeyId=a&Expires=1440941760&Signature=00&x-amz-security-token=&acl", "host", "v")
	f.Fuzz(func(t *testing.T, target, names, value string) {
		raw := "GET " + target + " HTTP/1.1\r\nHost: localhost\r\nX-Test: " + value + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		if err := verify(r, rulesFor(S3, "s3")); err == nil {
			t.Fatal("a forged signature was accepted")
		}
		a := &Authorization{SignedHeaders: names}
		for _, s3 := range []bool{false, true} {
			b := appendCanonicalRequest(nil, r, a, emptyHash, s3)
			if !bytes.HasSuffix(b, []byte("\n"+emptyHash)) {
				t.Fatalf("canonical request is %q", b)
			}
		}
	})
}
