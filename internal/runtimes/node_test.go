package runtimes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

var nodeRuntimes = []string{"nodejs20.x", "nodejs22.x", "nodejs24.x"}

// forEach runs a test on each runtime.
func forEach(t *testing.T, ids []string, f func(t *testing.T, id string)) {
	for _, id := range ids {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			f(t, id)
		})
	}
}

// legacyNode reports whether a runtime has callbacks and context methods.
func legacyNode(id string) bool { return id != "nodejs24.x" }

const (
	anyRuntime    = 0
	legacyRuntime = 1 // Node.js 22 and older
	modernRuntime = 2 // Node.js 24
)

func TestNodeHandlers(t *testing.T) {
	tests := []struct {
		name    string
		on      int
		files   map[string]string
		handler string
		event   string
		want    string // the response, or
		errs    string // the error
	}{
		{name: "async", handler: "index.handler", event: `{"a":[1,"é"]}`, want: `{"got":{"a":[1,"é"]}}`,
			files: map[string]string{"index.js": `exports.handler = async (e) => ({got: e});`}},
		{name: "promise", handler: "index.handler", event: `1`, want: `[1]`,
			files: map[string]string{"index.js": `exports.handler = (e) => new Promise((r) => setTimeout(() => r([e]), 5));`}},
		{name: "undefined becomes null", handler: "index.handler", event: `{}`, want: `null`,
			files: map[string]string{"index.js": `exports.handler = async () => {};`}},
		{name: "callback", on: legacyRuntime, handler: "index.handler", event: `2`, want: `{"r":2}`,
			files: map[string]string{"index.js": `exports.handler = (e, c, cb) => { setTimeout(() => cb(null, {r: e}), 1); };`}},
		{name: "callback waits for the event loop", on: legacyRuntime, handler: "index.handler", event: `2`, want: `["late"]`,
			files: map[string]string{"index.js": `exports.handler = (e, c, cb) => { const r = []; cb(null, r); setTimeout(() => r.push('late'), 20); };`}},
		{name: "callback need not wait", on: legacyRuntime, handler: "index.handler", event: `2`, want: `[]`,
			files: map[string]string{"index.js": `exports.handler = (e, c, cb) => { c.callbackWaitsForEmptyEventLoop = false; const r = []; cb(null, r); setTimeout(() => r.push('late'), 20); };`}},
		{name: "callback error", on: legacyRuntime, handler: "index.handler", event: `2`,
			errs:  `{"errorType":"RangeError","errorMessage":"far","trace":["RangeError: far","..."]}`,
			files: map[string]string{"index.js": `exports.handler = (e, c, cb) => cb(new RangeError('far'));`}},
		{name: "callback with a string", on: legacyRuntime, handler: "index.handler", event: `2`,
			errs:  `{"errorType":"string","errorMessage":"plain","trace":[]}`,
			files: map[string]string{"index.js": `exports.handler = (e, c, cb) => cb('plain');`}},
		{name: "context.succeed", on: legacyRuntime, handler: "index.handler", event: `2`, want: `"yes"`,
			files: map[string]string{"index.js": `exports.handler = (e, c) => { c.succeed('yes'); };`}},
		{name: "context.done", on: legacyRuntime, handler: "index.handler", event: `2`, want: `3`,
			files: map[string]string{"index.js": `exports.handler = (e, c) => { c.done(null, 3); };`}},
		{name: "context.fail", on: legacyRuntime, handler: "index.handler", event: `2`,
			errs:  `{"errorType":"string","errorMessage":"handled","trace":[]}`,
			files: map[string]string{"index.js": `exports.handler = (e, c) => { c.fail(); };`}},
		{name: "only the first answer counts", on: legacyRuntime, handler: "index.handler", event: `2`, want: `1`,
			files: map[string]string{"index.js": `exports.handler = (e, c, cb) => { c.succeed(1); c.fail('x'); cb('y'); };`}},
		{name: "not async and no answer is null", on: legacyRuntime, handler: "index.handler", event: `2`, want: `null`,
			files: map[string]string{"index.js": `exports.handler = () => {};`}},
		{name: "a plain value is the answer", on: modernRuntime, handler: "index.handler", event: `2`, want: `4`,
			files: map[string]string{"index.js": `exports.handler = (e) => e * 2;`}},
		{name: "thrown error", handler: "index.handler", event: `{}`,
			errs:  `{"errorType":"TypeError","errorMessage":"no","trace":["TypeError: no","    at *","..."]}`,
			files: map[string]string{"index.js": `exports.handler = async () => { throw new TypeError('no'); };`}},
		{name: "error class of its own", handler: "index.handler", event: `{}`,
			errs:  `{"errorType":"MyError","errorMessage":"mine","trace":["MyError: mine","..."]}`,
			files: map[string]string{"index.js": `class MyError extends Error { constructor(m) { super(m); this.name = 'MyError'; } } exports.handler = async () => { throw new MyError('mine'); };`}},
		{name: "thrown in a handler that is not async", handler: "index.handler", event: `{}`,
			errs:  `{"errorType":"Error","errorMessage":"sync","trace":["Error: sync","..."]}`,
			files: map[string]string{"index.js": `exports.handler = () => { throw new Error('sync'); };`}},
		{name: "thrown value that is no error", handler: "index.handler", event: `{}`,
			errs:  `{"errorType":"number","errorMessage":"7","trace":[]}`,
			files: map[string]string{"index.js": `exports.handler = async () => { throw 7; };`}},
		{name: "a promise that never settles", handler: "index.handler", event: `{}`,
			errs:  `{"errorType":"Runtime.NodeJsExit","errorMessage":"The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a Promise that was never settled. *","trace":["Runtime.NodeJsExit: *","..."]}`,
			files: map[string]string{"index.js": `exports.handler = async () => { await new Promise(() => {}); };`}},
		{name: "a result that JSON can't hold", handler: "index.handler", event: `{}`,
			errs:  `{"errorType":"Error","errorMessage":"Unable to stringify response body","trace":["*","..."]}`,
			files: map[string]string{"index.js": `exports.handler = async () => { const a = {}; a.a = a; return a; };`}},
		{name: "an event that is no JSON", handler: "index.handler", event: `{`,
			errs:  `{"errorType":"SyntaxError","errorMessage":"*","trace":["*","..."]}`,
			files: map[string]string{"index.js": `exports.handler = async () => 1;`}},

		{name: "nested folder and export", handler: "src/app/main.api.v1.get", event: `{}`, want: `"deep"`,
			files: map[string]string{"src/app/main.js": `exports.api = {v1: {get: async () => 'deep'}};`}},
		{name: ".mjs", handler: "index.handler", event: `{}`, want: `"mjs"`,
			files: map[string]string{"index.mjs": `export const handler = async () => 'mjs';`}},
		{name: ".cjs", handler: "index.handler", event: `{}`, want: `"cjs"`,
			files: map[string]string{"index.cjs": `exports.handler = async () => 'cjs';`, "package.json": `{"type":"module"}`}},
		{name: "type module", handler: "lib/index.handler", event: `{}`, want: `"esm file:"`,
			files: map[string]string{"lib/index.js": `export const handler = async () => 'esm ' + import.meta.url.slice(0, 5);`, "package.json": `{"type":"module"}`}},
		{name: "the nearest package.json decides", handler: "lib/index.handler", event: `{}`, want: `"cjs"`,
			files: map[string]string{"lib/index.js": `exports.handler = async () => 'cjs';`, "lib/package.json": `{}`, "package.json": `{"type":"module"}`}},
		{name: "top-level await", handler: "index.handler", event: `{}`, want: `"waited"`,
			files: map[string]string{"index.mjs": `const v = await new Promise((r) => setTimeout(() => r('waited'), 10)); export const handler = async () => v;`}},
		{name: "a name that is special in URLs", handler: "a#b.handler", event: `{}`, want: `"#"`,
			files: map[string]string{"a#b.mjs": `export const handler = async () => '#';`}},
		{name: "node_modules", handler: "index.handler", event: `{}`, want: `"dep"`,
			files: map[string]string{"index.js": `exports.handler = async () => require('dep');`, "node_modules/dep/index.js": `module.exports = 'dep';`}},
		{name: "handler in a package", handler: "dep.handler", event: `{}`, want: `"from dep"`,
			files: map[string]string{"node_modules/dep/index.js": `exports.handler = async () => 'from dep';`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			forEach(t, nodeRuntimes, func(t *testing.T, id string) {
				if tt.on == legacyRuntime && !legacyNode(id) || tt.on == modernRuntime && legacyNode(id) {
					return
				}
				p := startRuntime(t, id, tt.handler, tt.files, "AWS_LAMBDA_NODEJS_DISABLE_CALLBACK_WARNING=1")
				// Twice: what one invocation leaves behind must not harm the next.
				for range 2 {
					got := p.invoke(tt.event)
					if tt.errs == "" {
						if got.kind != "response" {
							t.Fatalf("posted %s: %s", got.kind, got.body)
						}
						matchJSON(t, tt.want, got.body)
						continue
					}
					if got.kind != "error" {
						t.Fatalf("posted %s: %s", got.kind, got.body)
					}
					matchJSON(t, tt.errs, got.body)
					if !strings.Contains(tt.errs, `"errorType":"`+got.errorType+`"`) {
						t.Errorf("Lambda-Runtime-Function-Error-Type: %s", got.errorType)
					}
				}
			})
		})
	}
}

