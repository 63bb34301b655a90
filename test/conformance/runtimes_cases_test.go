package conformance_test

// What the messages of the platform look like.
const (
	timedOut  = `^RequestId: {id} Error: Task timed out after 2\.00 seconds$`
	exited    = `^RequestId: {id} Error: Runtime exited with error: exit status 3$`
	isoTime   = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`
	startLine = `^START RequestId: {id} Version: \$LATEST$`
	endLine   = `^END RequestId: {id}$`
	report    = `^REPORT RequestId: {id}\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\tMemory Size: 1769 MB\tMax Memory Used: \d+ MB`
)

func js(code string) map[string]string  { return map[string]string{"index.js": code} }
func mjs(code string) map[string]string { return map[string]string{"index.mjs": code} }
func py(code string) map[string]string  { return map[string]string{"app.py": code} }

var nodeTests = []runtimeTest{
	{name: "CommonJS", handler: "lib/index.run", event: `{"a":[1,"é"]}`, want: `{"got":{"a":[1,"é"]},"other":1}`,
		files: map[string]string{
			"lib/index.js": `const other = require('./other'); exports.run = async (e) => ({got: e, other});`,
			"lib/other.js": `module.exports = 1;`,
		},
		logs: []string{startLine, endLine, report}},
	{name: "ES module with top-level await", handler: "index.handler", want: `["later","fs"]`,
		files: mjs(`import fs from 'node:fs'; const v = await new Promise((r) => setTimeout(r, 5, 'later'));
export const handler = async () => [v, typeof fs.readFileSync === 'function' ? 'fs' : ''];`)},
	{name: "ES module by package.json", handler: "index.handler", want: `"esm"`,
		files: map[string]string{"package.json": `{"type":"module"}`, "index.js": `export const handler = async () => import.meta.url ? 'esm' : '';`}},
	{name: "callback", only: `nodejs2[02]`, handler: "index.handler", event: `2`, want: `{"r":2}`,
		files: js(`exports.handler = (e, c, cb) => { setTimeout(() => cb(null, {r: e}), 1); };`)},
	{name: "callback is refused", only: `nodejs24`, handler: "index.handler", fails: "Runtime.CallbackHandlerDeprecated", says: "callback-based function handlers",
		files: js(`exports.handler = (e, c, cb) => { cb(null, 1); };`)},
	{name: "context", handler: "index.handler", check: wantContext,
		files: js(`exports.handler = async (e, c) => ({id: c.awsRequestId, arn: c.invokedFunctionArn, name: c.functionName,
  version: c.functionVersion, memory: c.memoryLimitInMB, group: c.logGroupName, stream: c.logStreamName,
  time: c.getRemainingTimeInMillis() > 0 && c.getRemainingTimeInMillis() <= 60000, client: c.clientContext.custom.k});`)},
	{name: "environment", handler: "index.handler", check: wantEnv, files: js(`exports.handler = async () => process.env;`)},
	{name: "tmp is kept between invocations", handler: "index.handler", again: 2, want: `3`,
		files: js(`const fs = require('fs'); exports.handler = async () => { fs.appendFileSync('/tmp/n', 'x'); return fs.statSync('/tmp/n').size; };`)},
	{name: "response stream", streamed: true, handler: "index.handler", event: `{"n":1}`, want: `first,{"n":1},last`, logs: []string{report},
		files: js(`exports.handler = awslambda.streamifyResponse(async (event, stream, context) => {
  stream.write('first,');
  await new Promise((r) => setTimeout(r, 200));
  stream.write(JSON.stringify(event) + ',');
  stream.end('last');
  await stream.finished?.();
});`)},
	{name: "response stream with a prelude", streamed: true, handler: "index.handler", want: "{\"statusCode\":201}\x00\x00\x00\x00\x00\x00\x00\x00body",
		files: mjs(`export const handler = awslambda.streamifyResponse(async (event, stream) => {
  stream = awslambda.HttpResponseStream.from(stream, {statusCode: 201});
  stream.write('body');
  stream.end();
});`)},
	{name: "response stream that breaks off", streamed: true, handler: "index.handler", fails: "RangeError", says: `^too far$`,
		files: js(`exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  stream.write('part');
  await new Promise((r) => setTimeout(r, 50));
  throw new RangeError('too far');
});`)},
	{name: "buffered response, streamed", streamed: true, handler: "index.handler", want: `{"a":1}`, files: js(`exports.handler = async () => ({a: 1});`)},
	{name: "thrown error", handler: "index.handler", fails: "RangeError", says: `^too far$`,
		files: js(`exports.handler = async () => { throw new RangeError('too far'); };`),
		logs:  []string{`^` + isoTime + `\t{id}\tERROR\tInvoke Error \t\{"errorType":"RangeError","errorMessage":"too far","stack":\[`}},
	{name: "unhandled rejection", handler: "index.handler", fails: "Runtime.UnhandledPromiseRejection", says: `^Error: forgotten$`,
		files: js(`exports.handler = async () => { Promise.reject(new Error('forgotten')); await new Promise((r) => setTimeout(r, 5000)); };`)},
	{name: "missing module", handler: "nosuch.handler", fails: "Runtime.ImportModuleError", says: `^Error: Cannot find module 'nosuch'`, files: js(`exports.handler = 1;`)},
	{name: "missing handler", handler: "index.nosuch", fails: "Runtime.HandlerNotFound", says: `^index\.nosuch is undefined or not exported$`, files: js(`exports.handler = async () => 1;`)},
	{name: "syntax error", handler: "index.handler", fails: "Runtime.UserCodeSyntaxError", says: `^SyntaxError: `, files: js(`exports.handler = async (=> {`)},
	{name: "exit", handler: "index.handler", fails: "Runtime.ExitError", says: exited, files: js(`exports.handler = async () => { process.exit(3); };`)},
	{name: "timeout", handler: "index.handler", timeout: 2, fails: "Sandbox.Timedout", says: timedOut,
		files: js(`exports.handler = async () => { for (;;); };`), logs: []string{startLine, `^REPORT RequestId: {id}\t.*\tStatus: timeout`}},
	{name: "console", handler: "index.handler", want: `null`,
		files: js(`exports.handler = async () => { console.log('one %d', 1); console.warn('two\nlines'); console.error(new Error('three')); };`),
		logs:  []string{`^` + isoTime + `\t{id}\tINFO\tone 1$`, `(?s)^` + isoTime + `\t{id}\tWARN\ttwo\nlines$`, `(?s)^` + isoTime + `\t{id}\tERROR\tError: three\n +at `}},
	{name: "layers, CommonJS", handler: "index.handler", want: `["second","first","own","on the PATH"]`,
		files: map[string]string{
			"index.js":                  `const {execFileSync} = require('child_process'); exports.handler = async () => [require('dep'), require('only'), require('own'), execFileSync('tool').toString().trim()];`,
			"node_modules/own/index.js": `module.exports = 'own';`,
		},
		layers: []map[string]string{
			{"nodejs/node_modules/dep/index.js": `module.exports = 'first';`, "nodejs/node_modules/only/index.js": `module.exports = 'first';`, "nodejs/node_modules/own/index.js": `module.exports = 'layer';`},
			{"nodejs/node_modules/dep/index.js": `module.exports = 'second';`, "bin/tool*": "#!/bin/sh\necho on the PATH\n"},
		}},
	{name: "layers, ES module", handler: "index.handler", want: `["esm","cjs"]`,
		files: mjs(`import { a } from 'esm'; import b from 'cjs'; export const handler = async () => [a, b];`),
		layers: []map[string]string{
			{"nodejs/node_modules/esm/package.json": `{"type":"module","exports":"./m.js"}`, "nodejs/node_modules/esm/m.js": `export const a = 'esm';`},
			{"nodejs/node_modules/cjs/index.js": `module.exports = 'cjs';`},
		}},
	{name: "wrapper from a layer", handler: "index.handler", env: map[string]string{"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}, want: `"wrapped"`,
		files: js(`exports.handler = async () => process.env.WRAPPED;`), layers: []map[string]string{{"wrap*": "#!/bin/sh\nexport WRAPPED=wrapped\nexec \"$@\"\n"}}},
	{name: "JSON logs", json: true, handler: "index.handler", want: `null`,
		files: js(`exports.handler = async () => { console.log('one', {two: 2}); console.error('three'); };`),
		logs: []string{
			`^\{"timestamp":"` + isoTime + `","level":"INFO","requestId":"{id}","message":"one \{ two: 2 \}"\}$`,
			`^\{"timestamp":"` + isoTime + `","level":"ERROR","requestId":"{id}","message":"three"\}$`,
			`^\{"time":"[^"]+","type":"platform\.start","record":\{.*"requestId":"{id}"`,
			`^\{"time":"[^"]+","type":"platform\.report","record":\{.*"requestId":"{id}"`,
		}},
}

var pythonTests = []runtimeTest{
	{name: "packages", handler: "lib/app.run", event: `{"a":[1]}`, want: `{"got": {"a": [1]}, "other": 1}`,
		files: map[string]string{"lib/app.py": "from lib.other import other\ndef run(event, context):\n    return {'got': event, 'other': other}\n", "lib/__init__.py": "", "lib/other.py": "other = 1\n"},
		logs:  []string{startLine, endLine, report}},
	{name: "text is escaped", only: `python3\.11`, handler: "app.handler", event: `"é"`, want: `"\u00e9"`, files: py("def handler(e, c):\n    return e\n")},
	{name: "text is as it is", only: `python3\.1[23]`, handler: "app.handler", event: `"é"`, want: `"é"`, files: py("def handler(e, c):\n    return e\n")},
	{name: "context", handler: "app.handler", check: wantContext, files: py(`
def handler(e, c):
    left = c.get_remaining_time_in_millis()
    return {'id': c.aws_request_id, 'arn': c.invoked_function_arn, 'name': c.function_name, 'version': c.function_version,
            'memory': str(c.memory_limit_in_mb), 'group': c.log_group_name, 'stream': c.log_stream_name,
            'time': 0 < left <= 60000, 'client': c.client_context.custom['k']}
`)},
	{name: "environment", handler: "app.handler", check: wantEnv, files: py("import os\ndef handler(e, c):\n    return dict(os.environ)\n")},
	{name: "tmp is kept between invocations", handler: "app.handler", again: 2, want: `3`, files: py(`
import os
def handler(e, c):
    with open('/tmp/n', 'a') as f:
        f.write('x')
    return os.path.getsize('/tmp/n')
`)},
	{name: "raised exception", handler: "app.handler", fails: "Broken", says: `^as told$`,
		files: py("class Broken(Exception): pass\ndef handler(e, c):\n    raise Broken('as told')\n"),
		logs:  []string{`(?s)^\[ERROR\] Broken: as told\nTraceback \(most recent call last\):\n.*File "/var/task/app\.py", line 3, in handler`}},
	{name: "response that is not JSON", handler: "app.handler", fails: "Runtime.MarshalError", says: `^Unable to marshal response: `,
		files: py("def handler(e, c):\n    return object()\n")},
	{name: "missing module", handler: "app.handler", fails: "Runtime.ImportModuleError", says: `^Unable to import module 'app': No module named 'nosuch'$`,
		files: py("import nosuch\n")},
	{name: "missing handler", handler: "app.nosuch", fails: "Runtime.HandlerNotFound", says: `^Handler 'nosuch' missing on module 'app'$`, files: py("x = 1\n")},
	{name: "syntax error", handler: "app.handler", fails: "Runtime.UserCodeSyntaxError", says: `^Syntax error in module 'app': `, files: py("def handler(e, c:\n")},
	{name: "exit", handler: "app.handler", fails: "Runtime.ExitError", says: exited, files: py("import sys\ndef handler(e, c):\n    sys.exit(3)\n")},
	{name: "timeout", handler: "app.handler", timeout: 2, fails: "Sandbox.Timedout", says: timedOut, files: py("def handler(e, c):\n    while True: pass\n")},
	{name: "logging", handler: "app.handler", want: `null`, files: py(`
import logging
logging.getLogger().setLevel(logging.INFO)
def handler(e, c):
    print('printed')
    logging.info('one %d', 1)
    logging.warning('two\nlines')
`), logs: []string{`^printed$`, `^\[INFO\]\t` + isoTime + `\t{id}\tone 1$`, `(?s)^\[WARNING\]\t` + isoTime + `\t{id}\ttwo\nlines$`}},
	{name: "layers", handler: "app.handler", want: `["second", "first", "own"]`,
		files: map[string]string{"app.py": "import dep, only, own\ndef handler(e, c):\n    return [dep.v, only.v, own.v]\n", "own.py": "v = 'own'\n"},
		layers: []map[string]string{
			{"python/dep.py": "v = 'first'\n", "python/only.py": "v = 'first'\n", "python/own.py": "v = 'layer'\n"},
			{"python/dep.py": "v = 'second'\n"},
		}},
	{name: "wrapper from a layer", handler: "app.handler", env: map[string]string{"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}, want: `"wrapped"`,
		files: py("import os\ndef handler(e, c):\n    return os.environ['WRAPPED']\n"), layers: []map[string]string{{"wrap*": "#!/bin/sh\nexport WRAPPED=wrapped\nexec \"$@\"\n"}}},
	{name: "JSON logs", json: true, handler: "app.handler", want: `null`, files: py(`
import logging
def handler(e, c):
    logging.getLogger('birds').error('one %d', 1)
`), logs: []string{
		`^\{"timestamp": ?"[^"]+Z", ?"level": ?"ERROR", ?"message": ?"one 1", ?"logger": ?"birds", ?"requestId": ?"{id}"\}$`,
		`^\{"time":"[^"]+","type":"platform\.report","record":\{.*"requestId":"{id}"`,
	}},
}

// goTests are those of a function with aws-lambda-go.
func goTests(bootstrap string) []runtimeTest {
	tests := []runtimeTest{
		{name: "echo", event: `{"Echo":{"a":[1,"é"]}}`, want: `{"a":[1,"é"]}`, logs: []string{startLine, endLine, report}},
		{name: "context", event: `{"Do":"context"}`, check: wantContext},
		{name: "environment", event: `{"Do":"env"}`, check: wantEnv},
		{name: "tmp is kept between invocations", event: `{"Do":"tmp"}`, again: 2, want: `3`},
		{name: "streams", event: `{"Do":"log"}`, want: `null`, logs: []string{`^from stdout of {id}$`, `^from stderr of {id}$`}},
		{name: "error", event: `{"Do":"fail"}`, fails: "broken", says: `^as told$`},
		{name: "panic", event: `{"Do":"panic"}`, fails: "string", says: `^as told$`},
		{name: "exit", event: `{"Do":"exit"}`, fails: "Runtime.ExitError", says: exited},
		{name: "timeout", event: `{"Do":"sleep"}`, timeout: 2, fails: "Sandbox.Timedout", says: timedOut},
	}
	for i := range tests {
		tests[i].name = "aws-lambda-go " + tests[i].name
		tests[i].handler = "x"
		tests[i].files = map[string]string{"bootstrap*": bootstrap}
	}
	return tests
}

// shellBootstrap is the custom runtime of AWS's tutorial: sh and curl.
const shellBootstrap = `#!/bin/sh
. "$LAMBDA_TASK_ROOT/$(echo "$_HANDLER" | cut -d. -f1).sh"
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime
while :; do
	event=$(curl -sS -LD /tmp/headers "$api/invocation/next") || exit 1
	id=$(grep -Fi Lambda-Runtime-Aws-Request-Id /tmp/headers | tr -d '[:space:]' | cut -d: -f2)
	response=$($(echo "$_HANDLER" | cut -d. -f2) "$event")
	curl -sS -o /dev/null -X POST "$api/invocation/$id/response" -d "$response"
done
`

func sh(handler string) map[string]string {
	return map[string]string{"bootstrap*": shellBootstrap, "function.sh": handler}
}

var shellTests = []runtimeTest{
	{name: "shell echo", handler: "function.handler", event: `{"a": 1}`, want: `{"got":{"a": 1}}`,
		files: sh("handler() { echo \"event: $1\" >&2; printf '{\"got\":%s}' \"$1\"; }\n"), logs: []string{`^event: \{"a": 1\}$`, report}},
	{name: "shell reports an error", handler: "function.handler", fails: "Broken", says: `^as told$`,
		files: sh(`handler() { curl -sS -o /dev/null "$api/invocation/$id/error" -d '{"errorType":"Broken","errorMessage":"as told"}'; }` + "\n")},
	{name: "shell init error", handler: "function.handler", fails: "Init.Broken", says: `^as told$`,
		files: map[string]string{"bootstrap*": "#!/bin/sh\ncurl -sS -o /dev/null \"http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/init/error\" -H 'Lambda-Runtime-Function-Error-Type: Init.Broken' -d '{\"errorType\":\"Init.Broken\",\"errorMessage\":\"as told\"}'\nexit 1\n"}},
	{name: "bootstrap in a layer", handler: "function.handler", event: `1`, want: `{"got":"lib of the layer"}`,
		files:  map[string]string{"function.sh": "handler() { printf '{\"got\":\"%s\"}' \"$(cat /opt/lib/word)\"; }\n"},
		layers: []map[string]string{{"bootstrap*": shellBootstrap}, {"lib/word": "lib of the layer"}}},
	{name: "bootstrap of the function comes first", handler: "function.handler", event: `1`, want: `{"got":1}`,
		files: sh("handler() { printf '{\"got\":%s}' \"$1\"; }\n"), layers: []map[string]string{{"bootstrap*": "#!/bin/sh\nexit 1\n"}}},
	{name: "no bootstrap", handler: "x", fails: "Runtime.InvalidEntrypoint", says: `^RequestId: {id} Error: Couldn't find valid bootstrap\(s\): \[/var/task/bootstrap /opt/bootstrap\]$`,
		files: map[string]string{"readme": "nothing"}},
}
