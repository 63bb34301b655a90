package runtimes

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// pythonRuntimes returns the Python runtimes that this host can have: 3.11 and
// 3.12 only where they are installed, for no registry that we use has them.
func pythonRuntimes(t *testing.T) []string {
	ids := []string{"python3.13"}
	for _, id := range []string{"python3.11", "python3.12"} {
		_, err := sharedRegistry(t).Resolve(id)
		var missing *UnavailableError
		switch {
		case err == nil:
			ids = append(ids, id)
		case errors.As(err, &missing):
			t.Logf("%s is not tested here: %v", id, err)
		default:
			t.Fatal(err)
		}
	}
	return ids
}

func TestPythonHandlers(t *testing.T) {
	tests := []struct {
		name    string
		files   map[string]string
		handler string
		event   string
		want    string // the response, or
		errs    string // the error
	}{
		{name: "result", handler: "app.handler", event: `{"a":[1,"é"]}`, want: `{"got":{"a":[1,"é"]}}`,
			files: map[string]string{"app.py": "def handler(e, c):\n    return {'got': e}\n"}},
		{name: "None", handler: "app.handler", event: `{}`, want: `null`,
			files: map[string]string{"app.py": "def handler(e, c):\n    pass\n"}},
		{name: "folders", handler: "src/app/main.handler", event: `{}`, want: `"deep"`,
			files: map[string]string{"src/app/main.py": "def handler(e, c):\n    return 'deep'\n"}},
		{name: "package", handler: "pkg.mod.handler", event: `{}`, want: `"pkg.mod"`,
			files: map[string]string{"pkg/__init__.py": "", "pkg/mod.py": "def handler(e, c):\n    return __name__\n"}},
		{name: "imports beside the handler", handler: "app.handler", event: `{}`, want: `"util"`,
			files: map[string]string{"app.py": "import util\ndef handler(e, c):\n    return util.NAME\n", "util.py": "NAME = 'util'\n"}},
		{name: "Decimal", handler: "app.handler", event: `{}`, want: `{"a":1.10,"b":[3,"x"],"c":{"d":0.5}}`,
			files: map[string]string{"app.py": "from decimal import Decimal as D\ndef handler(e, c):\n    return {'a': D('1.10'), 'b': [D(3), 'x'], 'c': {'d': D('0.5')}}\n"}},
		{name: "callable object", handler: "app.handler", event: `{}`, want: `"called"`,
			files: map[string]string{"app.py": "class H:\n    def __call__(self, e, c):\n        return 'called'\nhandler = H()\n"}},
		{name: "exit and quit exist", handler: "app.handler", event: `{}`, want: `[true,true]`,
			files: map[string]string{"app.py": "def handler(e, c):\n    return [callable(exit), callable(quit)]\n"}},
		{name: "exception", handler: "app.handler", event: `{}`,
			errs:  `{"errorMessage":"no","errorType":"ValueError","requestId":"*","stackTrace":["  File \"TASK/app.py\", line 2, in handler\n    return inner()\n","  File \"TASK/app.py\", line 4, in inner\n    raise ValueError('no')\n"]}`,
			files: map[string]string{"app.py": "def handler(e, c):\n    return inner()\ndef inner():\n    raise ValueError('no')\n"}},
		{name: "exception of its own", handler: "app.handler", event: `{}`,
			errs:  `{"errorMessage":"mine é","errorType":"MyError","requestId":"*","stackTrace":["*"]}`,
			files: map[string]string{"app.py": "class MyError(Exception):\n    pass\ndef handler(e, c):\n    raise MyError('mine é')\n"}},
		{name: "a result that JSON can't hold", handler: "app.handler", event: `{}`,
			errs:  `{"errorMessage":"Unable to marshal response: Object of type set is not JSON serializable","errorType":"Runtime.MarshalError","requestId":"*","stackTrace":[]}`,
			files: map[string]string{"app.py": "def handler(e, c):\n    return {1, 2}\n"}},
		{name: "an event that is no JSON", handler: "app.handler", event: `{`,
			errs:  `{"errorMessage":"Unable to unmarshal input: *","errorType":"Runtime.UnmarshalError","requestId":"*","stackTrace":[]}`,
			files: map[string]string{"app.py": "def handler(e, c):\n    return 1\n"}},
		{name: "wrong number of arguments", handler: "app.handler", event: `{}`,
			errs:  `{"errorMessage":"handler() takes 1 positional argument but 2 were given","errorType":"TypeError","requestId":"*","stackTrace":["..."]}`,
			files: map[string]string{"app.py": "def handler(e):\n    return 1\n"}},
	}
	ids := pythonRuntimes(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			forEach(t, ids, func(t *testing.T, id string) {
				p := startRuntime(t, id, tt.handler, tt.files)
				for range 2 {
					got := p.invoke(tt.event)
					want := tt.want
					if tt.errs != "" {
						want = strings.ReplaceAll(tt.errs, "TASK", p.cmd.Dir)
					}
					if (got.kind == "error") != (tt.errs != "") {
						t.Fatalf("posted %s: %s", got.kind, got.body)
					}
					matchJSON(t, want, got.body)
					if tt.errs != "" && !strings.Contains(want, `"errorType":"`+got.errorType+`"`) {
						t.Errorf("Lambda-Runtime-Function-Error-Type: %s", got.errorType)
					}
				}
			})
		})
	}
}