func TestNodeInitErrors(t *testing.T) {
	tests := []struct {
		name    string
		on      int
		files   map[string]string
		handler string
		want    string
	}{
		{name: "no such module", handler: "nope.handler",
			want: `{"errorType":"Runtime.ImportModuleError","errorMessage":"Error: Cannot find module 'nope'\nRequire stack:*","trace":["Runtime.ImportModuleError: Error: Cannot find module 'nope'","Require stack:","..."]}`},
		{name: "missing dependency", handler: "index.handler", files: map[string]string{"index.js": `require('left-pad');`},
			want: `{"errorType":"Runtime.ImportModuleError","errorMessage":"Error: Cannot find module 'left-pad'\nRequire stack:*","trace":["Runtime.ImportModuleError: Error: Cannot find module 'left-pad'","..."]}`},
		{name: "no such export", handler: "index.nope", files: map[string]string{"index.js": `exports.handler = 1;`},
			want: `{"errorType":"Runtime.HandlerNotFound","errorMessage":"index.nope is undefined or not exported","trace":["Runtime.HandlerNotFound: index.nope is undefined or not exported","..."]}`},
		{name: "no function", handler: "index.handler", files: map[string]string{"index.js": `exports.handler = {};`},
			want: `{"errorType":"Runtime.HandlerNotFound","errorMessage":"index.handler is not a function","trace":["*","..."]}`},
		{name: "syntax error", handler: "index.handler", files: map[string]string{"index.js": `exports.handler = async () => {`},
			want: `{"errorType":"Runtime.UserCodeSyntaxError","errorMessage":"SyntaxError: Unexpected end of input","trace":["Runtime.UserCodeSyntaxError: SyntaxError: Unexpected end of input","..."]}`},
		{name: "no dot", handler: "index", files: map[string]string{"index.js": ``},
			want: `{"errorType":"Runtime.MalformedHandlerName","errorMessage":"Bad handler","trace":["*","..."]}`},
		{name: "out of the task root", handler: "../index.handler",
			want: `{"errorType":"Runtime.MalformedHandlerName","errorMessage":"'../index.handler' is not a valid handler name. Use absolute paths when specifying root directories in handler names.","trace":["*","..."]}`},
		{name: "thrown while loading", handler: "index.handler", files: map[string]string{"index.js": `throw new EvalError('at load');`},
			want: `{"errorType":"EvalError","errorMessage":"at load","trace":["EvalError: at load","    at *","..."]}`},
		{name: "rejected while loading", handler: "index.handler", files: map[string]string{"index.mjs": `Promise.reject(new Error('left alone')); await new Promise((r) => setTimeout(r, 1000));`},
			want: `{"errorType":"Runtime.UnhandledPromiseRejection","errorMessage":"Error: left alone","trace":["Runtime.UnhandledPromiseRejection: Error: left alone","..."]}`},
		{name: "callback handler", on: modernRuntime, handler: "index.handler", files: map[string]string{"index.js": `exports.handler = async (e, c, cb) => 1;`},
			want: `{"errorType":"Runtime.CallbackHandlerDeprecated","errorMessage":"ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24. *","trace":["Runtime.CallbackHandlerDeprecated: ERROR: *","..."]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			forEach(t, nodeRuntimes, func(t *testing.T, id string) {
				if tt.on == modernRuntime && legacyNode(id) {
					return
				}
				p := startRuntime(t, id, tt.handler, tt.files)
				got := p.posted()
				if got.kind != "init-error" {
					t.Fatalf("posted %s: %s", got.kind, got.body)
				}
				matchJSON(t, tt.want, got.body)
				if code := p.exitCode(); code == 0 {
					t.Error("exited with 0")
				}
				if !strings.Contains(p.log(), "\tERROR\t") {
					t.Error("the error is not in the log")
				}
			})
		})
	}
}

func TestNodeContext(t *testing.T) {
	files := map[string]string{"index.js": `
exports.handler = async (event, c) => {
  const left = c.getRemainingTimeInMillis();
  return {...c, left: left > 0 && left <= 3000, trace: process.env._X_AMZN_TRACE_ID ?? null, has: ['done', 'succeed', 'fail'].filter((k) => typeof c[k] === 'function')};
};`}
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		p := startRuntime(t, id, "index.handler", files)
		got := p.invoke(`{}`,
			"Lambda-Runtime-Client-Context", `{"custom":{"k":"v"}}`,
			"Lambda-Runtime-Cognito-Identity", `{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}`,
			"Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0",
			"Lambda-Runtime-Aws-Tenant-Id", "blue")
		common := `"functionVersion":"$LATEST","functionName":"fn","memoryLimitInMB":"128",
			"logGroupName":"/aws/lambda/fn","logStreamName":"2026/11/24/[$LATEST]0123456789abcdef","clientContext":{"custom":{"k":"v"}},
			"identity":{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"},"invokedFunctionArn":"arn:aws:lambda:eu-west-1:123456789012:function:fn",
			"awsRequestId":"8476a536-e9f4-11e8-9739-2dfe598c3fcd","tenantId":"blue","left":true,
			"trace":"Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0"`
		if legacyNode(id) {
			matchJSON(t, `{`+common+`,"callbackWaitsForEmptyEventLoop":true,"has":["done","succeed","fail"]}`, got.body)
		} else {
			matchJSON(t, `{`+common+`,"xRayTraceId":"Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0","has":[]}`, got.body)
		}
		got = p.invoke(`{}`)
		if !strings.Contains(got.body, `"trace":null`) {
			t.Errorf("the trace id of the invocation before is still there: %s", got.body)
		}
		got = p.invoke(`{}`, "Lambda-Runtime-Client-Context", `{`)
		if got.kind != "error" || !strings.Contains(got.body, "Cannot parse ClientContext as json: ") {
			t.Errorf("malformed client context: %+v", got)
		}
	})
}

func TestNodeCrashesEndTheRuntime(t *testing.T) {
	tests := []struct {
		name, code, want string
		exit             int
	}{
		{"uncaught exception", `setTimeout(() => { throw new RangeError('later'); }, 1);`,
			`{"errorType":"RangeError","errorMessage":"later","trace":["RangeError: later","..."]}`, 129},
		{"unhandled rejection", `Promise.reject(new Error('alone'));`,
			`{"errorType":"Runtime.UnhandledPromiseRejection","errorMessage":"Error: alone","trace":["Runtime.UnhandledPromiseRejection: Error: alone","..."]}`, 128},
		{"process.exit", `process.exit(7);`, ``, 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			forEach(t, nodeRuntimes, func(t *testing.T, id string) {
				p := startRuntime(t, id, "index.handler", map[string]string{
					"index.js": `exports.handler = async () => { ` + tt.code + ` await new Promise((r) => setTimeout(r, 10000)); };`})
				p.api.events <- testEvent{id: "a", body: "{}"}
				if tt.want != "" {
					got := p.posted()
					if got.kind != "error" || got.id != "a" {
						t.Fatalf("posted %s of %q: %s", got.kind, got.id, got.body)
					}
					matchJSON(t, tt.want, got.body)
				}
				if code := p.exitCode(); code != tt.exit {
					t.Errorf("exit code %d, want %d", code, tt.exit)
				}
			})
		})
	}
}

func TestNodeStreaming(t *testing.T) {
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		p := startRuntime(t, id, "index.handler", map[string]string{"index.js": `
const { pipeline } = require('stream/promises');
const { Readable } = require('stream');
exports.handler = awslambda.streamifyResponse(async (event, stream, context) => {
  switch (event.do) {
  case 'text':
    stream.setContentType('text/plain');
    stream.write('one ');
    await new Promise((r) => setTimeout(r, 30));
    stream.write(Buffer.from('two '));
    stream.write({three: 3});
    stream.end();
    break;
  case 'http':
    stream = awslambda.HttpResponseStream.from(stream, {statusCode: 201, headers: {'x-a': 'b'}, cookies: ['c=d']});
    stream.write('body');
    stream.end();
    break;
  case 'big':
    await pipeline(Readable.from((function* () { for (let i = 0; i < 100; i++) yield Buffer.alloc(64 * 1024, 97 + i % 26); })()), stream);
    break;
  case 'late':
    stream.write('part');
    throw new TypeError('midway');
  case 'early':
    throw new RangeError('before');
  case 'type':
    stream.write('x');
    try { stream.setContentType('text/html'); } catch (e) { stream.write(e.name); }
    stream.end();
    break;
  case 'end':
    stream.end('only');
    return 'ignored';
  }
});`})
		const integration = "application/vnd.awslambda.http-integration-response"
		tests := []struct{ do, body, contentType, errorType, errorBody string }{
			{do: "text", body: `one two {"three":3}`, contentType: "text/plain"},
			{do: "http", body: `{"statusCode":201,"headers":{"x-a":"b"},"cookies":["c=d"]}` + strings.Repeat("\x00", 8) + "body", contentType: integration},
			{do: "big", contentType: "application/octet-stream"},
			{do: "late", body: "part", contentType: "application/octet-stream", errorType: "TypeError", errorBody: `{"errorType":"TypeError","errorMessage":"midway","trace":["TypeError: midway","..."]}`},
			{do: "early", contentType: "application/octet-stream", errorType: "RangeError", errorBody: `{"errorType":"RangeError","errorMessage":"before","trace":["RangeError: before","..."]}`},
			{do: "type", body: "xRuntime.InvalidStreamingOperation", contentType: "application/octet-stream"},
			{do: "end", body: "only", contentType: "application/octet-stream"},
		}
		for _, tt := range tests {
			got := p.invoke(fmt.Sprintf(`{"do":%q}`, tt.do))
			if got.kind != "response" || got.header.Get("Lambda-Runtime-Function-Response-Mode") != "streaming" {
				t.Fatalf("%s: posted %+v", tt.do, got)
			}
			if tt.do == "big" {
				if len(got.body) != 100*64*1024 || got.body[64*1024] != 'b' {
					t.Errorf("big: %d bytes", len(got.body))
				}
			} else if got.body != tt.body {
				t.Errorf("%s: body %q, want %q", tt.do, got.body, tt.body)
			}
			if ct := got.header.Get("Content-Type"); ct != tt.contentType {
				t.Errorf("%s: Content-Type %q", tt.do, ct)
			}
			if got.errorType != tt.errorType {
				t.Errorf("%s: error type %q, want %q", tt.do, got.errorType, tt.errorType)
			}
			if tt.errorBody != "" {
				matchJSON(t, tt.errorBody, got.errorBody)
			}
			if tt.do == "text" && len(got.chunks) < 2 {
				t.Errorf("text: the first part waited for the rest")
			}
		}
		p.waitForLog("Streaming handlers ignore return values.")
	})
}

func TestNodeCrashBreaksOffAStream(t *testing.T) {
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		p := startRuntime(t, id, "index.handler", map[string]string{"index.js": `
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  stream.write('part');
  setTimeout(() => { throw new RangeError('later'); }, 5);
  await new Promise((r) => setTimeout(r, 10000));
});`})
		got := p.invoke(`{}`)
		if got.kind != "response" || got.body != "part" || got.errorType != "RangeError" {
			t.Errorf("posted %+v", got)
		}
		if code := p.exitCode(); code != 129 {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestNodeEndsWhereLoadingNeverEnds(t *testing.T) {
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		p := startRuntime(t, id, "index.handler", map[string]string{"index.mjs": `await new Promise(() => {}); export const handler = async () => 1;`})
		if code := p.exitCode(); code != 13 {
			t.Errorf("exit code %d, want 13", code)
		}
	})
}

const isoTime = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`

func TestNodeTextLog(t *testing.T) {
	files := map[string]string{"index.js": `
console.log('at init');
exports.handler = async (e, c) => {
  console.log('a %s', 'b', {c: 1});
  console.info('i'); console.debug('d'); console.warn('w'); console.error('e\nf'); console.trace('t'); console.fatal('x');
  process.stdout.write('raw\n');
  throw Object.assign(new Error('bad'), {code: 'E1', extra: {k: [1]}});
};`}
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		p := startRuntime(t, id, "index.handler", files)
		got := p.invoke(`{}`)
		if got.kind != "error" {
			t.Fatalf("posted %s", got.kind)
		}
		rid := got.id
		want := `^` + isoTime + `\tundefined\tINFO\tat init\n` +
			isoTime + `\t` + rid + `\tINFO\ta b { c: 1 }\n` +
			isoTime + `\t` + rid + `\tINFO\ti\n` +
			isoTime + `\t` + rid + `\tDEBUG\td\n` +
			isoTime + `\t` + rid + `\tWARN\tw\n` +
			isoTime + `\t` + rid + `\tERROR\te\rf\n` +
			isoTime + `\t` + rid + `\tTRACE\tt\n` +
			isoTime + `\t` + rid + `\tFATAL\tx\n` +
			`raw\n` +
			isoTime + `\t` + rid + `\tERROR\tInvoke Error \t\{"errorType":"Error","errorMessage":"bad","code":"E1","extra":\{"k":\[1\]\},"stack":\["Error: bad",.*\]\}\n$`
		if log := p.lines(10); !regexp.MustCompile(want).MatchString(log) {
			t.Errorf("log:\n%s\nwant:\n%s", log, want)
		}
	})
}

func TestNodeJSONLog(t *testing.T) {
	files := map[string]string{"index.js": `
exports.handler = async (e, c) => {
  console.debug('hidden');
  console.log({k: 1});
  console.info('a %s', 'b');
  console.warn('with', new TypeError('t'));
  const cyclic = {}; cyclic.self = cyclic; console.error(cyclic);
  throw new Error('bad');
};`}
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		p := startRuntime(t, id, "index.handler", files, "AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=info")
		got := p.invoke(`{}`, "Lambda-Runtime-Aws-Tenant-Id", "blue")
		lines := strings.Split(strings.TrimSpace(p.lines(5)), "\n")
		want := []string{
			`{"timestamp":"*","level":"INFO","requestId":"` + got.id + `","tenantId":"blue","message":{"k":1}}`,
			`{"timestamp":"*","level":"INFO","requestId":"` + got.id + `","tenantId":"blue","message":"a b"}`,
			`{"timestamp":"*","level":"WARN","requestId":"` + got.id + `","tenantId":"blue","message":"with TypeError: t*","errorType":"TypeError","errorMessage":"t","stackTrace":["TypeError: t","..."]}`,
			`{"timestamp":"*","level":"ERROR","requestId":"` + got.id + `","tenantId":"blue","message":"<ref *1> *"}`,
			`{"timestamp":"*","level":"ERROR","requestId":"` + got.id + `","tenantId":"blue","message":{"errorType":"Error","errorMessage":"bad","stackTrace":["Error: bad","..."]}}`,
		}
		if len(lines) != len(want) {
			t.Fatalf("%d lines:\n%s", len(lines), p.log())
		}
		for i := range want {
			matchJSON(t, want[i], lines[i])
		}
	})
}

