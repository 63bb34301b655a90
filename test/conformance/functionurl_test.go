package conformance_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// site is a function with a URL.
type site struct {
	t    *testing.T
	c    *lambda.Client
	name string
	url  string
}

// newSite creates a function and its URL.
func newSite(t *testing.T, in *lambda.CreateFunctionInput, url *lambda.CreateFunctionUrlConfigInput) *site {
	t.Helper()
	s := &site{t: t, c: lambda.NewFromConfig(server.Config()), name: *in.FunctionName}
	in.Role, in.Timeout, in.MemorySize = aws.String(role()), aws.Int32(120), aws.Int32(1769)
	if _, err := s.c.CreateFunction(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.c.DeleteFunction(context.Background(), &lambda.DeleteFunctionInput{FunctionName: &s.name}); err != nil {
			t.Error(err)
		}
	})
	active := lambda.NewFunctionActiveV2Waiter(s.c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 100 * time.Millisecond })
	if err := active.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: in.FunctionName}, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	url.FunctionName = in.FunctionName
	out, err := s.c.CreateFunctionUrlConfig(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	s.url = *out.FunctionUrl
	return s
}

// nodeSite is newSite for a Node.js handler.
func nodeSite(t *testing.T, name, code string, url *lambda.CreateFunctionUrlConfigInput) *site {
	t.Helper()
	return newSite(t, &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: nodeRuntime, Handler: aws.String("index.handler"),
		Code: &types.FunctionCode{ZipFile: harness.Zip(map[string]string{"index.mjs": code})},
	}, url)
}

// open lets everyone call the URL.
func (s *site) open() {
	s.t.Helper()
	for _, in := range []*lambda.AddPermissionInput{
		{StatementId: aws.String("url"), Action: aws.String("lambda:InvokeFunctionUrl"), FunctionUrlAuthType: types.FunctionUrlAuthTypeNone},
		{StatementId: aws.String("fn"), Action: aws.String("lambda:InvokeFunction"), InvokedViaFunctionUrl: aws.Bool(true)},
	} {
		in.FunctionName, in.Principal = &s.name, aws.String("*")
		if _, err := s.c.AddPermission(s.t.Context(), in); err != nil {
			s.t.Fatal(err)
		}
	}
}

