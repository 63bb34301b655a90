package sigv4

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

const legacyURL = "http://localhost:4566/bucket/a%20b%2Bc~%28%C3%A9%29.txt"

// legacySigned signs a URL of version 2; the string to sign is written out
// here, so that it is not ours that is tested against itself.
func legacySigned(t *testing.T, target, resource, amz string, expires string) string {
	t.Helper()
	mac := hmac.New(sha1.New, []byte(testSecret))
	mac.Write([]byte("GET\n\n\n" + expires + "\n" + amz + resource))
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	return target + separator + "AWSAccessKeyId=" + testKey + "&Expires=" + expires + "&Signature=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

func TestLegacyPresignedURLs(t *testing.T) {
	const path, expires = "/bucket/a%20b%2Bc~%28%C3%A9%29.txt", "1440941760" // an hour after testTime
	good := legacySigned(t, legacyURL, path, "", expires)
	tests := map[string]struct {
		url    string
		bucket string
		age    time.Duration
		change func(*http.Request)
		code   string
	}{
		"good":               {good, "", 0, nil, ""},
		"bucket in the host": {legacySigned(t, "http://bucket.localhost/k", "/bucket/k", "", expires), "bucket", 0, nil, ""},
		"subresource":        {legacySigned(t, legacyURL+"?versionId=a%2Bb&x-id=GetObject&acl", path+"?acl&versionId=a+b", "", expires), "", 0, nil, ""},
		"session token":      {legacySigned(t, legacyURL+"?x-amz-security-token=tok", path, "x-amz-security-token:tok\n", expires), "", 0, nil, ""},
		"expired":            {good, "", 61 * time.Minute, nil, "AccessDenied"},
		"other path":         {good, "", 0, func(r *http.Request) { r.RequestURI = strings.Replace(r.RequestURI, "bucket", "other", 1) }, "SignatureDoesNotMatch"},
		"other method":       {good, "", 0, func(r *http.Request) { r.Method = "DELETE" }, "SignatureDoesNotMatch"},
		"longer life":        {strings.Replace(good, expires, "1540941760", 1), "", 0, nil, "SignatureDoesNotMatch"},
		"added subresource":  {good + "&acl", "", 0, nil, "SignatureDoesNotMatch"},
		"added parameter":    {good + "&attributes", "", 0, nil, "AccessDenied"},
		"parameter twice":    {good + "&Expires=1", "", 0, nil, "AccessDenied"},
		"added header":       {good, "", 0, func(r *http.Request) { r.Header.Set("X-Amz-Acl", "public-read") }, "SignatureDoesNotMatch"},
		"no expiry":          {strings.Replace(good, "Expires", "Other", 1), "", 0, nil, "AccessDenied"},
		"a header too":       {good, "", 0, func(r *http.Request) { r.Header.Set("Authorization", goodHeader) }, "InvalidArgument"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := http.NewRequest("GET", tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			r := received(t, out, nil)
			if tt.change != nil {
				tt.change(r)
			}
			a, err := Parse(r)
			if err == nil {
				rules := rulesFor(S3, "s3")
				rules.Bucket = tt.bucket
				v := NewVerifier(func() time.Time { return testTime.Add(tt.age) })
				err = v.Verify(r, a, testSecret, rules)
			}
			if tt.code != "" {
				wantCode(t, err, S3, tt.code)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLegacyURLsAreForS3Only(t *testing.T) {
	out, err := http.NewRequest("GET", legacySigned(t, "http://localhost/", "/", "", "1440941760"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := received(t, out, nil)
	wantCode(t, verify(r, rulesFor(Query, "sts")), Query, "MissingAuthenticationToken")
	if _, err := io.ReadAll(r.Body); err != nil {
		t.Error(err)
	}
}