func TestNodeSurvivesARefusedResult(t *testing.T) {
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		p := startRuntime(t, id, "index.handler", map[string]string{"index.js": `exports.handler = async (e) => 'x'.repeat(e);`})
		p.api.refuse = func(_ string, body []byte) int {
			if len(body) > 1000 {
				return http.StatusRequestEntityTooLarge
			}
			return 0
		}
		for _, n := range []int{10, 5000, 20} {
			if got := p.invoke(fmt.Sprint(n)); len(got.body) != n+2 {
				t.Fatalf("%d: posted %d bytes", n, len(got.body))
			}
		}
	})
}

// What goes into headers is on one line, in ASCII and bounded, whatever the
// function's error says.
func TestHostileErrorsStayInTheirHeaders(t *testing.T) {
	for id, files := range map[string]map[string]string{
		"nodejs22.x": {"app.js": `exports.handler = async (e) => { const x = new Error('mé\r\nX-Evil: 1\ud800'); x.name = 'T\u00e9\r\nX-Evil: 1'.padEnd(e, 'x'); throw x; };`},
		"python3.13": {"app.py": "def handler(e, c):\n    raise type('T\u00e9\\r\\nX-Evil: 1'.ljust(e, 'x'), (Exception,), {})('m\u00e9\\r\\nX-Evil: 1\\ud800')\n"},
	} {
		t.Run(id, func(t *testing.T) {
			p := startRuntime(t, id, "app.handler", files)
			for _, size := range []int{0, 1 << 20} {
				got := p.invoke(fmt.Sprint(size))
				if got.kind != "error" || got.header.Get("X-Evil") != "" || len(got.errorType) > 2048 {
					t.Fatalf("posted %s with %d headers, type of %d bytes", got.kind, len(got.header), len(got.errorType))
				}
				cause := got.header.Get("Lambda-Runtime-Function-Xray-Error-Cause")
				if (cause != "") != (size == 0) {
					t.Errorf("cause of %d bytes", len(cause))
				}
				if cause != "" && !json.Valid([]byte(cause)) {
					t.Errorf("cause %s", cause)
				}
				if !json.Valid([]byte(got.body)) {
					t.Errorf("body %.100s", got.body)
				}
			}
		})
	}
}

