package sigv4

import (
	"net/http"
	"strings"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const goodHeader = "AWS4-HMAC-SHA256 Credential=" + testKey + "/20150830/us-east-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"

// unsigned makes a request as a server sees it, with an Authorization header.
func unsigned(authorization, date string) *http.Request {
	r, err := http.NewRequest("GET", "http://localhost/", nil)
	if err != nil {
		panic(err)
	}
	r.RequestURI = "/"
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	if date != "" {
		r.Header.Set("X-Amz-Date", date)
	}
	return r
}

func TestFailuresSpeakEachDialect(t *testing.T) {
	const date = "20150830T123600Z"
	tests := map[string]struct {
		r       *http.Request
		codes   [4]string // REST-JSON, RPC, Query, S3
		message string    // part of the one in the first three
	}{
		"anonymous": {
			unsigned("", ""),
			[4]string{"MissingAuthenticationTokenException", "MissingAuthenticationTokenException", "MissingAuthenticationToken", "AccessDenied"},
			"Authentication Token",
		},
		"basic": {
			unsigned("Basic YTpi", ""),
			[4]string{"MissingAuthenticationTokenException", "MissingAuthenticationTokenException", "MissingAuthenticationToken", "InvalidArgument"},
			"Authentication Token",
		},
		"signature version 2": {
			unsigned("AWS AKID:sig", ""),
			[4]string{"MissingAuthenticationTokenException", "MissingAuthenticationTokenException", "MissingAuthenticationToken", "InvalidRequest"},
			"Authentication Token",
		},
		"no date": {
			unsigned(goodHeader, ""),
			[4]string{"IncompleteSignatureException", "IncompleteSignatureException", "IncompleteSignature", "AccessDenied"},
			"Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
		},
		"bad date": {
			unsigned(goodHeader, "2015"),
			[4]string{"IncompleteSignatureException", "IncompleteSignatureException", "IncompleteSignature", "AccessDenied"},
			"Date must be in ISO-8601 'basic format'. Got '2015'.",
		},
		"no parts": {
			unsigned("AWS4-HMAC-SHA256", date),
			[4]string{"IncompleteSignatureException", "IncompleteSignatureException", "IncompleteSignature", "AuthorizationHeaderMalformed"},
			"Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter.",
		},
		"not a pair": {
			unsigned("AWS4-HMAC-SHA256 Credential", date),
			[4]string{"IncompleteSignatureException", "IncompleteSignatureException", "IncompleteSignature", "AuthorizationHeaderMalformed"},
			"'Credential' not a valid key=value pair (missing equal-sign) in Authorization header",
		},
		"short scope": {
			unsigned(strings.Replace(goodHeader, "/aws4_request", "", 1), date),
			[4]string{"IncompleteSignatureException", "IncompleteSignatureException", "IncompleteSignature", "AuthorizationHeaderMalformed"},
			"Credential must have exactly 5 slash-delimited elements",
		},
		"other algorithm": {
			unsigned(strings.Replace(goodHeader, "SHA256", "SHA512", 1), date),
			[4]string{"IncompleteSignatureException", "IncompleteSignatureException", "IncompleteSignature", "InvalidRequest"},
			"Unsupported AWS 'algorithm'",
		},
		"asymmetric": {
			unsigned("AWS4-ECDSA-P256-SHA256 Credential=a/20150830/lambda/aws4_request, SignedHeaders=host, Signature=00", date),
			[4]string{"IncompleteSignatureException", "IncompleteSignatureException", "IncompleteSignature", "NotImplemented"},
			"Asymmetric signatures",
		},
		"wrong region": {
			unsigned(strings.Replace(goodHeader, "us-east-1", "eu-west-1", 1), date),
			[4]string{"InvalidSignatureException", "InvalidSignatureException", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"},
			"Credential should be scoped to a valid region, not 'eu-west-1'.",
		},
		"wrong service": {
			unsigned(strings.Replace(goodHeader, "lambda", "sqs", 1), date),
			[4]string{"InvalidSignatureException", "InvalidSignatureException", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"},
			"Credential should be scoped to correct service: 'lambda'.",
		},
		"wrong terminator": {
			unsigned(strings.Replace(goodHeader, "aws4_request", "aws5", 1), date),
			[4]string{"InvalidSignatureException", "InvalidSignatureException", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"},
			"Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5'.",
		},
		"wrong scope date": {
			unsigned(strings.Replace(goodHeader, "20150830", "20150829", 1), date),
			[4]string{"InvalidSignatureException", "InvalidSignatureException", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"},
			"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20150829' != '20150830', from '20150830T123600Z'.",
		},
		"host not signed": {
			unsigned(strings.Replace(goodHeader, "host;", "", 1), date),
			[4]string{"InvalidSignatureException", "InvalidSignatureException", "SignatureDoesNotMatch", "AccessDenied"},
			"'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
		},
		"from the past": {
			unsigned(goodHeader, "20150830T120000Z"),
			[4]string{"InvalidSignatureException", "InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed"},
			"Signature expired: 20150830T120000Z is now earlier than 20150830T12",
		},
		"from the future": {
			unsigned(goodHeader, "20150830T130000Z"),
			[4]string{"InvalidSignatureException", "InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed"},
			"Signature not yet current: 20150830T130000Z is still later than 20150830T12",
		},
		"wrong signature": {
			unsigned(goodHeader, date),
			[4]string{"InvalidSignatureException", "InvalidSignatureException", "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
			"The request signature we calculated does not match the signature you provided.",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for i, dialect := range []Dialect{RESTJSON, RPC, Query, S3} {
				r := tt.r.Clone(t.Context())
				if dialect == S3 {
					r.Header.Set("X-Amz-Content-Sha256", emptyHash)
				}
				e := wantCode(t, verify(r, rulesFor(dialect, "lambda")), dialect, tt.codes[i])
				if dialect != S3 && !strings.Contains(e.Message, tt.message) {
					t.Errorf("message is %q, want one with %q", e.Message, tt.message)
				}
				if (dialect == RPC) != (e.Status == 400) && dialect != S3 && !strings.HasPrefix(e.Code, "Incomplete") {
					t.Errorf("dialect %d has status %d", dialect, e.Status)
				}
			}
		})
	}
}

func TestCredentialFailures(t *testing.T) {
	long, session := &Authorization{AccessKeyID: testKey}, &Authorization{AccessKeyID: testKey, SessionToken: "t"}
	wantCode(t, UnknownAccessKey(long), RESTJSON, "UnrecognizedClientException")
	wantCode(t, UnknownAccessKey(long), Query, "InvalidClientTokenId")
	wantCode(t, UnknownAccessKey(long), S3, "InvalidAccessKeyId")
	wantCode(t, UnknownAccessKey(session), S3, "InvalidToken")
	wantCode(t, ExpiredToken(), RESTJSON, "ExpiredTokenException")
	wantCode(t, ExpiredToken(), Query, "ExpiredToken")
	wantCode(t, ExpiredToken(), S3, "ExpiredToken")
}

func TestSkewIsFiveMinutesAndFifteenForS3(t *testing.T) {
	for service, dialect := range map[string]Dialect{"lambda": RESTJSON, "iam": Query, "s3": S3} {
		limit := dialect.maxSkew()
		for _, tt := range []struct {
			offset time.Duration
			ok     bool
		}{{0, true}, {limit, true}, {-limit, true}, {limit + time.Second, false}, {-limit - time.Second, false}} {
			r := signed(t, "GET", "http://localhost/", nil, nil, service)
			a, err := Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			v := NewVerifier(func() time.Time { return testTime.Add(tt.offset) })
			if err := v.Verify(r, a, testSecret, rulesFor(dialect, service)); (err == nil) != tt.ok {
				t.Errorf("%s, %v off: %v", service, tt.offset, err)
			}
		}
	}
}

func TestEveryAmzHeaderMustBeSigned(t *testing.T) {
	r := signed(t, "GET", "http://localhost/", nil, nil, "lambda")
	r.Header.Set("X-Amz-Invocation-Type", "Event")
	wantCode(t, verify(r, rulesFor(RESTJSON, "lambda")), RESTJSON, "InvalidSignatureException")

	r = signed(t, "GET", "http://localhost/b/k", nil, nil, "s3")
	r.Header.Set("X-Amz-Copy-Source", "/b/secret")
	e := wantCode(t, verify(r, rulesFor(S3, "s3")), S3, "AccessDenied")
	if e.Extra["HeadersNotSigned"] != "x-amz-copy-source" {
		t.Errorf("extra is %v", e.Extra)
	}
}

func presigned(t *testing.T, service, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	hash := unsignedPayload
	if service != "s3" {
		hash = emptyHash
	}
	signedURL, header, err := v4.NewSigner().PresignHTTP(t.Context(), sdkCredentials(), r, hash, service, "us-east-1", testTime,
		func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
	if err != nil {
		t.Fatal(err)
	}
	out, err := http.NewRequest("GET", signedURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if k != "Host" {
			out.Header[k] = v
		}
	}
	return received(t, out, nil)
}

func TestPresignedURLs(t *testing.T) {
	const s3URL = "http://localhost:4566/bucket/a%20key?X-Amz-Expires=3600&versionId=1"
	tests := map[string]struct {
		service, url string
		age          time.Duration
		change       func(*http.Request)
		code         string
	}{
		"fresh":             {"s3", s3URL, 0, nil, ""},
		"at its end":        {"s3", s3URL, time.Hour, nil, ""},
		"expired":           {"s3", s3URL, time.Hour + time.Second, nil, "AccessDenied"},
		"a week":            {"s3", "http://localhost/b/k?X-Amz-Expires=604800", 7 * 24 * time.Hour, nil, ""},
		"over a week":       {"s3", "http://localhost/b/k?X-Amz-Expires=604801", 0, nil, "AuthorizationQueryParametersError"},
		"absurd":            {"s3", "http://localhost/b/k?X-Amz-Expires=99999999999999999999999", 0, nil, "AuthorizationQueryParametersError"},
		"negative":          {"s3", "http://localhost/b/k?X-Amz-Expires=-1", 0, nil, "AuthorizationQueryParametersError"},
		"not a number":      {"s3", "http://localhost/b/k?X-Amz-Expires=1h", 0, nil, "AuthorizationQueryParametersError"},
		"without expiry":    {"s3", "http://localhost/b/k", 0, nil, "AuthorizationQueryParametersError"},
		"not yet valid":     {"s3", s3URL, -time.Hour, nil, "AccessDenied"},
		"another key":       {"s3", s3URL, 0, func(r *http.Request) { r.RequestURI = strings.Replace(r.RequestURI, "a%20key", "other", 1) }, "SignatureDoesNotMatch"},
		"parameter added":   {"s3", s3URL, 0, func(r *http.Request) { r.URL.RawQuery += "&acl" }, "SignatureDoesNotMatch"},
		"parameter twice":   {"s3", s3URL, 0, func(r *http.Request) { r.URL.RawQuery += "&X-Amz-Expires=60" }, "AuthorizationQueryParametersError"},
		"and a header":      {"s3", s3URL, 0, func(r *http.Request) { r.Header.Set("Authorization", goodHeader) }, "InvalidArgument"},
		"sts":               {"sts", "http://localhost/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60", 0, nil, ""},
		"sts, its end":      {"sts", "http://localhost/?Action=GetCallerIdentity&X-Amz-Expires=60", time.Minute + time.Second, nil, "SignatureDoesNotMatch"},
		"sts, 15 min":       {"sts", "http://localhost/?Action=GetCallerIdentity&X-Amz-Expires=3600", 15 * time.Minute, nil, ""},
		"sts, over 15 min":  {"sts", "http://localhost/?Action=GetCallerIdentity&X-Amz-Expires=3600", 16 * time.Minute, nil, "SignatureDoesNotMatch"},
		"sts, no expiry":    {"sts", "http://localhost/?Action=GetCallerIdentity", 5 * time.Minute, nil, ""},
		"sts, over 5 min":   {"sts", "http://localhost/?Action=GetCallerIdentity", 6 * time.Minute, nil, "SignatureDoesNotMatch"},
		"sts, no signature": {"sts", "http://localhost/", 0, func(r *http.Request) { r.URL.RawQuery = "X-Amz-Algorithm=AWS4-HMAC-SHA256" }, "IncompleteSignature"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dialect := Query
			if tt.service == "s3" {
				dialect = S3
			}
			r := presigned(t, tt.service, tt.url)
			if tt.change != nil {
				tt.change(r)
			}
			a, err := Parse(r)
			if err == nil {
				v := NewVerifier(func() time.Time { return testTime.Add(tt.age) })
				err = v.Verify(r, a, testSecret, rulesFor(dialect, tt.service))
			}
			if tt.code != "" {
				wantCode(t, err, dialect, tt.code)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSessionTokenIsRead(t *testing.T) {
	r := unsigned(goodHeader, "20150830T123600Z")
	r.Header.Set("X-Amz-Security-Token", "token")
	if a, err := Parse(r); err != nil || a.SessionToken != "token" || a.AccessKeyID != testKey || a.Region != "us-east-1" || a.Service != "lambda" {
		t.Errorf("authorization is %+v, %v", a, err)
	}
	r = unsigned("", "")
	r.URL.RawQuery = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + testKey + "%2F20150830%2Fus-east-1%2Fsts%2Faws4_request" +
		"&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Signature=00&X-Amz-Security-Token=a%2Bb%3D"
	if a, err := Parse(r); err != nil || a.SessionToken != "a+b=" || a.Service != "sts" || !a.Presigned {
		t.Errorf("authorization is %+v, %v", a, err)
	}
}

func TestDateHeaderReplacesAmzDate(t *testing.T) {
	r := unsigned(strings.Replace(goodHeader, "x-amz-date", "date", 1), "")
	r.Header.Set("Date", testTime.Format(http.TimeFormat))
	a, err := Parse(r)
	if err != nil || a.timestamp != "20150830T123600Z" {
		t.Errorf("authorization is %+v, %v", a, err)
	}
}
