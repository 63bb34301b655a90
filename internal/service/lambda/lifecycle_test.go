package lambda

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/state"
)

func TestFunctionThatCannotBeDeployedFailsAndCanBeMended(t *testing.T) {
	var calls atomic.Int32
	f := newFixture(t, func(o *Options) {
		resolve := o.RuntimeVersion
		o.RuntimeVersion = func(region, id string) (string, error) {
			if id == "python3.13" && calls.Add(1) > 1 { // the second to ask is the worker
				return "", errors.New("python is gone")
			}
			return resolve(region, id)
		}
	})
	in := f.input("hello")
	in.Runtime, in.Publish = "python3.13", aws.Ptr(true)
	if _, err := f.CreateFunction(f.ctx(), in); err != nil {
		t.Fatal(err)
	}
	for _, qualifier := range []string{"", "1"} {
		f.settled("hello")
		if got := f.get("hello", qualifier); got.State != api.StateFailed || got.StateReasonCode != "InvalidRuntime" || *got.StateReason != "python is gone" || got.LastUpdateStatus != "" {
			t.Errorf("%q: %+v", qualifier, got)
		}
	}
	_, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello")})
	wantError(t, err, codeConflict, "The function is currently in the following state: Failed")
	_, err = f.PublishVersion(f.ctx(), &api.PublishVersionInput{FunctionName: aws.Ptr("hello")})
	wantError(t, err, codeConflict, "The operation cannot be performed at this time.")

	if _, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), Runtime: "nodejs22.x"}); err != nil {
		t.Fatal(err)
	}
	if got := f.settled("hello"); got.State != api.StateActive || got.LastUpdateStatus != api.LastUpdateStatusSuccessful {
		t.Errorf("mended: %+v", got)
	}
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello")}); err != nil {
		t.Error(err)
	}
}

func TestRestartResumesWhatWasUnderWay(t *testing.T) {
	var mu sync.Mutex
	broken := map[string]error{}
	f := newFixture(t, func(o *Options) {
		resolve := o.RuntimeVersion
		o.RuntimeVersion = func(region, id string) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			if err := broken[id]; err != nil {
				return "", err
			}
			return resolve(region, id)
		}
	})
	if _, err := f.CreateFunction(f.ctx(), f.input("hello")); err != nil {
		t.Fatal(err)
	}
	f.settled("hello")
	f.create("other")
	f.close()

	// As if the process had been killed right after it had answered.
	store, err := state.Open(t.Context(), state.Options{Dir: f.dir})
	if err != nil {
		t.Fatal(err)
	}
	functions, err := state.Collect[functionRecord](t.Context(), store, "lambda-functions")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*functionRecord){
		"hello": func(r *functionRecord) { r.status = pending(r.Modified) },
		"other": func(r *functionRecord) {
			old := r.Config
			r.Serving = &old
			r.Config.Runtime = "python3.13"
			r.startUpdate(r.Modified)
		},
	} {
		if _, err := functions.Modify(t.Context(), testRegion+"/"+name, func(r *functionRecord) error { change(r); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	broken["python3.13"] = errors.New("python is gone")
	mu.Unlock()
	f.open()
	if got := f.settled("hello"); got.State != api.StateActive {
		t.Errorf("hello is %s", got.State)
	}
	got := f.settled("other")
	if got.State != api.StateActive || got.LastUpdateStatus != api.LastUpdateStatusFailed || got.LastUpdateStatusReasonCode != "InvalidRuntime" || *got.LastUpdateStatusReason != "python is gone" {
		t.Errorf("other: %+v", got)
	}
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("other")}); err != nil || f.invoker.request().Version.Runtime != "nodejs22.x" {
		t.Errorf("after a failed update the function runs as before: %v %s", err, f.invoker.request().Version.Runtime)
	}
}

func TestLifecycleStepThatFailedIsTakenAgain(t *testing.T) {
	f := newFixture(t)
	f.create("hello")
	key := functionKey{testRegion, "hello"}
	// A record that memory does not know yet stands for any failing write.
	item, err := f.functions.Modify(t.Context(), key.String(), func(r *functionRecord) error {
		r.startUpdate(r.Modified)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	stale := *f.entries.get(key)
	stale.function.Value = item.Value
	f.entries.put(key, &stale)
	if err := f.settle(key); err == nil {
		t.Fatal("settled on a record that has changed")
	}
	if err := f.settle(key); err != nil {
		t.Fatal(err)
	}
	if got := f.get("hello", ""); got.LastUpdateStatus != api.LastUpdateStatusSuccessful {
		t.Errorf("%+v", got)
	}
}

func TestUpdateDuringAnUpdateIsRefused(t *testing.T) {
	var held atomic.Bool
	release := make(chan struct{})
	f := newFixture(t, func(o *Options) {
		resolve := o.RuntimeVersion
		o.RuntimeVersion = func(region, id string) (string, error) {
			if held.Load() {
				<-release // only the worker asks, while it brings the function up
			}
			return resolve(region, id)
		}
	})
	f.create("hello")
	held.Store(true)
	name := aws.Ptr("hello")
	if _, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: name, Timeout: aws.Ptr(int32(5))}); err != nil {
		t.Fatal(err)
	}
	busy := "The operation cannot be performed at this time. An update is in progress for resource: " + arnPrefix + "hello"
	_, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: name, Timeout: aws.Ptr(int32(6))})
	wantError(t, err, codeConflict, busy)
	_, err = f.UpdateFunctionCode(f.ctx(), &api.UpdateFunctionCodeInput{FunctionName: name, ZipFile: pkg(t, "a", "b")})
	wantError(t, err, codeConflict, busy)
	_, err = f.PublishVersion(f.ctx(), &api.PublishVersionInput{FunctionName: name})
	wantError(t, err, codeConflict, busy)
	if got := f.get("hello", ""); got.LastUpdateStatus != api.LastUpdateStatusInProgress || *got.Timeout != 5 {
		t.Errorf("under way: %+v", got)
	}
	for _, want := range []float64{3, 5} {
		if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: name}); err != nil {
			t.Fatal(err)
		}
		if got := f.invoker.request().Version.Timeout.Seconds(); got != want {
			t.Errorf("invoked with a timeout of %v s, want %v: the new configuration counts when the update has succeeded", got, want)
		}
		if held.CompareAndSwap(true, false) {
			close(release)
			f.settled("hello")
		}
	}
}

func TestFunctionDeletedDuringAnUpdateStaysDeleted(t *testing.T) {
	var held atomic.Bool
	release := make(chan struct{})
	f := newFixture(t, func(o *Options) {
		resolve := o.RuntimeVersion
		o.RuntimeVersion = func(region, id string) (string, error) {
			if held.Load() {
				<-release
			}
			return resolve(region, id)
		}
	})
	f.create("hello")
	held.Store(true)
	name := aws.Ptr("hello")
	if _, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: name, Timeout: aws.Ptr(int32(5))}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: name}); err != nil {
		t.Fatal(err)
	}
	held.Store(false)
	close(release)
	f.create("another") // the worker has come past hello when this is Active
	_, err := f.GetFunction(f.ctx(), &api.GetFunctionInput{FunctionName: name})
	wantError(t, err, codeNotFound, "Function not found")
}
