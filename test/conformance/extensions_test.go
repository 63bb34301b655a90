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
// it is told to the function's log, last when the function is deleted.
func withExtension(t *testing.T, name, program string, logs []string, last string) {
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
	f.wantLog(t, function, regexp.MustCompile(last))
}

func TestExtensionInALayerGetsTelemetry(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a sandbox")
	}
	withExtension(t, "telemetry", buildGo(t, "../../internal/worker/testdata/telemetry"), []string{
		`^telemetry: platform.initStart .*"initializationType":"on-demand"`,
		`^telemetry: function "from stdout of {id}\\n"$`,
		`^telemetry: platform.runtimeDone .*"requestId":"{id}"`,
	}, `^telemetry: SHUTDOWN spindown$`)
}