func TestPythonInitErrors(t *testing.T) {
	tests := []struct {
		name, handler, code, want string
	}{
		{name: "no such module", handler: "nope.handler",
			want: `{"errorMessage":"Unable to import module 'nope': No module named 'nope'","errorType":"Runtime.ImportModuleError","requestId":"","stackTrace":[]}`},
		{name: "missing dependency", handler: "app.handler", code: "import requests_that_is_not_there\n",
			want: `{"errorMessage":"Unable to import module 'app': No module named 'requests_that_is_not_there'","errorType":"Runtime.ImportModuleError","requestId":"","stackTrace":[]}`},
		{name: "no such function", handler: "app.nope", code: "handler = 1\n",
			want: `{"errorMessage":"Handler 'nope' missing on module 'app'","errorType":"Runtime.HandlerNotFound","requestId":"","stackTrace":[]}`},
		{name: "syntax error", handler: "app.handler", code: "def handler(e, c)\n    return 1\n",
			want: `{"errorMessage":"Syntax error in module 'app': expected ':' (app.py, line 1)","errorType":"Runtime.UserCodeSyntaxError","requestId":"","stackTrace":["  File \"TASK/app.py\" Line 1\n    def handler(e, c)\n"]}`},
		{name: "no dot", handler: "app",
			want: `{"errorMessage":"Bad handler 'app': not enough values to unpack (expected 2, got 1)","errorType":"Runtime.MalformedHandlerName","requestId":"","stackTrace":[]}`},
		{name: "a built-in module", handler: "sys.exit",
			want: `{"errorMessage":"Cannot use built-in module sys as a handler module","errorType":"Runtime.BuiltInModuleConflict","requestId":"","stackTrace":[]}`},
		{name: "raised while importing", handler: "app.handler", code: "raise KeyError('at import')\n",
			want: `{"errorMessage":"'at import'","errorType":"KeyError","requestId":"","stackTrace":["..."]}`},
	}
	ids := pythonRuntimes(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			forEach(t, ids, func(t *testing.T, id string) {
				p := startRuntime(t, id, tt.handler, map[string]string{"app.py": tt.code})
				got := p.posted()
				if got.kind != "init-error" {
					t.Fatalf("posted %s: %s", got.kind, got.body)
				}
				matchJSON(t, strings.ReplaceAll(tt.want, "TASK", p.cmd.Dir), got.body)
				if code := p.exitCode(); code != 1 {
					t.Errorf("exit code %d, want 1", code)
				}
				if log := p.log(); !strings.Contains(log, "LAMBDA_WARNING: Unhandled exception.") || !strings.Contains(log, "[ERROR] "+got.errorType) {
					t.Errorf("log: %s", log)
				}
			})
		})
	}
}

