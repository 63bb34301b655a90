package conformance_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lapwing.dev/lapwing/test/harness"
)

func rb(code string) map[string]string { return map[string]string{"app.rb": code} }

// rubyTests are what the checks of `lapwing runtimes verify` leave out.
var rubyTests = []runtimeTest{
	{name: "environment", handler: "app.run", check: wantEnv, files: rb("def run(event:, context:) = ENV.to_h\n")},
	{name: "client context", handler: "app.run", want: `"v"`, files: rb("def run(event:, context:) = context.client_context['custom']['k']\n")},
	{name: "tmp is kept between invocations", handler: "app.run", again: 2, want: `3`,
		files: rb("def run(event:, context:)\n  File.write('/tmp/n', 'x', mode: 'a')\n  File.size('/tmp/n')\nend\n")},
	{name: "exit", handler: "app.run", fails: "Runtime.ExitError", says: exited, files: rb("def run(event:, context:) = exit!(3)\n")},
	{name: "openssl and net/http", handler: "app.run", want: `["constant","constant"]`,
		files: rb("require 'net/http'\nrequire 'openssl'\ndef run(event:, context:) = [defined?(Net::HTTP), defined?(OpenSSL::SSL)]\n")},
	{name: "layers and bundled gems", handler: "app.run", want: `["layer","gem","bundled"]`,
		files: map[string]string{
			"app.rb": "require 'lib_of_layer'\nrequire 'gem_of_layer'\nrequire 'bundled'\ndef run(event:, context:) = [LIB, GEM, BUNDLED]\n",
			"vendor/bundle/ruby/3.3.0/specifications/bundled-1.0.gemspec": gemspec("bundled"),
			"vendor/bundle/ruby/3.3.0/gems/bundled-1.0/lib/bundled.rb":    "BUNDLED = 'bundled'\n",
		},
		layers: []map[string]string{
			{"ruby/lib/lib_of_layer.rb": "LIB = 'layer'\n"},
			{"ruby/gems/3.3.0/specifications/gem_of_layer-1.0.gemspec": gemspec("gem_of_layer"), "ruby/gems/3.3.0/gems/gem_of_layer-1.0/lib/gem_of_layer.rb": "GEM = 'gem'\n"},
		}},
	{name: "wrapper from a layer", handler: "app.run", env: map[string]string{"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}, want: `"wrapped"`,
		files: rb("def run(event:, context:) = ENV['WRAPPED']\n"), layers: []map[string]string{{"wrap*": "#!/bin/sh\nexport WRAPPED=wrapped\nexec \"$@\"\n"}}},
}

func gemspec(name string) string {
	return fmt.Sprintf("Gem::Specification.new do |s|\n  s.name = %q\n  s.version = '1.0'\n  s.summary = 'test'\n  s.authors = ['test']\n  s.files = []\nend\n", name)
}

// javaSource is a function whose parts come in jars.
const javaSource = `
import com.amazonaws.services.lambda.runtime.Context;
import java.util.*;
public class App {
    public Object env() { return System.getenv(); }
    public Object told(Map<String, Object> event, Context c) {
        return Map.of("id", c.getAwsRequestId(), "arn", c.getInvokedFunctionArn(), "name", c.getFunctionName(), "version", c.getFunctionVersion(),
            "memory", "" + c.getMemoryLimitInMB(), "group", c.getLogGroupName(), "stream", c.getLogStreamName(),
            "time", c.getRemainingTimeInMillis() > 0 && c.getRemainingTimeInMillis() <= 60000, "client", c.getClientContext().getCustom().get("k"));
    }
    public Object properties() { return List.of(System.getProperty("java.home"), System.getProperty("chosen", "none"), Part.NAME); }
    public Object heap() { return Runtime.getRuntime().maxMemory() >> 20; }
    public void exit() { Runtime.getRuntime().halt(3); }
    public Object roots() throws Exception {
        var f = javax.net.ssl.TrustManagerFactory.getInstance("PKIX");
        f.init((java.security.KeyStore) null);
        return ((javax.net.ssl.X509TrustManager) f.getTrustManagers()[0]).getAcceptedIssuers().length > 10;
    }
    public static class Text { public static String of(String s) { return s; } }
}
class Part { static final String NAME = Named.name(); }
class Named { static String name() { try { return (String) Class.forName("dep.Dep").getField("NAME").get(null); } catch (ReflectiveOperationException e) { return "no dep"; } } }
`

// javaTests compiles the function and returns what its invocations come to.
func javaTests(t *testing.T, data string) []runtimeTest {
	t.Helper()
	clients, _ := filepath.Glob(filepath.Join(data, "runtimes/added/java-client/*/lib/aws-lambda-java-core-*.jar"))
	if len(clients) != 1 {
		t.Fatalf("AWS's library for Java functions: %v", clients)
	}
	classes := compileJava(t, clients[0], map[string]string{"App.java": javaSource})
	dep := func(name string) string {
		return string(harness.Zip(compileJava(t, "", map[string]string{"dep/Dep.java": "package dep; public class Dep { public static final String NAME = \"" + name + "\".trim(); }"})))
	}
	with := func(more map[string]string) map[string]string {
		files := map[string]string{}
		for name, body := range classes {
			files[name] = body
		}
		for name, body := range more {
			files[name] = body
		}
		return files
	}
	jar := map[string]string{"lib/app.jar": string(harness.Zip(classes))}
	return []runtimeTest{
		{name: "context", handler: "App::told", check: wantContext, files: classes, logs: []string{startLine, endLine, report}},
		{name: "environment", handler: "App::env", check: wantEnv, files: classes},
		{name: "function in a jar", handler: "App::properties", want: `["/var/lang","none","no dep"]`, files: jar},
		{name: "library in lib", handler: "App::properties", want: `["/var/lang","none","own"]`, files: with(map[string]string{"lib/dep.jar": dep("own")})},
		{name: "library in a layer", handler: "App::properties", want: `["/var/lang","none","layer"]`, files: classes, layers: []map[string]string{{"java/lib/dep.jar": dep("layer")}}},
		{name: "JAVA_TOOL_OPTIONS", handler: "App::properties", env: map[string]string{"JAVA_TOOL_OPTIONS": "-Dchosen=mine"}, want: `["/var/lang","mine","no dep"]`, files: classes},
		{name: "heap", handler: "App::heap", check: wantHeap, files: classes},
		{name: "certificates of the public authorities", handler: "App::roots", want: `true`, files: classes},
		{name: "exit", handler: "App::exit", fails: "Runtime.ExitError", says: exited, files: classes},
		{name: "wrapper from a layer", handler: "App::env", env: map[string]string{"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}, files: classes,
			check:  func(t *testing.T, o outcome) { wantEnv(t, o); wantText(t, o, `"WRAPPED":"wrapped"`) },
			layers: []map[string]string{{"wrap*": "#!/bin/sh\nexport WRAPPED=wrapped\nexec \"$@\"\n"}}},
	}
}

// wantHeap checks that the heap is 85 % of the memory, of which the serial
// collector keeps one of its survivor spaces back.
func wantHeap(t *testing.T, o outcome) {
	var got int32
	if err := json.Unmarshal(o.payload, &got); err != nil || got < o.memory*78/100 || got > o.memory*85/100 {
		t.Errorf("the heap is %s MB of %d: %v", o.payload, o.memory, err)
	}
}

func wantText(t *testing.T, o outcome, want string) {
	t.Helper()
	if !strings.Contains(string(o.payload), want) {
		t.Errorf("no %s in %s", want, o.payload)
	}
}

// compileJava compiles sources for the oldest runtime and returns the classes.
func compileJava(t *testing.T, classPath string, sources map[string]string) map[string]string {
	t.Helper()
	dir, out := t.TempDir(), t.TempDir()
	args := []string{"--release", "17", "-d", out, "-cp", classPath}
	for name, body := range sources {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if text, err := exec.Command("javac", args...).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, text)
	}
	classes := map[string]string{}
	err := filepath.WalkDir(out, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		classes[strings.TrimPrefix(path, out+"/")] = string(body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return classes
}

// The classes that verify deploys are those of the source beside them: whoever
// changes the source compiles it, and writes its digest down.
func TestVerifysClassesAreOfTheirSource(t *testing.T) {
	dir := filepath.Join("..", "..", "cmd", "lapwing", "verify", "functions", "java")
	source, err := os.ReadFile(filepath.Join(dir, "Conformance.java"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(dir, "Conformance.java.sha256"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x\n", sha256.Sum256(source)); got != string(want) {
		t.Errorf("Conformance.java has digest %sits classes were compiled from %scompile it with 'javac --release 17' and AWS's aws-lambda-java-core, and write the new digest down", got, want)
	}
}
