package functionurl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
)

const (
	testID     = "abcdefghijklmnopqrstuvwxyz234567"
	testHost   = testID + ".lambda-url.eu-west-1.localhost:4566"
	requestID  = "11111111-2222-3333-4444-555555555555"
	integrated = "application/vnd.awslambda.http-integration-response"
)

// fakeFunctions is one function with one URL.
type fakeFunctions struct {
	url    *function.URL
	event  []byte
	answer func(w io.Writer) (*invoke.Result, error)
}

func (f *fakeFunctions) FunctionURL(id string) *function.URL {
	if f.url != nil && f.url.ID == id {
		return f.url
	}
	return nil
}

func (f *fakeFunctions) InvokeURL(_ context.Context, _ *function.URL, event []byte, w io.Writer) (*invoke.Result, error) {
	f.event = event
	return f.answer(w)
}

type fakeCredentials struct{}

func (fakeCredentials) Lookup(id, _ string) (string, aws.Identity, error) {
	if id != "AKIDEXAMPLE" {
		return "", aws.Identity{}, credentials.ErrUnknownKey
	}
	return "secret", aws.Identity{AccountID: "123456789012", ARN: "arn:aws:iam::123456789012:user/ada", UserID: "AIDAEXAMPLE", AccessKeyID: id}, nil
}

// returns makes a function return a payload.
func returns(payload string) func(io.Writer) (*invoke.Result, error) {
	return func(w io.Writer) (*invoke.Result, error) {
		_, err := io.WriteString(w, payload)
		return &invoke.Result{ContentType: "application/json"}, err
	}
}

// streams makes a function stream chunks of a content type.
func streams(contentType string, chunks ...string) func(io.Writer) (*invoke.Result, error) {
	return func(w io.Writer) (*invoke.Result, error) {
		w.(invoke.Beginner).Begin(contentType)
		for _, c := range chunks {
			if _, err := io.WriteString(w, c); err != nil {
				break // a caller that is broken is not the function's business
			}
		}
		return &invoke.Result{ContentType: contentType}, nil
	}
}

var arrival = time.Date(2026, 11, 24, 1, 2, 3, 456e6, time.UTC)

// serve sends a request to the URL.
func (f *fakeFunctions) serve(t testing.TB, r *http.Request, prefix string) *http.Response {
	t.Helper()
	h := New(Options{
		Functions: f, Credentials: fakeCredentials{}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Now: func() time.Time { return arrival },
	})
	w := httptest.NewRecorder()
	ctx := aws.WithRequest(r.Context(), &aws.Request{
		ID: requestID, Region: "eu-west-1", AccountID: "123456789012", SourceIP: "192.0.2.7", Header: r.Header, Time: arrival,
	})
	h.ServeURL(w, r.WithContext(ctx), testID, prefix)
	return w.Result()
}

func public() *function.URL { return &function.URL{ID: testID, Public: true} }

