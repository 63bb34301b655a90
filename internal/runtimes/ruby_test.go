package runtimes

import (
	"encoding/binary"
	"io"
	"os"
	"strings"
	"testing"
)

// rubyRuntime is the one that Debian has.
const rubyRuntime = "ruby3.3"

func TestRubyHandlers(t *testing.T) {
	tests := []struct {
		name    string
		files   map[string]string
		handler string
		event   string
		want    string // the response, or
		errs    string // the error
	}{
		{name: "method", handler: "app.run", event: `{"a":[1,"é"]}`, want: `{"got":{"a":[1,"é"]}}`,
			files: map[string]string{"app.rb": "def run(event:, context:)\n  { got: event }\nend\n"}},
		{name: "class method", handler: "app.Birds::Lapwing.run", event: `1`, want: `[1]`,
			files: map[string]string{"app.rb": "module Birds\n  class Lapwing\n    def self.run(event:, context:) = [event]\n  end\nend\n"}},
		{name: "module function", handler: "app.Birds.run", event: `1`, want: `2`,
			files: map[string]string{"app.rb": "module Birds\n  def self.run(event:, context:) = event + 1\nend\n"}},
		{name: "file in a folder", handler: "lib/app.run", event: `{}`, want: `"deep"`,
			files: map[string]string{"lib/app.rb": "require_relative 'word'\ndef run(event:, context:) = WORD\n", "lib/word.rb": "WORD = 'deep'\n"}},
		{name: "task root on the load path", handler: "app.run", event: `{}`, want: `"word"`,
			files: map[string]string{"app.rb": "require 'word'\ndef run(event:, context:) = WORD\n", "word.rb": "WORD = 'word'\n"}},
		{name: "further keywords are ignored by **", handler: "app.run", event: `3`, want: `3`,
			files: map[string]string{"app.rb": "def run(event:, **) = event\n"}},
		{name: "nil", handler: "app.run", event: `{}`, want: `null`, files: map[string]string{"app.rb": "def run(event:, context:) = nil\n"}},
		{name: "StringIO is sent as it is", handler: "app.run", event: `{}`, want: `{"raw":1}`,
			files: map[string]string{"app.rb": "require 'stringio'\ndef run(event:, context:) = StringIO.new('{\"raw\":1}')\n"}},
		{name: "marshaller of one's own", handler: "app.run", event: `{"a":1}`, want: `{"wrapped":"{\"a\":1}"}`,
			files: map[string]string{"app.rb": "class AwsLambda::Marshaller\n  def self.marshall_request(raw) = raw.body\n  def self.marshall_response(r) = { wrapped: r }.to_json\nend\ndef run(event:, context:) = event\n"}},
		{name: "context", handler: "app.run", event: `{}`, want: `["8476a536-e9f4-11e8-9739-2dfe598c3fcd","arn:aws:lambda:eu-west-1:123456789012:function:fn","fn","$LATEST","128","/aws/lambda/fn","2026/11/24/[$LATEST]0123456789abcdef",true,null]`,
			files: map[string]string{"app.rb": `def run(event:, context:)
  c = context
  left = c.get_remaining_time_in_millis
  [c.aws_request_id, c.invoked_function_arn, c.function_name, c.function_version, c.memory_limit_in_mb, c.log_group_name, c.log_stream_name, left.positive? && left <= 3000, c.client_context]
end
`}},
		{name: "raised error", handler: "app.run", event: `{}`, errs: `{"errorMessage":"as told","errorType":"Function<RuntimeError>","stackTrace":["*"]}`,
			files: map[string]string{"app.rb": "def run(event:, context:) = raise('as told')\n"}},
		{name: "error class of its own", handler: "app.run", event: `{}`, errs: `{"errorMessage":"mine","errorType":"Function<Broken>","stackTrace":["*","..."]}`,
			files: map[string]string{"app.rb": "class Broken < StandardError; end\ndef run(event:, context:) = raise(Broken, 'mine')\n"}},
		{name: "an event that is no JSON", handler: "app.run", event: `{`, errs: `{"errorMessage":"*","errorType":"Function<JSON::ParserError>","stackTrace":["*","..."]}`,
			files: map[string]string{"app.rb": "def run(event:, context:) = 1\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startRuntime(t, rubyRuntime, tt.handler, tt.files)
			// Twice: what one invocation leaves behind must not harm the next.
			for range 2 {
				got := p.invoke(tt.event)
				kind, want := "response", tt.want
				if tt.errs != "" {
					kind, want = "error", tt.errs
				}
				if got.kind != kind {
					t.Fatalf("posted %s: %s", got.kind, got.body)
				}
				matchJSON(t, want, got.body)
			}
		})
	}
}

