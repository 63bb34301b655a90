package cffunction

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dop251/goja"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/trigger"
	"lapwing.dev/lapwing/internal/logstore"
	"lapwing.dev/lapwing/internal/state"
)

var testDistribution = &distribution.Distribution{ID: "EDFDVBD6EXAMPLE", DomainName: "d111111abcdef8.cloudfront.net"}

func viewerRequest() *trigger.Exchange {
	return &trigger.Exchange{RequestID: "EXAMPLE==", Request: trigger.Request{
		ClientIP: "198.51.100.11", Method: "GET", URI: "/media/index.mpd", Query: "ID=42&Exp=1619740800&TTL=1440&NoValue=&querymv=val1&querymv=val2,val3&flag",
		Header: trigger.Header{
			{Name: "Host", Value: "video.example.com"}, {Name: "user-agent", Value: "curl/8"},
			{Name: "Accept", Value: "application/json"}, {Name: "Accept", Value: "text/html"},
			{Name: "Cookie", Value: "id=CookieIdValue; loggedIn=1"}, {Name: "Cookie", Value: "id=Other"},
			{Name: "Connection", Value: "close"},
		},
	}}
}

func viewerResponse() *trigger.Exchange {
	x := viewerRequest()
	x.Response = &trigger.Response{Status: 200, Description: "OK", Header: trigger.Header{
		{Name: "Server", Value: "Origin"}, {Name: "Content-Length", Value: "9"},
		{Name: "Set-Cookie", Value: "ID=id1234; Expires=Wed, 05 Apr 2021 07:28:00 GMT"}, {Name: "Set-Cookie", Value: "b=2"},
	}}
	return x
}

func TestEventHasTheDocumentedShape(t *testing.T) {
	const request = `"request":{"method":"GET","uri":"/media/index.mpd",
		"querystring":{"ID":{"value":"42"},"Exp":{"value":"1619740800"},"TTL":{"value":"1440"},"NoValue":{"value":""},
			"querymv":{"value":"val1","multiValue":[{"value":"val1"},{"value":"val2,val3"}]},"flag":{"value":""}},
		"headers":{"host":{"value":"video.example.com"},"user-agent":{"value":"curl/8"},
			"accept":{"value":"application/json","multiValue":[{"value":"application/json"},{"value":"text/html"}]}},
		"cookies":{"id":{"value":"CookieIdValue","multiValue":[{"value":"CookieIdValue"},{"value":"Other"}]},"loggedIn":{"value":"1"}}}`
	for e, c := range map[distribution.EventType]struct {
		x    *trigger.Exchange
		want string
	}{
		distribution.ViewerRequest: {viewerRequest(), request},
		distribution.ViewerResponse: {viewerResponse(), request + `,"response":{"statusCode":200,"statusDescription":"OK",
			"headers":{"server":{"value":"Origin"},"content-length":{"value":"9"}},
			"cookies":{"ID":{"value":"id1234","attributes":"Expires=Wed, 05 Apr 2021 07:28:00 GMT"},"b":{"value":"2"}}}`},
	} {
		got := appendEvent(nil, testDistribution, e, c.x)
		want := `{"version":"1.0","context":{"distributionDomainName":"d111111abcdef8.cloudfront.net","distributionId":"EDFDVBD6EXAMPLE","eventType":"` +
			string(e) + `","requestId":"EXAMPLE=="},"viewer":{"ip":"198.51.100.11"},` + c.want + `}`
		var g, w any
		if err := errors.Join(json.Unmarshal(got, &g), json.Unmarshal([]byte(want), &w)); err != nil {
			t.Fatalf("%v\n%s", err, got)
		}
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s:\ngot  %s\nwant %s", e, got, want)
		}
	}
}

type fakeLogs struct {
	mu  sync.Mutex
	all []string
}

func (f *fakeLogs) Append(group, _ string, events []logstore.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		f.all = append(f.all, group+" "+e.Message)
	}
	return nil
}

type bench struct {
	*Functions
	t       testing.TB
	records *distribution.Records
	logs    *fakeLogs
}

const functionARN = "arn:aws:cloudfront::123456789012:function/f"

func newBench(t testing.TB) *bench {
	t.Helper()
	store, err := state.Open(t.Context(), state.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	records, err := distribution.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, records: records, logs: &fakeLogs{}}
	b.Functions = New(Options{Records: records.Functions, Location: "FRA56-P1", Logs: b.logs})
	t.Cleanup(b.Close)
	return b
}

