package lambda_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/service/lambda"
)

// slowSnapshots are there a moment after they are asked for, unless the
// function's description says that it fails.
type slowSnapshots struct{ there sync.Map }

func (s *slowSnapshots) Prepare(ctx context.Context, v *function.Version) error {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	if v.Env["FAIL"] != "" {
		return &function.InitFailure{Type: "Runtime.ExitError", Message: "exit status 1"}
	}
	s.there.Store(v.ARN()+v.Revision, true)
	return nil
}

func (s *slowSnapshots) Status(v *function.Version) function.SnapshotStatus {
	_, ready := s.there.Load(v.ARN() + v.Revision)
	return function.SnapshotStatus{Ready: ready}
}

func (s *slowSnapshots) Forget(*function.Version) {}

func TestSDKWaitersSeeSnapStart(t *testing.T) {
	c := connect(t, func(o *lambda.Options) { o.Snapshots = new(slowSnapshots) })
	ctx, name := t.Context(), awssdk.String("hello")
	out, err := c.CreateFunction(ctx, &sdk.CreateFunctionInput{
		FunctionName: name, Role: awssdk.String(role), Runtime: types.RuntimePython313, Handler: awssdk.String("index.handler"),
		Code: &types.FunctionCode{ZipFile: zipOf(t, "index.py", "")}, Publish: true,
		SnapStart: &types.SnapStart{ApplyOn: types.SnapStartApplyOnPublishedVersions},
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.Version == nil || *out.Version != "1" || out.State != types.StatePending || out.SnapStart.ApplyOn != types.SnapStartApplyOnPublishedVersions {
		t.Errorf("published with its creation: %s %s %+v", *out.Version, out.State, out.SnapStart)
	}
	get := &sdk.GetFunctionInput{FunctionName: name, Qualifier: out.Version}
	quick := func(o *sdk.FunctionActiveV2WaiterOptions) {
		o.MinDelay, o.MaxDelay = time.Millisecond, 50*time.Millisecond
	}
	if err := sdk.NewFunctionActiveV2Waiter(c, quick).Wait(ctx, get, time.Minute); err != nil {
		t.Fatal(err)
	}
	active, err := c.GetFunction(ctx, get)
	if err != nil || active.Configuration.SnapStart.OptimizationStatus != types.SnapStartOptimizationStatusOn || active.Configuration.LastUpdateStatus != types.LastUpdateStatusSuccessful {
		t.Errorf("active: %+v %v", active.Configuration.SnapStart, err)
	}
	wait(t, c, "hello")

	updated, err := c.UpdateFunctionConfiguration(ctx, &sdk.UpdateFunctionConfigurationInput{FunctionName: name, Environment: &types.Environment{Variables: map[string]string{"FAIL": "1"}}})
	if err != nil || updated.SnapStart.ApplyOn != types.SnapStartApplyOnPublishedVersions {
		t.Fatalf("%+v %v", updated, err)
	}
	wait(t, c, "hello")
	version, err := c.PublishVersion(ctx, &sdk.PublishVersionInput{FunctionName: name})
	if err != nil || version.State != types.StatePending || version.StateReasonCode != types.StateReasonCodeCreating {
		t.Fatalf("published: %+v %v", version, err)
	}
	err = sdk.NewPublishedVersionActiveWaiter(c, func(o *sdk.PublishedVersionActiveWaiterOptions) {
		o.MinDelay, o.MaxDelay = time.Millisecond, 50*time.Millisecond
	}).Wait(ctx, &sdk.GetFunctionConfigurationInput{FunctionName: name, Qualifier: version.Version}, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "Failure") {
		t.Errorf("a version that fails: %v", err)
	}
	conf, err := c.GetFunctionConfiguration(ctx, &sdk.GetFunctionConfigurationInput{FunctionName: name, Qualifier: version.Version})
	if err != nil || conf.State != types.StateFailed || conf.StateReasonCode != types.StateReasonCodeFunctionError || *conf.StateReason != "An error occurred during function initialization." {
		t.Errorf("failed: %+v %v", conf, err)
	}
}
