package acceptance_test

import (
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

const hookedFunction = `
import os
from snapshot_restore_py import register_after_restore, register_before_snapshot
if "FAIL" in os.environ:
    raise ValueError("not today")
calls = []
@register_before_snapshot
def before(): calls.append(["before", os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]])
@register_after_restore
def after(): calls.append(["after", os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]])
def handler(event, context):
    e = os.environ
    return {"calls": calls, "stream": e["AWS_LAMBDA_LOG_STREAM_NAME"], "initType": e["AWS_LAMBDA_INITIALIZATION_TYPE"],
            "version": context.function_version, "credentials": e["AWS_CONTAINER_CREDENTIALS_FULL_URI"], "key": e.get("AWS_ACCESS_KEY_ID")}
`

// publishedWithSnapStart publishes a version of a function and waits until it is
// Active or Failed.
func publishedWithSnapStart(t *testing.T, s *harness.Server, name string, variables map[string]string) (*lambda.Client, *lambda.GetFunctionConfigurationOutput) {
	t.Helper()
	c := deployFiles(t, s, name, 256, map[string]string{"index.py": hookedFunction}, func(in *lambda.CreateFunctionInput) {
		in.Runtime, in.Handler = types.RuntimePython313, aws.String("index.handler")
		in.SnapStart = &types.SnapStart{ApplyOn: types.SnapStartApplyOnPublishedVersions}
		in.Environment = &types.Environment{Variables: variables}
	})
	v, err := c.PublishVersion(t.Context(), &lambda.PublishVersionInput{FunctionName: &name})
	if err != nil {
		t.Fatal(err)
	}
	var got *lambda.GetFunctionConfigurationOutput
	waitFor(t, "the version", func() bool {
		got, err = c.GetFunctionConfiguration(t.Context(), &lambda.GetFunctionConfigurationInput{FunctionName: &name, Qualifier: v.Version})
		if err != nil {
			t.Fatal(err)
		}
		return got.State != types.StatePending
	})
	return c, got
}

func TestSnapStart(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	if err := harness.AddRuntimes(data, string(types.RuntimePython313)); err != nil {
		t.Fatal(err)
	}
	s, err := harness.Start(data, "--snapshots", "on")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, s.Log())
		}
	})

	t.Run("hooks run, and the restore is in the log", func(t *testing.T) {
		c, v := publishedWithSnapStart(t, s, "hooked", nil)
		if v.State != types.StateActive || v.SnapStart.OptimizationStatus != types.SnapStartOptimizationStatusOn {
			t.Fatalf("%s, %+v", v.State, v.SnapStart)
		}
		for warm := range 2 {
			res, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("hooked"), Qualifier: aws.String("1"), LogType: types.LogTypeTail})
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Calls                                  [][2]string
				Stream, InitType, Version, Credentials string
				Key                                    *string
			}
			if err := json.Unmarshal(res.Payload, &got); err != nil {
				t.Fatalf("%v: %s", err, res.Payload)
			}
			calls := got.Calls
			if len(calls) != 2 || calls[0][0] != "before" || calls[1] != [2]string{"after", got.Stream} || calls[0][1] == got.Stream {
				t.Errorf("hooks: %v in %s", calls, got.Stream)
			}
			if got.InitType != "snap-start" || got.Version != "1" || got.Credentials == "" || got.Key != nil {
				t.Errorf("%s", res.Payload)
			}
			tail, err := base64.StdEncoding.DecodeString(aws.ToString(res.LogResult))
			if err != nil {
				t.Fatal(err)
			}
			_, report, _ := strings.Cut(string(tail), "REPORT RequestId")
			if told := strings.Contains(report, "\tRestore Duration: ") && strings.Contains(report, "\tBilled Restore Duration: "); told != (warm == 0) || strings.Contains(report, "Init Duration") {
				t.Errorf("invocation %d: %s", warm, report)
			}
			f := snapshotFunction{t: t, s: s, c: c, name: "hooked"}
			if log := f.log(got.Stream); strings.Count(log, "RESTORE_START Runtime Version: ") != 1 || strings.Count(log, "RESTORE_REPORT Restore Duration: ") != 1 || strings.Contains(log, "INIT_START") {
				t.Errorf("%s", log)
			}
		}
	})

	t.Run("a version that fails to initialise is Failed", func(t *testing.T) {
		_, v := publishedWithSnapStart(t, s, "failing", map[string]string{"FAIL": "1"})
		if v.State != types.StateFailed || v.StateReasonCode != "FunctionError" {
			t.Errorf("%s, %s", v.State, v.StateReasonCode)
		}
		out, err := s.Run("functions", "show", "failing")
		if err != nil || !strings.Contains(string(out), "not today") {
			t.Errorf("%s %v", out, err)
		}
	})
}