func TestNodeLargeEventsAndResults(t *testing.T) {
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		p := startRuntime(t, id, "index.handler", map[string]string{"index.js": `exports.handler = async (e) => e;`})
		event := `"` + strings.Repeat("aé", 2<<20) + `"` // 6 MiB
		if got := p.invoke(event); got.body != event {
			t.Errorf("%d bytes came back as %d", len(event), len(got.body))
		}
	})
}

func TestNodeBackgroundWorkGoesOnBetweenInvocations(t *testing.T) {
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		p := startRuntime(t, id, "index.handler", map[string]string{"index.js": `
let ticks = 0; setInterval(() => ticks++, 1);
exports.handler = async () => ticks;`})
		first := p.invoke(`{}`).body
		time.Sleep(50 * time.Millisecond)
		if second := p.invoke(`{}`).body; second == first {
			t.Errorf("ticks stay at %s", first)
		}
	})
}

func TestNodeImportsModulesOfLayers(t *testing.T) {
	// What lies at /opt in a sandbox.
	layers := t.TempDir()
	files := tree{
		"node22/node_modules/dep/package.json":  file(`{"name":"dep","exports":{"import":"./index.mjs"}}`),
		"node22/node_modules/dep/index.mjs":     file(`import { inner } from 'inner'; export const dep = 'dep of ' + inner;`),
		"node22/node_modules/inner/index.js":    file(`exports.inner = 'the release';`),
		"node_modules/inner/index.js":           file(`exports.inner = 'all releases';`),
		"node_modules/@scope/common/index.js":   file(`exports.common = 'common';`),
		"node_modules/own/index.js":             file(`exports.own = 'of the layer';`),
		"node_modules/broken/index.mjs":         file(`import './nothing.mjs';`),
		"node_modules/broken/package.json":      file(`{"exports":"./index.mjs"}`),
		"node_modules/subpath/package.json":     file(`{"exports":{"./sub":"./sub.mjs"}}`),
		"node_modules/subpath/sub.mjs":          file(`export const sub = 'sub';`),
		"node22/node_modules/dep/not-asked.mjs": file(`throw new Error('not asked');`),
	}
	if err := files.write(layers); err != nil {
		t.Fatal(err)
	}
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		p := startRuntime(t, id, "index.handler", map[string]string{
			"index.mjs": `
import { dep } from 'dep';
import { common } from '@scope/common';
import { own } from 'own';
import { sub } from 'subpath/sub';
import fs from 'fs';
const failed = async (name) => import(name).then(() => 'found', (err) => err.code + ' ' + err.message.includes(name.replace('./', '')));
export const handler = async () => [dep, common, own, sub, typeof fs.readFileSync, await failed('nowhere'), await failed('./nowhere.mjs'), await failed('broken')];`,
			"node_modules/own/index.js": `exports.own = 'of the function';`,
		}, "NODE_PATH="+layers+"/node22/node_modules:"+layers+"/node_modules:/nonexistent/node_modules")
		got := p.invoke(`{}`)
		matchJSON(t, `["dep of the release","common","of the function","sub","function","ERR_MODULE_NOT_FOUND true","ERR_MODULE_NOT_FOUND true","ERR_MODULE_NOT_FOUND true"]`, got.body)
	})
}