func request(method, target, body string, header ...string) *http.Request {
	r := httptest.NewRequest(method, "http://"+testHost+target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func body(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheWholeEvent(t *testing.T) {
	f := &fakeFunctions{url: public(), answer: returns("{}")}
	r := request("POST", "/_lapwing/url/"+testID+"/a%20b/c?x=1&y=%C3%A4&x=2&bad=%zz&flag", `{"ü":1}`,
		"Content-Type", "application/json; charset=utf-8", "Cookie", "a=b; c=d", "Cookie", "e=f", "X-Two", "1", "X-Two", "2",
		"Connection", "keep-alive, X-Secret", "X-Secret", "s", "Keep-Alive", "3", "User-Agent", "test/1", "X-Forwarded-For", "198.51.100.1",
		"X-Amzn-Trace-Id", "Root=1-5759e988-bd862e3fe1be46a994272793")
	f.serve(t, r, "/_lapwing/url/"+testID)
	var got, want any
	if err := json.Unmarshal(f.event, &got); err != nil {
		t.Fatal(err)
	}
	json.Unmarshal([]byte(`{
		"version":"2.0","routeKey":"$default","rawPath":"/a%20b/c","rawQueryString":"x=1&y=%C3%A4&x=2&bad=%zz&flag",
		"cookies":["a=b","c=d","e=f"],
		"headers":{
			"content-type":"application/json; charset=utf-8","host":"`+testHost+`","x-two":"1,2","user-agent":"test/1",
			"x-forwarded-for":"198.51.100.1,192.0.2.7","x-forwarded-port":"4566","x-forwarded-proto":"http",
			"x-amzn-trace-id":"Root=1-5759e988-bd862e3fe1be46a994272793"},
		"queryStringParameters":{"x":"1,2","y":"ä","flag":""},
		"requestContext":{
			"accountId":"anonymous","apiId":"`+testID+`","domainName":"`+testID+`.lambda-url.eu-west-1.localhost","domainPrefix":"`+testID+`",
			"http":{"method":"POST","path":"/a%20b/c","protocol":"HTTP/1.1","sourceIp":"192.0.2.7","userAgent":"test/1"},
			"requestId":"`+requestID+`","routeKey":"$default","stage":"$default","time":"24/Nov/2026:01:02:03 +0000","timeEpoch":1795482123456},
		"body":"{\"ü\":1}","isBase64Encoded":false}`), &want)
	g, _ := json.MarshalIndent(got, "", " ")
	w, _ := json.MarshalIndent(want, "", " ")
	if !bytes.Equal(g, w) {
		t.Errorf("got %s\nwant %s", g, w)
	}
}

func TestWhatIsAbsentFromTheEvent(t *testing.T) {
	f := &fakeFunctions{url: public(), answer: returns("{}")}
	f.serve(t, request("GET", "/", ""), "")
	for _, name := range []string{"cookies", "queryStringParameters", "body", "authorizer"} {
		if bytes.Contains(f.event, []byte(`"`+name+`"`)) {
			t.Errorf("the event has %s: %s", name, f.event)
		}
	}
}

func TestBodyOfTheEvent(t *testing.T) {
	for _, c := range []struct{ contentType, encoding, body, want string }{
		{"text/plain", "", "é", "é"},
		{"application/json", "", `{}`, `{}`},
		{"application/problem+json", "", `{}`, `{}`},
		{"image/svg+xml", "", "<x/>", "<x/>"},
		{"application/javascript", "", "x", "x"},
		{"application/xml; charset=utf-8", "", "<x/>", "<x/>"},
		{"application/x-www-form-urlencoded", "", "a=b", "base64 YT1i"},
		{"multipart/form-data; boundary=x", "", "--x--", "base64 LS14LS0="},
		{"application/octet-stream", "", "a", "base64 YQ=="},
		{"", "", "a", "base64 YQ=="},
		{"text/plain", "gzip", "a", "base64 YQ=="},
		{"text/plain", "", "\xff", "base64 /w=="},
	} {
		f := &fakeFunctions{url: public(), answer: returns("{}")}
		r := request("POST", "/", c.body)
		if c.contentType != "" {
			r.Header.Set("Content-Type", c.contentType)
		}
		if c.encoding != "" {
			r.Header.Set("Content-Encoding", c.encoding)
		}
		f.serve(t, r, "")
		var e event
		if err := json.Unmarshal(f.event, &e); err != nil {
			t.Fatal(err)
		}
		got := *e.Body
		if e.IsBase64Encoded {
			got = "base64 " + got
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.contentType, c.encoding, got, c.want)
		}
	}
}

func TestResponses(t *testing.T) {
	for _, c := range []struct {
		name, payload string
		status        int
		body          string
		headers       map[string]string // joined by " | "
	}{
		{name: "whole", payload: `{"statusCode":201,"headers":{"x-a":"b","content-type":"text/plain","n":1,"off":null},"cookies":["a=b","c=d; Secure"],"body":"hi"}`,
			status: 201, body: "hi", headers: map[string]string{"X-A": "b", "Content-Type": "text/plain", "N": "1", "Off": "", "Set-Cookie": "a=b | c=d; Secure", "Content-Length": "2"}},
		{name: "base64", payload: `{"statusCode":200,"isBase64Encoded":true,"body":"/wA="}`, status: 200, body: "\xff\x00", headers: map[string]string{"Content-Type": "application/json"}},
		{name: "only a status", payload: `{"statusCode":"204"}`, status: 204, headers: map[string]string{"Content-Length": ""}},
		{name: "a body of JSON", payload: `{"statusCode":200,"body":{"a":[1]}}`, status: 200, body: `{"a":[1]}`},
		{name: "a null body", payload: `{"statusCode":200,"body":null,"headers":null,"cookies":null}`, status: 200},
		{name: "another object", payload: `{"a":1}`, status: 200, body: `{"a":1}`, headers: map[string]string{"Content-Type": "application/json"}},
		{name: "member names are exact", payload: `{"statuscode":201}`, status: 200, body: `{"statuscode":201}`},
		{name: "a string", payload: `"hi \u00e4"`, status: 200, body: "hi ä"},
		{name: "a number", payload: `3.1`, status: 200, body: "3.1"},
		{name: "a list", payload: `[1, "a"]`, status: 200, body: `[1, "a"]`},
		{name: "null", payload: `null`, status: 200, body: `null`},
		{name: "headers that concern the connection are left out", payload: `{"statusCode":200,"headers":{"connection":"close","transfer-encoding":"gzip","content-length":"99","upgrade":"x"},"body":"x"}`,
			status: 200, body: "x", headers: map[string]string{"Connection": "", "Transfer-Encoding": "", "Upgrade": "", "Content-Length": "1"}},
		{name: "headers that are not the function's", payload: `{"statusCode":200,"headers":{"date":"d","www-authenticate":"Basic"}}`,
			status: 200, headers: map[string]string{"X-Amzn-Remapped-Date": "d", "X-Amzn-Remapped-Www-Authenticate": "Basic", "Www-Authenticate": ""}},
		{name: "not JSON", payload: `{`, status: 502, body: "Internal Server Error"},
		{name: "a status that is none", payload: `{"statusCode":99}`, status: 502, body: "Internal Server Error"},
		{name: "a status of text", payload: `{"statusCode":"ok"}`, status: 502, body: "Internal Server Error"},
		{name: "a header of several values", payload: `{"statusCode":200,"headers":{"a":["b"]}}`, status: 502, body: "Internal Server Error"},
		{name: "a header that would be two", payload: `{"statusCode":200,"headers":{"a":"b\r\nc: d"}}`, status: 502, body: "Internal Server Error"},
		{name: "a cookie that would be two", payload: `{"statusCode":200,"cookies":["a\nb"]}`, status: 502, body: "Internal Server Error"},
		{name: "cookies that are none", payload: `{"statusCode":200,"cookies":"a=b"}`, status: 502, body: "Internal Server Error"},
		{name: "bad base64", payload: `{"statusCode":200,"isBase64Encoded":true,"body":"%"}`, status: 502, body: "Internal Server Error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeFunctions{url: public(), answer: returns(c.payload)}
			res := f.serve(t, request("GET", "/", ""), "")
			if got := body(t, res); res.StatusCode != c.status || got != c.body {
				t.Errorf("%d %q, want %d %q", res.StatusCode, got, c.status, c.body)
			}
			for name, want := range c.headers {
				if got := strings.Join(res.Header.Values(name), " | "); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestFailures(t *testing.T) {
	throttled := &aws.Error{Code: "TooManyRequestsException", Status: 429, Message: "Rate Exceeded.", Extra: map[string]string{"Reason": "R", "Type": "User"}}
	for _, c := range []struct {
		name      string
		answer    func(io.Writer) (*invoke.Result, error)
		status    int
		body      string
		errorType string
	}{
		{"the function failed", func(w io.Writer) (*invoke.Result, error) {
			io.WriteString(w, `{"errorMessage":"secret"}`)
			return &invoke.Result{FunctionError: "Unhandled"}, nil
		}, 502, "Internal Server Error", ""},
		{"throttled", func(io.Writer) (*invoke.Result, error) { return nil, throttled }, 429,
			`{"Reason":"R","Type":"User","message":"Rate Exceeded."}`, "TooManyRequestsException"},
		{"a fault of ours", func(io.Writer) (*invoke.Result, error) { return nil, errors.New("secret") }, 500,
			`{"Message":"Internal Server Error"}`, "InternalFailure"},
	} {
		for _, streaming := range []bool{false, true} {
			u := public()
			u.Streaming = streaming
			f := &fakeFunctions{url: u, answer: c.answer}
			res := f.serve(t, request("GET", "/", ""), "")
			if got := body(t, res); res.StatusCode != c.status || got != c.body || res.Header.Get("X-Amzn-Errortype") != c.errorType {
				t.Errorf("%s, streaming %v: %d %q %v", c.name, streaming, res.StatusCode, got, res.Header)
			}
		}
	}
}

func TestSizeOfARequest(t *testing.T) {
	for _, c := range []struct {
		contentType string
		size        int
		status      int
	}{
		{"text/plain", maxPayload + 1, 413},
		{"text/plain", maxPayload, 413}, // with the rest of the event
		{"text/plain", maxPayload - 4096, 200},
		{"application/octet-stream", maxPayload * 3 / 4, 413},
		{"application/octet-stream", (maxPayload - 4096) * 3 / 4, 200},
	} {
		f := &fakeFunctions{url: public(), answer: returns(`"ok"`)}
		res := f.serve(t, request("POST", "/", strings.Repeat("x", c.size), "Content-Type", c.contentType), "")
		if res.StatusCode != c.status {
			t.Errorf("%d bytes of %s: %d", c.size, c.contentType, res.StatusCode)
		}
	}
}

func TestWhoMayCall(t *testing.T) {
	sign := func(r *http.Request, key, secret string) *http.Request {
		b, _ := io.ReadAll(r.Body)
		sum := sha256.Sum256(b)
		r.Body = io.NopCloser(bytes.NewReader(b))
		err := v4.NewSigner().SignHTTP(context.Background(), awssdk.Credentials{AccessKeyID: key, SecretAccessKey: secret}, r, hex.EncodeToString(sum[:]), "lambda", "eu-west-1", arrival)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const refused = "Forbidden. For troubleshooting Function URL authorization issues, see: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
	post := func() *http.Request { return request("POST", "/p?a=b", "body", "Content-Type", "text/plain") }
	for _, c := range []struct {
		name      string
		url       *function.URL
		request   *http.Request
		status    int
		errorType string
		message   string
	}{
		{"no such URL", nil, post(), 403, "AccessDeniedException", "null"},
		{"NONE with the policy's permission", public(), post(), 200, "", ""},
		{"NONE without", &function.URL{ID: testID}, post(), 403, "AccessDeniedException", refused},
		{"AWS_IAM, signed", &function.URL{ID: testID, IAM: true}, sign(post(), "AKIDEXAMPLE", "secret"), 200, "", ""},
		{"AWS_IAM, not signed", &function.URL{ID: testID, IAM: true, Public: true}, post(), 403, "AccessDeniedException", refused},
		{"AWS_IAM, signed with another secret", &function.URL{ID: testID, IAM: true}, sign(post(), "AKIDEXAMPLE", "wrong"), 403, "InvalidSignatureException", "signature we calculated does not match"},
		{"AWS_IAM, signed with an unknown key", &function.URL{ID: testID, IAM: true}, sign(post(), "AKIDOTHER", "secret"), 403, "UnrecognizedClientException", "security token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeFunctions{url: c.url, answer: returns(`"ok"`)}
			res := f.serve(t, c.request, "")
			got := body(t, res)
			if res.StatusCode != c.status || res.Header.Get("X-Amzn-Errortype") != c.errorType || !strings.Contains(got, c.message) {
				t.Errorf("%d %s %s", res.StatusCode, res.Header.Get("X-Amzn-Errortype"), got)
			}
			if (f.event != nil) != (c.status == 200) {
				t.Errorf("the function got %s", f.event)
			}
			if c.status == 200 && c.url.IAM {
				var e event
				if err := json.Unmarshal(f.event, &e); err != nil {
					t.Fatal(err)
				}
				want := iamCaller{AccessKey: "AKIDEXAMPLE", AccountID: "123456789012", CallerID: "AIDAEXAMPLE", UserARN: "arn:aws:iam::123456789012:user/ada", UserID: "AIDAEXAMPLE"}
				if e.RequestContext.Authorizer == nil || e.RequestContext.Authorizer.IAM != want || e.RequestContext.AccountID != "123456789012" || *e.Body != "body" {
					t.Errorf("event %s", f.event)
				}
			}
		})
	}
}

func TestMethods(t *testing.T) {
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 200, "PUT": 200, "PATCH": 200, "DELETE": 200, "OPTIONS": 200, "TRACE": 405, "BREW": 405} {
		f := &fakeFunctions{url: public(), answer: returns(`"ok"`)}
		if res := f.serve(t, request(method, "/", ""), ""); res.StatusCode != want {
			t.Errorf("%s: %d", method, res.StatusCode)
		}
	}
}
