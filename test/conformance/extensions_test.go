package conformance_test

import (
	"context"
	"regexp"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// withExtension runs a function with an extension in a layer, which prints what
// it is told to the function's log; last is what has come when the function is
// deleted.
func withExtension(t *testing.T, name, program string, logs []string, last ...string) {
	f := &fleet{Server: server, lambda: lambda.NewFromConfig(server.Config()), logs: cloudwatchlogs.NewFromConfig(server.Config())}
	f.one(t, "provided.al2023", runtimeTest{
		name: "extension " + name, handler: "x", event: `{"Do":"log"}`, want: `null`,
		files:  map[string]string{"bootstrap*": buildGo(t, "./function")},
		layers: []map[string]string{{"extensions/" + name + "*": program}},
		logs: append(logs,
			"^EXTENSION\tName: "+name+"\tState: Ready\tEvents: \\[INVOKE,SHUTDOWN\\]$",
			"^TELEMETRY\tName: "+name+"\tState: Subscribed\tTypes: \\[Platform, Function\\]$"),
	})
	function := "provided-al2023-extension-" + name
	if _, err := f.lambda.DeleteFunction(context.WithoutCancel(t.Context()), &lambda.DeleteFunctionInput{FunctionName: aws.String(function)}); err != nil {
		t.Fatal(err)
	}
	for _, l := range last {
		f.wantLog(t, function, regexp.MustCompile(l))
	}
}

func TestExtensionInALayerGetsTelemetry(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("makes a sandbox")
	}
	withExtension(t, "telemetry", buildGo(t, "../../internal/worker/testdata/telemetry"), []string{
		`^telemetry: platform.initStart .*"initializationType":"on-demand"`,
		`^telemetry: function "from stdout of {id}\\n"$`,
		`^telemetry: platform.runtimeDone .*"requestId":"{id}"`,
	}, `^telemetry: SHUTDOWN spindown$`)
}

// AWS's own crate reads each record into a type of its own and takes no other
// shape.
func TestExtensionOnAWSsRustCrateGetsTelemetry_Conformance(t *testing.T) {
	t.Parallel()
	needs(t, "crates.io")
	withExtension(t, "rust", buildRust(t, "extension"), []string{
		`^rust: invoke {id}$`,
		// The rest waits a second by default; the environment is frozen by then.
	}, `^rust: PlatformInitStart \{ initialization_type: OnDemand, phase: Init`,
		`^rust: Function\("from stderr of .*\\n"\)$`,
		`^rust: PlatformRuntimeDone \{ request_id: ".*status: Success`,
		`^rust: PlatformReport \{ request_id: ".*status: Success`,
		`^rust: shutdown spindown$`)
}