func TestPythonContext(t *testing.T) {
	files := map[string]string{"app.py": `
import os
def handler(event, c):
    left = c.get_remaining_time_in_millis()
    c.log('said by log\n')
    cc = c.client_context
    return {
        'aws_request_id': c.aws_request_id, 'function_name': c.function_name, 'function_version': c.function_version,
        'invoked_function_arn': c.invoked_function_arn, 'memory_limit_in_mb': c.memory_limit_in_mb,
        'log_group_name': c.log_group_name, 'log_stream_name': c.log_stream_name, 'tenant_id': c.tenant_id,
        'identity': [c.identity.cognito_identity_id, c.identity.cognito_identity_pool_id],
        'client_context': cc and [cc.custom, cc.env, cc.client and [cc.client.installation_id, cc.client.app_title]],
        'left': 0 < left <= 3000, 'int': type(left) is int, 'trace': os.environ.get('_X_AMZN_TRACE_ID'),
        'repr': repr(c)[:40],
    }
`}
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		p := startRuntime(t, id, "app.handler", files)
		common := `"aws_request_id":"8476a536-e9f4-11e8-9739-2dfe598c3fcd","function_name":"fn","function_version":"$LATEST",
			"invoked_function_arn":"arn:aws:lambda:eu-west-1:123456789012:function:fn","memory_limit_in_mb":"128",
			"log_group_name":"/aws/lambda/fn","log_stream_name":"2026/11/24/[$LATEST]0123456789abcdef",
			"left":true,"int":true,"repr":"LambdaContext([aws_request_id=8476a536-e"`
		got := p.invoke(`{}`,
			"Lambda-Runtime-Client-Context", `{"custom":{"k":"v"},"env":{"e":"f"},"client":{"installation_id":"i","app_title":"t"}}`,
			"Lambda-Runtime-Cognito-Identity", `{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}`,
			"Lambda-Runtime-Trace-Id", "Root=1", "Lambda-Runtime-Aws-Tenant-Id", "blue")
		matchJSON(t, `{`+common+`,"tenant_id":"blue","identity":["i","p"],"client_context":[{"k":"v"},{"e":"f"},["i","t"]],"trace":"Root=1"}`, got.body)
		got = p.invoke(`{}`)
		matchJSON(t, `{`+common+`,"tenant_id":null,"identity":[null,null],"client_context":null,"trace":null}`, got.body)
		got = p.invoke(`{}`, "Lambda-Runtime-Client-Context", `{`)
		if got.kind != "error" || got.errorType != "Runtime.LambdaContextUnmarshalError" {
			t.Errorf("malformed client context: %+v", got)
		}
		p.waitForLog("said by log\nsaid by log\n")
	})
}

// A start imports nothing that takes long, and the handler of logging appears
// when logging does.
func TestPythonStartsWithoutExpensiveModules(t *testing.T) {
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		p := startRuntime(t, id, "app.handler", map[string]string{"app.py": `
import sys
early = sorted({'json', 're', 'enum', 'logging', 'traceback', 'socket', 'http', 'collections', 'functools', 'site'} & set(sys.modules))
def handler(e, c):
    import logging
    return {'early': early, 'handlers': [type(h).__name__ for h in logging.getLogger().handlers], 'path': sys.path[:3]}
`})
		matchJSON(t, fmt.Sprintf(`{"early":[],"handlers":["LambdaLoggerHandler"],"path":[%q,"/opt/python/lib/%s/site-packages","/opt/python"]}`, p.cmd.Dir, id), p.invoke(`{}`).body)
	})
}