// with publishes the function's code.
func (b *bench) with(runtime, code string) *bench {
	b.t.Helper()
	_, err := b.records.Functions.Put(b.t.Context(), functionARN, distribution.Function{Format: 1, ARN: functionARN, Name: "f", Runtime: runtime, Code: code})
	if err != nil {
		b.t.Fatal(err)
	}
	return b
}

func (b *bench) run(e distribution.EventType, x *trigger.Exchange) error {
	return b.Run(b.t.Context(), testDistribution, &distribution.Behaviour{Viewer: map[distribution.EventType]string{e: functionARN}}, e, x)
}

func TestFunctionThatChangesNothingChangesNothing(t *testing.T) {
	b := newBench(t)
	for _, runtime := range []string{Runtime1, Runtime2} {
		x, was := viewerRequest(), viewerRequest()
		if err := b.with(runtime, `function handler(event) { return event.request; }`).run(distribution.ViewerRequest, x); err != nil {
			t.Fatal(err)
		}
		sameExchange(t, x, was)
		x, was = viewerResponse(), viewerResponse()
		if err := b.with(runtime, `function handler(event) { return event.response; }`).run(distribution.ViewerResponse, x); err != nil {
			t.Fatal(err)
		}
		sameExchange(t, x, was)
	}
}

func sameExchange(t *testing.T, got, want *trigger.Exchange) {
	t.Helper()
	order := func(h trigger.Header) trigger.Header {
		h = slices.Clone(h)
		slices.SortStableFunc(h, func(a, b trigger.Field) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
		return h
	}
	for _, x := range []*trigger.Exchange{got, want} {
		x.Request.Header = order(x.Request.Header)
		if x.Response != nil {
			x.Response.Header = order(x.Response.Header)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v %+v\nwant %+v %+v", got, got.Response, want, want.Response)
	}
}

func TestTextThatIsNotUTF8StaysAsItIs(t *testing.T) {
	x, was := viewerRequest(), viewerRequest()
	for _, e := range []*trigger.Exchange{x, was} {
		e.Request.URI, e.Request.Query = "/caf\xe9", "q=\xfc"
		e.Request.Header = append(e.Request.Header, trigger.Field{Name: "Via", Value: "1.1 caf\xe9"})
	}
	if err := newBench(t).with(Runtime2, `function handler(event) { return event.request; }`).run(distribution.ViewerRequest, x); err != nil {
		t.Fatal(err)
	}
	sameExchange(t, x, was)
}

func TestRequestIsChanged(t *testing.T) {
	x := viewerRequest()
	err := newBench(t).with(Runtime2, `
		async function handler(event) {
			const request = event.request;
			request.uri = '/de' + request.uri;
			delete request.querystring.TTL;
			request.querystring.querymv.value = 'first';
			request.querystring.ID.value = '43';
			request.headers['x-bag'] = { value: 'blue' };
			delete request.headers.accept;
			request.cookies.loggedIn.value = '0';
			request.cookies.id.multiValue.push({ value: 'Third' });
			return request;
		}`).run(distribution.ViewerRequest, x)
	if err != nil {
		t.Fatal(err)
	}
	if want := "ID=43&Exp=1619740800&NoValue=&querymv=first&querymv=val2,val3&flag"; x.Request.URI != "/de/media/index.mpd" || x.Request.Query != want {
		t.Errorf("%s?%s, want %s", x.Request.URI, x.Request.Query, want)
	}
	want := trigger.Header{
		{Name: "Host", Value: "video.example.com"}, {Name: "user-agent", Value: "curl/8"}, {Name: "X-Bag", Value: "blue"},
		{Name: "Cookie", Value: "id=CookieIdValue; id=Other; id=Third; loggedIn=0"}, {Name: "Connection", Value: "close"},
	}
	if !reflect.DeepEqual(x.Request.Header, want) {
		t.Errorf("header is %q, want %q", x.Request.Header, want)
	}
}

func TestResponseIsGeneratedOrChanged(t *testing.T) {
	b := newBench(t)
	x := viewerRequest()
	err := b.with(Runtime1, `function handler(event) {
		return { statusCode: 302, statusDescription: 'Found', headers: { location: { value: '/login' } },
			cookies: { a: { value: '1', attributes: 'Secure' } }, body: { encoding: 'base64', data: 'aGk=' } };
	}`).run(distribution.ViewerRequest, x)
	if err != nil {
		t.Fatal(err)
	}
	want := &trigger.Response{Status: 302, Description: "Found", Body: []byte("hi"), Replaced: true,
		Header: trigger.Header{{Name: "Location", Value: "/login"}, {Name: "Set-Cookie", Value: "a=1; Secure"}}}
	if !reflect.DeepEqual(x.Response, want) {
		t.Errorf("response is %+v, want %+v", x.Response, want)
	}
	x = viewerResponse()
	err = b.with(Runtime1, `function handler(event) {
		var r = event.response; r.statusCode = 203; r.headers['cache-control'] = { value: 'no-store' }; r.body = 'new'; delete r.cookies.b; return r;
	}`).run(distribution.ViewerResponse, x)
	if err != nil {
		t.Fatal(err)
	}
	want = &trigger.Response{Status: 203, Description: "OK", Body: []byte("new"), Replaced: true, Header: trigger.Header{
		{Name: "Server", Value: "Origin"}, {Name: "Cache-Control", Value: "no-store"}, {Name: "Set-Cookie", Value: "ID=id1234; Expires=Wed, 05 Apr 2021 07:28:00 GMT"}}}
	if !reflect.DeepEqual(x.Response, want) {
		t.Errorf("response is %+v, want %+v", x.Response, want)
	}
}

func TestFunctionsThatFail(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name, code string
		class      trigger.Class
		status     int
		cause      string
	}{
		{"exception", `function handler(event) { throw new Error('no'); }`, trigger.FunctionExecution, 503, "no"},
		{"rejection", `async function handler(event) { throw new TypeError('no'); }`, trigger.FunctionExecution, 503, "TypeError: no"},
		{"never settled", `function handler(event) { return new Promise(() => {}); }`, trigger.FunctionExecution, 503, "never settled"},
		{"no handler", `var a = 1;`, trigger.FunctionExecution, 503, "handler"},
		{"endless", `function handler(event) { for (;;) {} }`, trigger.FunctionExecution, 503, "compute time"},
		{"endless at the top", `for (;;) {}`, trigger.FunctionExecution, 503, "compute time"},
		{"endless recursion", `function handler(event) { return handler(event); }`, trigger.FunctionExecution, 503, ""},
		{"memory at once", `function handler(event) { return { statusCode: 200, body: 'x'.repeat(1e9) }; }`, trigger.FunctionExecution, 503, "out of memory"},
		{"memory by an array", `function handler(event) { return new Uint8Array(1e9); }`, trigger.FunctionExecution, 503, "out of memory"},
		{"eval", `function handler(event) { return eval('event.request'); }`, trigger.FunctionExecution, 503, "Code generation from strings"},
		{"function constructor", `function handler(event) { return new Function('return 1')(); }`, trigger.FunctionExecution, 503, "Code generation from strings"},
		{"function constructor by another way", `function handler(event) { return (() => 1).constructor('return 1')(); }`, trigger.FunctionExecution, 503, "Code generation from strings"},
		{"timer", `function handler(event) { setTimeout(() => 1); }`, trigger.FunctionExecution, 503, "setTimeout"},
		{"files", `function handler(event) { return require('fs'); }`, trigger.FunctionExecution, 503, "Cannot find module"},
		{"nothing returned", `function handler(event) {}`, trigger.FunctionValidation, 502, "must return a request or response"},
		{"a string returned", `function handler(event) { return 'x'; }`, trigger.FunctionValidation, 502, "must return a request or response"},
		{"no uri", `function handler(event) { delete event.request.uri; return event.request; }`, trigger.FunctionValidation, 502, "uri"},
		{"uri without slash", `function handler(event) { event.request.uri = 'a'; return event.request; }`, trigger.FunctionValidation, 502, "slash"},
		{"method", `function handler(event) { event.request.method = 'PUT'; return event.request; }`, trigger.FunctionValidation, 502, "method"},
		{"host", `function handler(event) { event.request.headers.host.value = 'a'; return event.request; }`, trigger.FunctionValidation, 502, "read-only"},
		{"disallowed header", `function handler(event) { event.request.headers.connection = {value: 'a'}; return event.request; }`, trigger.FunctionValidation, 502, "blacklisted"},
		{"header in capitals", `function handler(event) { event.request.headers['X-A'] = {value: 'a'}; return event.request; }`, trigger.FunctionValidation, 502, "lower case"},
		{"header as a string", `function handler(event) { event.request.headers['x-a'] = 'a'; return event.request; }`, trigger.FunctionValidation, 502, "headers"},
		{"header value a number", `function handler(event) { event.request.headers['x-a'] = {value: 1}; return event.request; }`, trigger.FunctionValidation, 502, "headers"},
		{"header with a line break", `function handler(event) { event.request.headers['x-a'] = {value: 'a\r\nb: c'}; return event.request; }`, trigger.FunctionValidation, 502, "valid header"},
		{"cookie with a line break", `function handler(event) { event.request.cookies.a = {value: 'a\r\nb: c'}; return event.request; }`, trigger.FunctionValidation, 502, "cookies"},
		{"query with a space", `function handler(event) { event.request.querystring.a = {value: 'a b'}; return event.request; }`, trigger.FunctionValidation, 502, "query"},
		{"status as a string", `function handler(event) { return {statusCode: '200'}; }`, trigger.FunctionValidation, 502, "statusCode"},
		{"status out of range", `function handler(event) { return {statusCode: 600}; }`, trigger.FunctionValidation, 502, "statusCode"},
		{"body not base64", `function handler(event) { return {statusCode: 200, body: {encoding: 'base64', data: '!'}}; }`, trigger.FunctionValidation, 502, "base64"},
		{"body too long", `function handler(event) { return {statusCode: 200, body: 'x'.repeat(40961)}; }`, trigger.FunctionValidation, 502, "limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			x, was := viewerRequest(), viewerRequest()
			err := b.with(Runtime2, c.code).run(distribution.ViewerRequest, x)
			failed, ok := errors.AsType[*trigger.Error](err)
			if !ok || failed.Class != c.class || failed.Status() != c.status || !strings.Contains(err.Error(), c.cause) {
				t.Errorf("got %v, want %s: %s", err, c.class, c.cause)
			}
			sameExchange(t, x, was)
		})
	}
}