// Errors of names and those that are no StandardError end the process, as on AWS.
func TestRubyErrorsThatEndTheProcess(t *testing.T) {
	for name, tt := range map[string]struct{ code, errs string }{
		"unknown method": {"nosuch", `{"errorMessage":"undefined local variable or method 'nosuch'*","errorType":"Function<NameError>","stackTrace":["*","..."]}`},
		"missing method": {"1.nosuch", `{"errorMessage":"undefined method *","errorType":"Function<NoMethodError>","stackTrace":["*","..."]}`},
		"exit":           {"exit(3)", `{"errorMessage":"exit","errorType":"Function<SystemExit>","stackTrace":["*","..."]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startRuntime(t, rubyRuntime, "app.run", map[string]string{"app.rb": "def run(event:, context:)\n  " + tt.code + "\nend\n"})
			got := p.invoke(`{}`)
			if got.kind != "error" {
				t.Fatalf("posted %s: %s", got.kind, got.body)
			}
			matchJSON(t, strings.ReplaceAll(tt.errs, "local variable or method 'nosuch'*", "*"), got.body)
			if code := p.exitCode(); code != 255 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestRubyInitErrors(t *testing.T) {
	for name, tt := range map[string]struct{ handler, code, errs, told string }{
		"missing file":      {"nosuch.run", "", `{"errorMessage":"cannot load such file -- nosuch","errorType":"Init<LoadError>","stackTrace":["*","..."]}`, "Init<LoadError>"},
		"syntax error":      {"app.run", "def run(", `{"errorMessage":"*","errorType":"Init<SyntaxError>","stackTrace":["*","..."]}`, "Function<UserException>"},
		"raised at load":    {"app.run", "raise 'no'", `{"errorMessage":"no","errorType":"Init<RuntimeError>","stackTrace":["*","..."]}`, "Function<UserException>"},
		"malformed handler": {"app", "", `{"errorMessage":"Invalid handler *","errorType":"Init<ArgumentError>","stackTrace":[]}`, "Init<ArgumentError>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startRuntime(t, rubyRuntime, tt.handler, map[string]string{"app.rb": tt.code + "\n"})
			got := p.posted()
			if got.kind != "init-error" || got.errorType != tt.told {
				t.Fatalf("posted %s, type %s: %s", got.kind, got.errorType, got.body)
			}
			matchJSON(t, tt.errs, got.body)
			if code := p.exitCode(); code != 252 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// With the platform's descriptor a record of several lines is one frame.
func TestRubyLogsAreFramed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := startRuntimeWith(t, rubyRuntime, "app.run", map[string]string{"app.rb": `require 'logger'
def run(event:, context:)
  puts "one\ntwo"
  Logger.new($stdout).warn("three\nfour")
end
`}, []*os.File{w}, "_LAMBDA_TELEMETRY_LOG_FD=3")
	w.Close()
	if got := p.invoke(`{}`); got.kind != "response" {
		t.Fatalf("posted %s: %s", got.kind, got.body)
	}
	first, second := readFrame(t, r), readFrame(t, r)
	if first != "one\ntwo" {
		t.Errorf("puts: %q", first)
	}
	if !strings.HasPrefix(second, "W, [") || !strings.HasSuffix(second, "WARN 8476a536-e9f4-11e8-9739-2dfe598c3fcd -- : three\nfour") {
		t.Errorf("Logger: %q", second)
	}
}

// readFrame reads one log frame and returns its text.
func readFrame(t *testing.T, r io.Reader) string {
	t.Helper()
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	if kind := binary.BigEndian.Uint32(head); kind != 0xa55a0003 {
		t.Fatalf("frame of type %x", kind)
	}
	text := make([]byte, binary.BigEndian.Uint32(head[4:]))
	if _, err := io.ReadFull(r, text); err != nil {
		t.Fatal(err)
	}
	return string(text)
}