// The JSON of events and results is that of the json module, whose inner part
// is used alone.
func TestPythonJSONIsThatOfTheJSONModule(t *testing.T) {
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		p := startRuntime(t, id, "app.handler", map[string]string{"app.py": `
def handler(e, c):
    if e == 'make':
        return {1: 1.5, 2.5: True, None: [None, float('nan'), float('inf')], False: (1, 2), 'é\U0001f600': 'ü\"\\\n\x00'}
    return [e, type(e).__name__]
`})
		for event, want := range map[string]string{
			` [1, -2.5e3, 12345678901234567890, "\ud83d\ude00\u00e9", true, null, {}] ` + "\n": `[[1, -2500.0, 12345678901234567890, "😀é", true, null, {}], "list"]`,
			`NaN`:      `[NaN, "float"]`,
			`"\ud800"`: `["\ud800", "str"]`,
			`"make"`:   `{"1": 1.5, "2.5": true, "null": [null, NaN, Infinity], "false": [1, 2], "é😀": "ü\"\\\n\u0000"}`,
		} {
			got := p.invoke(event)
			if id == "python3.11" {
				want = strings.NewReplacer("😀", `\ud83d\ude00`, "é", `\u00e9`, "ü", `\u00fc`).Replace(want)
			}
			if event == `"\ud800"` && id != "python3.11" {
				// UTF-8 can't hold it, and from 3.12 on it is not escaped.
				if got.errorType != "Runtime.MarshalError" {
					t.Errorf("%s: %+v", event, got)
				}
			} else if got.body != want {
				t.Errorf("%s: %s, want %s", event, got.body, want)
			}
		}
		for _, event := range []string{``, `{} {}`, `[1,]`, `{"a":1`, `tru`, `"` + "\x01" + `"`, strings.Repeat("[", 200000)} {
			if got := p.invoke(event); got.errorType != "Runtime.UnmarshalError" {
				t.Errorf("%.20s: %s %.100s", event, got.errorType, got.body)
			}
		}
	})
}

func TestPythonExitEndsTheRuntime(t *testing.T) {
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		p := startRuntime(t, id, "app.handler", map[string]string{"app.py": "import sys\ndef handler(e, c):\n    print('partial', end='')\n    sys.exit(e)\n"})
		p.api.events <- testEvent{id: "a", body: "7"}
		if code := p.exitCode(); code != 7 {
			t.Errorf("exit code %d", code)
		}
		if log := p.log(); log != "partial" {
			t.Errorf("log: %q", log)
		}
	})
}

const pythonTime = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`

func TestPythonTextLog(t *testing.T) {
	files := map[string]string{"app.py": `
import logging, sys
logging.warning('at import')
logging.getLogger().setLevel('DEBUG')
def handler(e, c):
    print('printed'); print('to stderr', file=sys.stderr)
    logging.debug('d'); logging.info('i %s', 1); logging.getLogger('x.y').error('e')
    logging.critical('c')
    raise ValueError('bad')
`}
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		p := startRuntime(t, id, "app.handler", files)
		got := p.invoke(`{}`)
		want := `^\[WARNING\]\t` + pythonTime + `\t\tat import\n` +
			`printed\nto stderr\n` +
			`\[DEBUG\]\t` + pythonTime + `\t` + got.id + `\td\n` +
			`\[INFO\]\t` + pythonTime + `\t` + got.id + `\ti 1\n` +
			`\[ERROR\]\t` + pythonTime + `\t` + got.id + `\te\n` +
			`\[CRITICAL\]\t` + pythonTime + `\t` + got.id + `\tc\n` +
			`\[ERROR\] ValueError: bad\rTraceback \(most recent call last\):\r\x{a0}\x{a0}File "[^"]*/app.py", line 9, in handler\r\x{a0}\x{a0}\x{a0}\x{a0}raise ValueError\('bad'\)\n$`
		if log := p.lines(8); !regexp.MustCompile(want).MatchString(log) {
			t.Errorf("log:\n%q\nwant:\n%s", log, want)
		}
	})
}

func TestPythonJSONLog(t *testing.T) {
	files := map[string]string{"app.py": `
import logging
def handler(e, c):
    logging.debug('hidden')
    logging.info('i %s', 'ü', extra={'order': 7, 'none': None})
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger('x').exception('oops')
    raise ValueError('bad')
`}
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		p := startRuntime(t, id, "app.handler", files, "AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=INFO")
		got := p.invoke(`{}`, "Lambda-Runtime-Aws-Tenant-Id", "blue")
		lines := strings.Split(strings.TrimSpace(p.lines(3)), "\n")
		want := []string{
			`{"timestamp":"*","level":"INFO","message":"i ü","logger":"root","requestId":"` + got.id + `","tenantId":"blue","order":7}`,
			`{"timestamp":"*","level":"ERROR","message":"oops","logger":"x","stackTrace":["*"],"errorType":"ZeroDivisionError","errorMessage":"division by zero","requestId":"` + got.id + `","location":"*","tenantId":"blue"}`,
			`{"timestamp":"*","log_level":"ERROR","errorMessage":"bad","errorType":"ValueError","requestId":"` + got.id + `","stackTrace":["*"]}`,
		}
		if len(lines) != len(want) {
			t.Fatalf("%d lines:\n%s", len(lines), p.log())
		}
		for i := range want {
			matchJSON(t, want[i], lines[i])
		}
	})
}