func TestNothingIsKeptBetweenRuns(t *testing.T) {
	b := newBench(t).with(Runtime2, `
		let count = 0;
		function handler(event) {
			count++; globalThis.seen = (globalThis.seen || 0) + 1; Object.prototype.total = (Object.prototype.total || 0) + 1;
			event.request.uri = '/' + count + globalThis.seen + event.total;
			delete Object.prototype.total;
			return event.request;
		}`)
	for range 3 {
		x := viewerRequest()
		if err := b.run(distribution.ViewerRequest, x); err != nil {
			t.Fatal(err)
		}
		if x.Request.URI != "/111" {
			t.Errorf("uri is %s", x.Request.URI)
		}
	}
}

func TestNewCodeOfAFunctionTakesEffect(t *testing.T) {
	b := newBench(t)
	for _, uri := range []string{"/1", "/2"} {
		x := viewerRequest()
		if err := b.with(Runtime1, `function handler(e) { e.request.uri = '`+uri+`'; return e.request; }`).run(distribution.ViewerRequest, x); err != nil || x.Request.URI != uri {
			t.Errorf("%s, %v; want %s", x.Request.URI, err, uri)
		}
	}
}

func TestLogHasWhatTheFunctionPrints(t *testing.T) {
	b := newBench(t).with(Runtime2, `function handler(e) { console.log('hello', 1, {a: [2]}, null); return e.request; }`)
	if err := b.run(distribution.ViewerRequest, viewerRequest()); err != nil {
		t.Fatal(err)
	}
	const group = "/aws/cloudfront/function/f EXAMPLE== "
	if want := []string{group + "START DistributionID: EDFDVBD6EXAMPLE", group + `hello 1 {"a":[2]} null`, group + "END"}; !slices.Equal(b.logs.all, want) {
		t.Errorf("log is %q", b.logs.all)
	}
	b.logs.all = nil
	if err := b.with(Runtime2, `function handler(e) { for (let i = 0; i < 100; i++) console.log('x'.repeat(1000)); return e.request; }`).run(distribution.ViewerRequest, viewerRequest()); err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Join(b.logs.all, "")); n > maxLog+50*100 {
		t.Errorf("%d bytes logged", n)
	}
	n := &native{}
	for range 2 * maxLog {
		n.log("")
	}
	if len(n.logs) > maxLog {
		t.Errorf("%d empty lines logged", len(n.logs))
	}
}