// do makes a request of the URL and returns the response with its body.
func (s *site) do(method, path, body string, change ...func(*http.Request)) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, strings.TrimSuffix(s.url, "/")+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range change {
		c(req)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res, string(b)
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// signed signs a request of a body as SDKs sign for Lambda.
func signed(t *testing.T, body string) func(*http.Request) {
	return func(r *http.Request) {
		creds, err := server.Config().Credentials.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(body))
		if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hex.EncodeToString(sum[:]), "lambda", server.Env["AWS_REGION"], time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBufferedFunctionURL(t *testing.T) {
	t.Parallel()
	s := nodeSite(t, "url-buffered", `
export const handler = async (event) => {
  switch (event.rawPath) {
  case '/whole': return { statusCode: 201, headers: { 'content-type': 'text/plain', 'x-a': 'b' }, cookies: ['a=b', 'c=d'], body: 'hi' };
  case '/binary': return { statusCode: 200, isBase64Encoded: true, body: Buffer.from([0, 255]).toString('base64') };
  case '/fail': throw new Error('as told');
  case '/bad': return { statusCode: 'no' };
  default: return event;
  }
};`, &lambda.CreateFunctionUrlConfigInput{
		AuthType: types.FunctionUrlAuthTypeNone,
		Cors:     &types.Cors{AllowOrigins: []string{"https://a.example"}, AllowMethods: []string{"PUT"}},
	})
	if res, body := s.do("GET", "/", ""); res.StatusCode != 403 || res.Header.Get("X-Amzn-Errortype") != "AccessDeniedException" || !strings.HasPrefix(body, `{"Message":"Forbidden`) {
		t.Errorf("without permission: %d %v %s", res.StatusCode, res.Header, body)
	}
	s.open()

	res, body := s.do("POST", "/a/b?x=1&x=2", `{"k":1}`, header("Content-Type", "application/json"), header("Cookie", "a=b; c=d"))
	var event struct {
		Version, RawPath, RawQueryString, Body string
		Cookies                                []string
		Headers, QueryStringParameters         map[string]string
		RequestContext                         struct {
			AccountID, RequestID, APIID string
			HTTP                        struct{ Method, Path, SourceIP string }
		}
	}
	if err := json.Unmarshal([]byte(body), &event); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if event.Version != "2.0" || event.RawPath != "/a/b" || event.RawQueryString != "x=1&x=2" || event.QueryStringParameters["x"] != "1,2" || event.Body != `{"k":1}` ||
		len(event.Cookies) != 2 || event.Headers["content-type"] != "application/json" || event.RequestContext.AccountID != "anonymous" ||
		event.RequestContext.HTTP.Method != "POST" || event.RequestContext.HTTP.SourceIP != "127.0.0.1" || event.RequestContext.RequestID != res.Header.Get("X-Amzn-Requestid") {
		t.Errorf("event %s", body)
	}

	// The host name of AWS's form leads there, too.
	id := strings.Split(strings.TrimSuffix(s.url, "/"), "/_lapwing/url/")[1]
	host := id + ".lambda-url." + server.Env["AWS_REGION"] + ".localhost"
	req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL()+"/whole", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	byHost, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer byHost.Body.Close()
	if b, err := io.ReadAll(byHost.Body); byHost.StatusCode != 201 || string(b) != "hi" || err != nil {
		t.Errorf("by its host: %d %q %v", byHost.StatusCode, b, err)
	}

	res, body = s.do("GET", "/whole", "")
	if res.StatusCode != 201 || body != "hi" || res.Header.Get("X-A") != "b" || res.Header.Get("Content-Type") != "text/plain" || strings.Join(res.Header.Values("Set-Cookie"), ",") != "a=b,c=d" {
		t.Errorf("%d %v %q", res.StatusCode, res.Header, body)
	}
	if res, body = s.do("HEAD", "/whole", ""); res.StatusCode != 201 || body != "" || res.ContentLength != 2 {
		t.Errorf("HEAD: %d %q, length %d", res.StatusCode, body, res.ContentLength)
	}
	if res, body = s.do("GET", "/binary", ""); body != "\x00\xff" {
		t.Errorf("binary: %d %q", res.StatusCode, body)
	}
	for _, path := range []string{"/fail", "/bad"} {
		if res, body = s.do("GET", path, ""); res.StatusCode != 502 || body != "Internal Server Error" {
			t.Errorf("%s: %d %q", path, res.StatusCode, body)
		}
	}
	preflight := []func(*http.Request){header("Origin", "https://a.example"), header("Access-Control-Request-Method", "PUT")}
	if res, body = s.do("OPTIONS", "/fail", "", preflight...); res.StatusCode != 200 || body != "" || res.Header.Get("Access-Control-Allow-Origin") != "https://a.example" || res.Header.Get("Access-Control-Allow-Methods") != "PUT" {
		t.Errorf("preflight: %d %v", res.StatusCode, res.Header)
	}
	if res, body = s.do("POST", "/", strings.Repeat("x", 6<<20), header("Content-Type", "text/plain")); res.StatusCode != 413 {
		t.Errorf("too large: %d %.99q", res.StatusCode, body)
	}
	if _, err := s.c.PutFunctionConcurrency(t.Context(), &lambda.PutFunctionConcurrencyInput{FunctionName: &s.name, ReservedConcurrentExecutions: aws.Int32(0)}); err != nil {
		t.Fatal(err)
	}
	if res, body = s.do("GET", "/whole", ""); res.StatusCode != 429 || res.Header.Get("X-Amzn-Errortype") != "TooManyRequestsException" {
		t.Errorf("throttled: %d %v %s", res.StatusCode, res.Header, body)
	}
}

func TestSignedFunctionURL(t *testing.T) {
	t.Parallel()
	s := nodeSite(t, "url-signed", `export const handler = async (event) => event.requestContext.authorizer.iam.userArn + ' ' + event.body;`,
		&lambda.CreateFunctionUrlConfigInput{AuthType: types.FunctionUrlAuthTypeAwsIam})
	if res, body := s.do("POST", "/p?a=b", "hello"); res.StatusCode != 403 || !strings.HasPrefix(body, `{"Message":"Forbidden`) {
		t.Errorf("not signed: %d %s", res.StatusCode, body)
	}
	want := "arn:aws:iam::" + server.Account() + ":root hello"
	if res, body := s.do("POST", "/p?a=b", "hello", header("Content-Type", "text/plain"), signed(t, "hello")); res.StatusCode != 200 || body != want {
		t.Errorf("signed: %d %s", res.StatusCode, body)
	}
	if res, body := s.do("POST", "/p?a=b", "changed", signed(t, "hello")); res.StatusCode != 403 || res.Header.Get("X-Amzn-Errortype") != "InvalidSignatureException" {
		t.Errorf("another body: %d %s", res.StatusCode, body)
	}
}

// streaming writes a first piece, and waits for the gate until it writes more: a
// function URL, which answers otherwise when it exists.
const streaming = `
export const handler = awslambda.streamifyResponse(async (event, stream) => {
  const { gate, fail, head, big } = event.queryStringParameters ?? event;
  if (head) stream = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { 'x-a': 'b' }, cookies: ['c=d'] });
  else stream.setContentType('text/plain');
  stream.write('first');
  while (gate) {
    const res = await fetch(process.env.AWS_ENDPOINT_URL + '/_lapwing/url/' + gate + '/');
    if ((await res.text()).includes('Forbidden')) break;
    await new Promise((r) => setTimeout(r, 50));
  }
  if (fail) throw new TypeError('midway');
  if (big) for (let i = 0; i < big; i++) if (!stream.write(Buffer.alloc(65536, 'x'))) await new Promise((r) => stream.once('drain', r));
  stream.write(' second');
  stream.end();
});`

func TestStreamingFunctionURL(t *testing.T) {
	t.Parallel()
	s := nodeSite(t, "url-streaming", streaming, &lambda.CreateFunctionUrlConfigInput{AuthType: types.FunctionUrlAuthTypeNone, InvokeMode: types.InvokeModeResponseStream})
	s.open()
	if res, body := s.do("GET", "/?head=1", ""); res.StatusCode != 201 || body != "first second" || res.Header.Get("X-A") != "b" || res.Header.Get("Set-Cookie") != "c=d" {
		t.Errorf("with a head: %d %v %q", res.StatusCode, res.Header, body)
	}
	if res, body := s.do("GET", "/?big=80", ""); res.StatusCode != 200 || len(body) != 80*65536+len("first second") || res.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("%d %v, %d bytes", res.StatusCode, res.Header, len(body))
	}

	// The gate's id is known beforehand, since it is always the same.
	if _, err := s.c.CreateAlias(t.Context(), &lambda.CreateAliasInput{FunctionName: &s.name, Name: aws.String("gate"), FunctionVersion: aws.String("$LATEST")}); err != nil {
		t.Fatal(err)
	}
	closed := func() string {
		out, err := s.c.CreateFunctionUrlConfig(t.Context(), &lambda.CreateFunctionUrlConfigInput{FunctionName: &s.name, Qualifier: aws.String("gate"), AuthType: types.FunctionUrlAuthTypeAwsIam})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.c.DeleteFunctionUrlConfig(t.Context(), &lambda.DeleteFunctionUrlConfigInput{FunctionName: &s.name, Qualifier: aws.String("gate")}); err != nil {
			t.Fatal(err)
		}
		return strings.Split(*out.FunctionUrl, "/")[5]
	}
	opens := func() {
		if _, err := s.c.CreateFunctionUrlConfig(t.Context(), &lambda.CreateFunctionUrlConfigInput{FunctionName: &s.name, Qualifier: aws.String("gate"), AuthType: types.FunctionUrlAuthTypeAwsIam}); err != nil {
			t.Fatal(err)
		}
	}
	gate := closed()
	res, err := http.Get(s.url + "?gate=" + gate)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("%q, %v", first, err)
	}
	opens()
	if rest, err := io.ReadAll(res.Body); string(rest) != " second" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}

	// A failure in mid-stream: half an answer is not taken for a whole one.
	res, err = http.Get(s.url + "?fail=1")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "first" || err == nil {
		t.Errorf("%q, %v", b, err)
	}
	// The API tells more.
	out, err := s.c.InvokeWithResponseStream(t.Context(), &lambda.InvokeWithResponseStreamInput{FunctionName: &s.name, Payload: []byte(`{"fail":true}`), LogType: types.LogTypeTail})
	if err != nil {
		t.Fatal(err)
	}
	var payload strings.Builder
	var done types.InvokeWithResponseStreamCompleteEvent
	for e := range out.GetStream().Events() {
		switch e := e.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			payload.Write(e.Value.Payload)
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			done = e.Value
		}
	}
	if payload.String() != "first" || aws.ToString(done.ErrorCode) != "TypeError" || !strings.Contains(aws.ToString(done.ErrorDetails), `"midway"`) || aws.ToString(done.LogResult) == "" {
		t.Errorf("%q %+v %v", payload.String(), done, out.GetStream().Err())
	}

	// A client that leaves does not end the function.
	if _, err := s.c.DeleteFunctionUrlConfig(t.Context(), &lambda.DeleteFunctionUrlConfigInput{FunctionName: &s.name, Qualifier: aws.String("gate")}); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+"?gate="+gate, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	id := res.Header.Get("X-Amzn-Requestid")
	leave()
	if _, err := io.ReadAll(res.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("after leaving: %v", err)
	}
	res.Body.Close()
	opens()
	waitForLog(t, s.name, "REPORT RequestId: "+id)
}