func TestAddedPythonHasTheAWSSDKAndCertificates(t *testing.T) {
	p := startRuntime(t, "python3.13", "app.handler", map[string]string{"app.py": `
import boto3, bz2, ctypes, lzma, sqlite3, ssl, zlib, zoneinfo
def handler(e, c):
    s3 = boto3.client('s3', region_name='eu-west-1', endpoint_url='http://127.0.0.1:1', aws_access_key_id='a', aws_secret_access_key='b')
    return [s3.meta.endpoint_url, str(zoneinfo.ZoneInfo('Europe/Berlin'))]
`})
	if got := p.invoke(`{}`); got.body != `["http://127.0.0.1:1", "Europe/Berlin"]` {
		t.Errorf("posted %s: %s", got.kind, got.body)
	}
}

func TestPythonBytesAreNotEncoded(t *testing.T) {
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		p := startRuntime(t, id, "app.handler", map[string]string{"app.py": "def handler(e, c):\n    return b'\\x00\\xff'\n"})
		if got := p.invoke(`{}`); got.body != "\x00\xff" || got.header.Get("Content-Type") != "application/unknown" {
			t.Errorf("posted %q as %s", got.body, got.header.Get("Content-Type"))
		}
	})
}

func TestPythonSurvivesARefusedResult(t *testing.T) {
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		p := startRuntime(t, id, "app.handler", map[string]string{"app.py": "def handler(e, c):\n    return 'x' * e\n"})
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

func TestPythonLargeEventsAndResults(t *testing.T) {
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		p := startRuntime(t, id, "app.handler", map[string]string{"app.py": "def handler(e, c):\n    return e\n"})
		event := `"` + strings.Repeat("a", 6<<20) + `"`
		if got := p.invoke(event); got.body != event {
			t.Errorf("%d bytes came back as %d", len(event), len(got.body))
		}
	})
}

func TestPythonThreadsRunBetweenInvocations(t *testing.T) {
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		p := startRuntime(t, id, "app.handler", map[string]string{"app.py": `
import threading, time
ticks = 0
def tick():
    global ticks
    while True:
        time.sleep(0.001); ticks += 1
threading.Thread(target=tick, daemon=True).start()
def handler(e, c):
    return ticks
`})
		first := p.invoke(`{}`).body
		time.Sleep(50 * time.Millisecond)
		if second := p.invoke(`{}`).body; second == first {
			t.Errorf("ticks stay at %s", first)
		}
	})
}

// Records go to the platform's descriptor as frames where there is one.
func TestLogFrames(t *testing.T) {
	for id, code := range map[string][2]string{
		"nodejs22.x": {"index.js", "exports.handler = async () => { console.warn('two\\nlines'); };"},
		"python3.13": {"index.py", "import logging\ndef handler(e, c):\n    logging.warning('two\\nlines')\n"},
	} {
		t.Run(id, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "frames")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p := startRuntimeWith(t, id, "index.handler", map[string]string{code[0]: code[1]}, []*os.File{f}, "_LAMBDA_TELEMETRY_LOG_FD=3")
			p.invoke(`{}`)
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) < 16 || string(got[:4]) != "\xa5\x5a\x00\x13" || int(got[6])<<8+int(got[7]) != len(got)-16 {
				t.Fatalf("frame %q", got)
			}
			if !strings.HasSuffix(string(got), "\ttwo\nlines") {
				t.Errorf("message %q", got[16:])
			}
		})
	}
}