// Values are those of Node.js.
func TestModules(t *testing.T) {
	for code, want := range map[string]string{
		`require('crypto').createHash('sha256').update('abc').digest('hex')`:                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		`require('crypto').createHash('md5').update('a').update('bc').digest('base64')`:             "kAFQmDzST7DWlj99KOF/cg==",
		`require('crypto').createHmac('sha1', 'key').update('abc').digest('base64url')`:             "T9CyFSdu8S8rPkyOysKBFJi2Vvw",
		`require('crypto').createHash('sha1').update(Buffer.from('abc')).digest().toString('hex')`:  "a9993e364706816aba3e25717850c26c9cd0d89d",
		`require('querystring').stringify({name: 'value', abc: ['xyz', '123'], anotherName: ''})`:   "name=value&abc=xyz&abc=123&anotherName=",
		`JSON.stringify(require('querystring').parse('name=value&abc=xyz&abc=123&a%20b=%C3%A9+c'))`: `{"name":"value","abc":["xyz","123"],"a b":"é c"}`,
		`require('querystring').unescape('%ff')`:                                                    "\ufffd",
		`Buffer.from('aGk', 'base64').toString()`:                                                   "hi",
		`Buffer.from('hi').toString('hex')`:                                                         "6869",
		`require('buffer').Buffer.concat([Buffer.from('a'), Buffer.from('b')]).toString()`:          "ab",
		`atob(btoa('hi'))`: "hi",
		`String(new Date().getTime() === Date.now())`:                                                     "true",
		`typeof process + typeof module + typeof setTimeout + typeof XMLHttpRequest`:                      "undefinedundefinedundefinedundefined",
		`String([1,2] instanceof Array && Array.isArray(new Array(3)) && new Uint8Array(2).length === 2)`: "true",
		`[1,2,3].fill(0).join('-')`: "0-0-0",
	} {
		r, err := Test(t.Context(), distribution.Function{Runtime: Runtime2, Code: `function handler(event) { return ` + code + `; }`}, nil, []byte(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := json.Unmarshal([]byte(r.Output), &got); r.Error != "" || err != nil || got != want {
			t.Errorf("%s: %q, %s %v; want %q", code, r.Output, r.Error, err, want)
		}
	}
}

func TestByteStringsOfRuntime1(t *testing.T) {
	for code, want := range map[string]string{
		`'é'.toUTF8().length + ''`:                                             "2",
		`'é'.toUTF8().fromUTF8()`:                                              "é",
		`String.bytesFrom('c3a9', 'hex').fromUTF8()`:                           "é",
		`String.bytesFrom([104, 105])`:                                         "hi",
		`String.bytesFrom('aGk', 'base64url')`:                                 "hi",
		`String('ā'.toBytes())`:                                                "null",
		`require('crypto').createHash('md5').update('a').digest().length + ''`: "16",
		`typeof Buffer`:                                                        "undefined",
	} {
		r, err := Test(t.Context(), distribution.Function{Runtime: Runtime1, Code: `function handler(event) { return ` + code + `; }`}, nil, []byte(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		if r.Error != "" || r.Output != `"`+want+`"` {
			t.Errorf("%s: %q, %s; want %q", code, r.Output, r.Error, want)
		}
	}
}

func TestImportsOfModules(t *testing.T) {
	r, err := Test(t.Context(), distribution.Function{Runtime: Runtime2, Code: "import crypto from 'crypto';\nimport qs from \"querystring\"\nfunction handler(event) { return crypto.createHash('md5').update(qs.escape('a b')).digest('hex'); }"}, nil, []byte(`{}`))
	if err != nil || r.Error != "" || len(r.Output) != 34 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestCheckRefusesWhatCannotRun(t *testing.T) {
	for _, c := range []struct{ runtime, code, message string }{
		{Runtime2, "function handler(", "SyntaxError"},
		{Runtime1, strings.Repeat("/", maxCode+1), "maximum"},
		{"cloudfront-js-9.0", "", "not known"},
		{Runtime2, "with (a) {}", "SyntaxError"}, // strict mode
	} {
		if err := Check(c.runtime, c.code); err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%.20s: %v, want %s", c.code, err, c.message)
		}
	}
	if err := Check(Runtime1, `function handler(event) { return event.request; }`); err != nil {
		t.Error(err)
	}
}

func TestTestTellsOfTheRun(t *testing.T) {
	r, err := Test(t.Context(), distribution.Function{Runtime: Runtime2, Code: `function handler(e) { console.log('a'); for (let i = 0; i < 1000; i++); return e; }`}, nil, []byte(`{"a":1}`))
	if err != nil || r.Output != `{"a":1}` || r.Error != "" || !slices.Equal(r.Logs, []string{"a"}) || r.Utilization < 0 || r.Utilization > 100 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = Test(t.Context(), distribution.Function{Runtime: Runtime2, Code: `function handler(e) { for (;;); }`}, nil, []byte(`{}`)); err != nil || r.Utilization != 100 || r.Error == "" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = Test(t.Context(), distribution.Function{Runtime: Runtime2, Code: `function handler(e) { return e; }`}, nil, []byte(`{`)); err != nil || r.Error == "" {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzResult(f *testing.F) {
	f.Add(true, []byte(`{"method":"GET","uri":"/","querystring":{"a":{"value":"b"}},"headers":{"host":{"value":"video.example.com"}},"cookies":{}}`))
	f.Add(false, []byte(`{"statusCode":200,"headers":{"a":{"value":"b","multiValue":[{"value":"b"}]}},"cookies":{"a":{"value":"b","attributes":"c"}},"body":{"encoding":"text","data":"x"}}`))
	f.Fuzz(func(t *testing.T, request bool, result []byte) {
		e, x := distribution.ViewerResponse, viewerResponse()
		if request {
			e, x = distribution.ViewerRequest, viewerRequest()
		}
		if applyResult(e, x, result) != nil {
			return
		}
		h := x.Request.Header
		if x.Response != nil {
			h = x.Response.Header
			if x.Response.Status < 200 || x.Response.Status > 599 {
				t.Fatalf("status %d", x.Response.Status)
			}
		} else if err := trigger.CheckTarget(x.Request.URI, x.Request.Query); err != nil && x.Request.URI != "/media/index.mpd" {
			t.Fatal(err)
		}
		for _, field := range h {
			if strings.ContainsAny(field.Value, "\r\n") || strings.ContainsAny(field.Name, ": \r\n") {
				t.Fatalf("%q", field)
			}
		}
	})
}

func BenchmarkRun(b *testing.B) {
	f := newBench(b).with(Runtime2, `function handler(event) { var r = event.request; r.uri = r.uri.replace(/\/$/, '/index.html'); r.headers['x-a'] = {value: 'b'}; return r; }`)
	for b.Loop() {
		if err := f.run(distribution.ViewerRequest, viewerRequest()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMachine(b *testing.B) {
	b.Run("empty", func(b *testing.B) {
		for b.Loop() {
			goja.New()
		}
	})
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			newMachine(flavour{modern: true})
		}
	})
}

func TestARegularExpressionThatBacktracksGivesItsSlotBack(t *testing.T) {
	b := newBench(t).with(Runtime2, `function handler(e) { return /^(?=a)(a|aa)+$/.test('a'.repeat(90) + 'b') ? null : e.request; }`)
	if err := b.run(distribution.ViewerRequest, viewerRequest()); err == nil {
		t.Error("the function had all the time that it wanted")
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range cap(b.slots) { // all of them are free
			b.slots <- struct{}{}
		}
	}()
	select {
	case <-ended:
	case <-time.After(20 * patience):
		t.Error("the function still runs")
	}
}

func TestWhatAFunctionThrowsAndReturnsIsWithinItsLimits(t *testing.T) {
	for name, tt := range map[string]struct{ code, want string }{
		"an endless text":           {`throw { toString() { for (;;) {} } };`, "compute time"},
		"an endless name":           {`const e = new Error('x'); Object.defineProperty(e, 'name', { get() { for (;;) {} } }); throw e;`, "compute time"},
		"a text that throws":        {`throw { toString() { throw 1; } };`, "no text"},
		"an endless rejection":      {`return Promise.reject({ toString() { for (;;) {} } });`, "compute time"},
		"a rejection":               {`return Promise.reject(new Error('no'));`, "no"},
		"a result without an end":   {`return { toJSON() { for (;;) {} } };`, "compute time"},
		"a result that throws":      {`return { toJSON() { throw new Error('no'); } };`, "no"},
		"a text after the time has": {`try { for (;;) {} } finally { throw { get name() { return 'late'; } }; }`, "compute time"},
	} {
		if r := runCode(t, tt.code); !strings.Contains(r.Error, tt.want) {
			t.Errorf("%s: %q, want %q", name, r.Error, tt.want)
		}
	}
}