// waitForLog waits until a function's log says something.
func waitForLog(t *testing.T, name, text string) {
	t.Helper()
	var out []byte
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var err error
		if out, err = server.Run("logs", name); err == nil && bytes.Contains(out, []byte(text)) {
			return
		}
	}
	t.Errorf("%q is not in the log:\n%s", text, out)
}

func TestGoHTTPHandlerBehindAFunctionURL(t *testing.T) {
	t.Parallel()
	s := newSite(t, &lambda.CreateFunctionInput{
		FunctionName: aws.String("url-go"), Runtime: "provided.al2023", Handler: aws.String("bootstrap"),
		Code: &types.FunctionCode{ZipFile: harness.Zip(map[string]string{"bootstrap*": buildGo(t, "./httpfunction")})},
	}, &lambda.CreateFunctionUrlConfigInput{AuthType: types.FunctionUrlAuthTypeNone, InvokeMode: types.InvokeModeResponseStream})
	s.open()
	res, body := s.do("POST", "/a%20b?x=1&x=2", "\xff")
	if res.StatusCode != 418 || body != "POST /a b [1 2] \xff" || res.Header.Get("Content-Type") != "text/x" || res.Header.Get("Set-Cookie") != "a=b" {
		t.Errorf("%d %v %q", res.StatusCode, res.Header, body)
	}
}
