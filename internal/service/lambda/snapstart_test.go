package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/state"
)

// fakeSnapshots makes snapshots as prepare says.
type fakeSnapshots struct {
	mu      sync.Mutex
	prepare func(ctx context.Context, v *function.Version) error // nil: at once
	there   map[string]bool                                      // by version and revision
	calls   []string                                             // versions
	forgot  []string
}

func snapshotOf(v *function.Version) string { return v.Version + " " + v.Revision }

func (f *fakeSnapshots) Prepare(ctx context.Context, v *function.Version) error {
	f.mu.Lock()
	f.calls = append(f.calls, v.Version)
	prepare := f.prepare
	f.mu.Unlock()
	if prepare != nil {
		if err := prepare(ctx, v); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.there[snapshotOf(v)] = true
	return nil
}

func (f *fakeSnapshots) Status(v *function.Version) function.SnapshotStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.there[snapshotOf(v)] {
		return function.SnapshotStatus{Reason: "it draws random numbers"}
	}
	return function.SnapshotStatus{Ready: true, Created: time.Unix(1, 0), Size: 7, Uses: 3}
}

func (f *fakeSnapshots) Forget(v *function.Version) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot = append(f.forgot, v.Version)
	delete(f.there, snapshotOf(v))
}

func (f *fakeSnapshots) set(prepare func(context.Context, *function.Version) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prepare = prepare
}

func (f *fakeSnapshots) seen(list *[]string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(*list)
}

func newSnapshotFixture(t testing.TB) (*fixture, *fakeSnapshots) {
	snapshots := &fakeSnapshots{there: map[string]bool{}}
	return newFixture(t, func(o *Options) { o.Snapshots = snapshots }), snapshots
}

// withSnapStart is a function of a runtime that has it.
func withSnapStart(in *api.CreateFunctionInput) {
	in.Runtime = "python3.13"
	in.SnapStart = &api.SnapStart{ApplyOn: api.SnapStartApplyOnPublishedVersions}
}

// settledVersion waits until a version is not Pending any more.
func (f *fixture) settledVersion(name, version string) *api.FunctionConfiguration {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		c := f.get(name, version)
		if c.State != api.StatePending {
			return c
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s:%s is still %s", name, version, c.State)
		}
	}
}

// shown is the life cycle and SnapStart of a version as clients see them.
func shown(c *api.FunctionConfiguration) string {
	s := fmt.Sprint(c.State, " ", c.StateReasonCode, " ", aws.Value(c.StateReason), " | ", c.LastUpdateStatus, " ", c.LastUpdateStatusReasonCode, " | ")
	if c.SnapStart != nil {
		s += fmt.Sprint(c.SnapStart.ApplyOn, " ", c.SnapStart.OptimizationStatus)
	}
	return s
}

const (
	activeOn  = "Active   | Successful  | PublishedVersions On"
	activeOff = "Active   | Successful  | PublishedVersions Off"
	notYet    = "Pending Creating The function is being created. | InProgress Creating | PublishedVersions Off"
	failed    = "Failed FunctionError An error occurred during function initialization. | Failed FunctionError | PublishedVersions Off"
)

func wantShown(t testing.TB, c *api.FunctionConfiguration, want string) {
	t.Helper()
	if got := shown(c); got != want {
		t.Errorf("version %s is\n%s, want\n%s", *c.Version, got, want)
	}
}

func TestVersionWithSnapStartIsPendingUntilItsSnapshotIsThere(t *testing.T) {
	f, snapshots := newSnapshotFixture(t)
	f.create("hello", withSnapStart)
	wantShown(t, f.get("hello", ""), activeOff)
	release := make(chan struct{})
	snapshots.set(func(context.Context, *function.Version) error { <-release; return nil })

	out, err := f.PublishVersion(f.ctx(), &api.PublishVersionInput{FunctionName: aws.Ptr("hello")})
	if err != nil {
		t.Fatal(err)
	}
	wantShown(t, out, notYet)
	wantShown(t, f.get("hello", "1"), notYet)
	_, err = f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("1")})
	wantError(t, err, codeConflict, "The operation cannot be performed at this time. The function is currently in the following state: Pending")

	// $LATEST has a life of its own meanwhile, and an alias may point to the version.
	f.alias("hello", "live", "1")
	f.change("hello", "second")
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello")}); err != nil || f.invoker.request().Version.SnapStart {
		t.Errorf("$LATEST: %v, with SnapStart %v", err, f.invoker.request().Version.SnapStart)
	}
	wantShown(t, f.get("hello", "1"), notYet)
	if again := f.publish("hello"); again != "2" {
		t.Errorf("published %s beside the one that is pending", again)
	}

	close(release)
	for _, version := range []string{"1", "2"} {
		wantShown(t, f.settledVersion("hello", version), activeOn)
	}
	wantShown(t, f.get("hello", "live"), activeOn)
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("live")}); err != nil || !f.invoker.request().Version.SnapStart {
		t.Errorf("version 1: %v, %+v", err, f.invoker.request().Version)
	}
	list, err := f.ListVersionsByFunction(f.ctx(), &api.ListVersionsByFunctionInput{FunctionName: aws.Ptr("hello")})
	if err != nil || list.Versions[0].SnapStart.OptimizationStatus != "Off" || list.Versions[1].SnapStart.OptimizationStatus != "On" {
		t.Errorf("listed: %v %v", list.Versions, err)
	}
	if got := f.publish("hello"); got != "2" {
		t.Errorf("unchanged, and published again as %s", got)
	}

	// What was published keeps what it has; the next version does without.
	if _, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"),
		SnapStart: &api.SnapStart{ApplyOn: api.SnapStartApplyOnNone}}); err != nil {
		t.Fatal(err)
	}
	f.settled("hello")
	f.publish("hello")
	wantShown(t, f.get("hello", "3"), "Active   | Successful  | None Off")
	wantShown(t, f.get("hello", "2"), activeOn)
}

func TestPublishWithCreationAndUpdateMakesASnapshot(t *testing.T) {
	f, _ := newSnapshotFixture(t)
	in := f.input("hello")
	withSnapStart(in)
	in.Publish = aws.Ptr(true)
	out, err := f.CreateFunction(f.ctx(), in)
	if err != nil {
		t.Fatal(err)
	}
	wantShown(t, out, notYet)
	wantShown(t, f.settledVersion("hello", "1"), activeOn)
	f.settled("hello")
	out, err = f.UpdateFunctionCode(f.ctx(), &api.UpdateFunctionCodeInput{FunctionName: aws.Ptr("hello"), ZipFile: pkg(t, "a", "b"), Publish: aws.Ptr(true)})
	if err != nil {
		t.Fatal(err)
	}
	wantShown(t, out, notYet)
	wantShown(t, f.settledVersion("hello", "2"), activeOn)
	wantShown(t, f.settled("hello"), activeOff)
}

func TestVersionThatCannotBeInitialisedFails(t *testing.T) {
	f, snapshots := newSnapshotFixture(t)
	f.create("hello", withSnapStart)
	snapshots.set(func(context.Context, *function.Version) error {
		return fmt.Errorf("worker: %w", &function.InitFailure{Type: "Runtime.ExitError", Message: "exit status 1"})
	})
	f.publish("hello")
	wantShown(t, f.settledVersion("hello", "1"), failed)
	wantShown(t, f.get("hello", ""), activeOff)
	_, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("1")})
	wantError(t, err, codeConflict, "The function is currently in the following state: Failed")
	_, err = f.CreateAlias(f.ctx(), &api.CreateAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("1")})
	wantError(t, err, codeConflict, "The function is currently in the following state: 'Failed', StateReasonCode: 'FunctionError'")
	f.alias("hello", "live", "$LATEST")
	_, err = f.UpdateAlias(f.ctx(), &api.UpdateAliasInput{FunctionName: aws.Ptr("hello"), Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("1")})
	wantError(t, err, codeConflict, "'Failed'")
	if d := f.details("hello", "1"); d.Failure != "Runtime.ExitError: exit status 1" {
		t.Errorf("%+v", d)
	}

	// It can be deleted and published again.
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("1")}); err != nil {
		t.Fatal(err)
	}
	snapshots.set(func(context.Context, *function.Version) error {
		return &function.InitFailure{Type: function.TypeTimeout}
	})
	if got := f.publish("hello"); got != "2" {
		t.Errorf("published as %s", got)
	}
	if got := f.settledVersion("hello", "2"); got.StateReasonCode != "FunctionError.InitTimeout" || got.LastUpdateStatusReasonCode != "FunctionError.InitTimeout" {
		t.Errorf("init that takes too long: %s", shown(got))
	}
	snapshots.set(nil)
	f.change("hello", "mended")
	f.publish("hello")
	wantShown(t, f.settledVersion("hello", "3"), activeOn)
}

func TestVersionThatCannotBeKeptInASnapshotIsActiveWithout(t *testing.T) {
	f, snapshots := newSnapshotFixture(t)
	f.create("hello", withSnapStart)
	f.publish("hello")
	f.settledVersion("hello", "1")
	snapshots.mu.Lock()
	clear(snapshots.there) // as if Prepare had made none, or it was given up since
	snapshots.mu.Unlock()
	wantShown(t, f.get("hello", "1"), activeOff)
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("1")}); err != nil {
		t.Error(err)
	}
	if d := f.details("hello", "1"); d.Snapshot.Ready || d.Snapshot.Reason != "it draws random numbers" || d.Failure != "" {
		t.Errorf("%+v", d)
	}
}

func TestFaultOfTheHostHoldsUpAPublication(t *testing.T) {
	f, snapshots := newSnapshotFixture(t)
	f.create("hello", withSnapStart)
	tried := make(chan struct{}, 10)
	snapshots.set(func(context.Context, *function.Version) error {
		tried <- struct{}{}
		return errors.New("no memory left")
	})
	f.publish("hello")
	<-tried
	f.create("other") // the life cycle of others goes on
	wantShown(t, f.get("hello", "1"), notYet)
	snapshots.set(nil)
	f.reopen() // which tries at once
	wantShown(t, f.settledVersion("hello", "1"), activeOn)
}

func TestRestartResumesPublications(t *testing.T) {
	f, snapshots := newSnapshotFixture(t)
	f.create("hello", withSnapStart)
	snapshots.set(func(ctx context.Context, _ *function.Version) error { <-ctx.Done(); return ctx.Err() })
	f.publish("hello")
	f.close() // which does not wait for it
	snapshots.set(nil)
	f.open()
	wantShown(t, f.settledVersion("hello", "1"), activeOn)

	// Without snapshots the version runs as any other, and no new one is made.
	f.close()
	f.opts.Snapshots = nil
	f.open()
	wantShown(t, f.get("hello", "1"), activeOff)
	_, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"),
		SnapStart: &api.SnapStart{ApplyOn: api.SnapStartApplyOnPublishedVersions}})
	wantError(t, err, codeInvalid, "SnapStart ApplyOn PublishedVersions is not supported")
	f.change("hello", "else")
	f.publish("hello")
	wantShown(t, f.settledVersion("hello", "2"), activeOff)
}

func TestSnapshotsOfWhatIsGoneAreForgotten(t *testing.T) {
	f, snapshots := newSnapshotFixture(t)
	f.create("hello", withSnapStart)
	name := aws.Ptr("hello")
	f.publish("hello")
	f.settledVersion("hello", "1")
	if got := snapshots.seen(&snapshots.forgot); len(got) > 0 {
		t.Fatalf("forgot %v, though everything is there", got)
	}
	if _, err := f.TagResource(f.ctx(), &api.TagResourceInput{Resource: aws.Ptr(arnPrefix + "hello"), Tags: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	f.change("hello", "second")
	if got := snapshots.seen(&snapshots.forgot); !slices.Equal(got, []string{"$LATEST"}) {
		t.Errorf("after an update: forgot %v", got)
	}

	// A version that is deleted while its snapshot is made.
	making, ended := make(chan struct{}), make(chan struct{})
	snapshots.set(func(ctx context.Context, _ *function.Version) error {
		close(making)
		<-ctx.Done()
		defer close(ended)
		return nil // too late to stop: it is there
	})
	f.publish("hello")
	<-making
	for _, version := range []string{"1", "2"} {
		if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: name, Qualifier: &version}); err != nil {
			t.Fatal(err)
		}
	}
	<-ended
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		snapshots.mu.Lock()
		left := len(snapshots.there)
		snapshots.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d snapshots of versions that are gone", left)
		}
	}
	snapshots.set(nil)
	f.change("hello", "third")
	f.publish("hello")
	f.settledVersion("hello", "3")
	if _, err := f.DeleteFunction(f.ctx(), &api.DeleteFunctionInput{FunctionName: name}); err != nil {
		t.Fatal(err)
	}
	if got := snapshots.seen(&snapshots.forgot); !slices.Contains(got, "3") {
		t.Errorf("after the deletion of the function: forgot %v", got)
	}
}

func TestSnapStartIsRefusedWhereAWSHasItNot(t *testing.T) {
	f, _ := newSnapshotFixture(t)
	for _, c := range []struct {
		name    string
		change  func(*api.CreateFunctionInput)
		message string
	}{
		{"Node.js", func(in *api.CreateFunctionInput) { in.Runtime = "nodejs22.x" }, "nodejs22.x is not supported for SnapStart enabled functions."},
		{"OS only", func(in *api.CreateFunctionInput) { in.Runtime = "provided.al2023" }, "provided.al2023 is not supported for SnapStart enabled functions."},
		{"old Python", func(in *api.CreateFunctionInput) { in.Runtime = "python3.11" }, "python3.11 is not supported for SnapStart enabled functions."},
		{"large /tmp", func(in *api.CreateFunctionInput) {
			in.EphemeralStorage = &api.EphemeralStorage{Size: aws.Ptr(int32(513))}
		}, "Ephemeral storage greater than 512 MB is not supported for SnapStart enabled functions."},
		{"tenants", func(in *api.CreateFunctionInput) {
			in.TenancyConfig = &api.TenancyConfig{TenantIsolationMode: api.TenantIsolationModePerTenant}
		}, "Tenant isolation is not supported for SnapStart enabled functions."},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := f.input("refused")
			withSnapStart(in)
			c.change(in)
			_, err := f.CreateFunction(f.ctx(), in)
			wantError(t, err, codeInvalid, c.message)
		})
	}
	for id, want := range map[api.Runtime]bool{
		"java8.al2": false, "java11": true, "java17": true, "java25": true, "python3.12": true, "python3.14": true, "python3.9": false,
		"dotnet6": false, "dotnet8": true, "dotnet10": true, "ruby3.4": false, "nodejs24.x": false, "java": false, "dotnetcore3.1": false,
	} {
		if got := hasSnapStart(id); got != want {
			t.Errorf("%s: %v", id, got)
		}
	}

	f.create("hello", withSnapStart)
	_, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("hello"), Runtime: "nodejs22.x"})
	wantError(t, err, codeInvalid, "nodejs22.x is not supported for SnapStart enabled functions.")
	f.publish("hello")
	f.settledVersion("hello", "1")
	const refused = "Provisioned Concurrency is not supported for SnapStart enabled functions."
	wantError(t, f.provision("hello", "1", 1), codeInvalid, refused)
	f.alias("hello", "live", "1")
	wantError(t, f.provision("hello", "live", 1), codeInvalid, refused)
	f.create("plain")
	f.publish("plain")
	f.alias("plain", "live", "1")
	if err := f.provision("plain", "live", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := f.UpdateFunctionConfiguration(f.ctx(), &api.UpdateFunctionConfigurationInput{FunctionName: aws.Ptr("plain"), Runtime: "python3.13",
		SnapStart: &api.SnapStart{ApplyOn: api.SnapStartApplyOnPublishedVersions}}); err != nil {
		t.Fatal(err)
	}
	f.settled("plain")
	f.publish("plain")
	_, err = f.UpdateAlias(f.ctx(), &api.UpdateAliasInput{FunctionName: aws.Ptr("plain"), Name: aws.Ptr("live"), FunctionVersion: aws.Ptr("2")})
	wantError(t, err, codeInvalid, refused)
}

// details asks for what AWS has no field for.
func (f *fixture) details(name, qualifier string) (d Details) {
	f.t.Helper()
	request := *aws.RequestFrom(f.ctx())
	request.Header, request.Response = http.Header{DetailsHeader: {"1"}}, http.Header{}
	if _, err := f.GetFunctionConfiguration(aws.WithRequest(f.t.Context(), &request), &api.GetFunctionConfigurationInput{FunctionName: &name, Qualifier: optional(qualifier)}); err != nil {
		f.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(request.Response.Get(DetailsHeader)), &d); err != nil {
		f.t.Fatal(err)
	}
	return d
}

func TestDetailsAreForThoseWhoAsk(t *testing.T) {
	f, _ := newSnapshotFixture(t)
	f.create("hello", withSnapStart)
	f.publish("hello")
	f.settledVersion("hello", "1")
	if d := f.details("hello", "1").Snapshot; !d.Ready || d.Size != 7 || d.Uses != 3 || !d.Created.Equal(time.Unix(1, 0)) || d.Reason != "" {
		t.Errorf("version 1: %+v", d)
	}
	if d := f.details("hello", "").Snapshot; d.Ready || d.Reason == "" || d.Created != nil {
		t.Errorf("$LATEST: %+v", d)
	}
	request := *aws.RequestFrom(f.ctx())
	request.Header, request.Response = http.Header{}, http.Header{}
	if _, err := f.GetFunctionConfiguration(aws.WithRequest(t.Context(), &request), &api.GetFunctionConfigurationInput{FunctionName: aws.Ptr("hello")}); err != nil || len(request.Response) > 0 {
		t.Errorf("not asked for: %v %v", request.Response, err)
	}
}

func TestTagSwitchesSnapshotsOff(t *testing.T) {
	f, snapshots := newSnapshotFixture(t)
	f.create("hello", withSnapStart, func(in *api.CreateFunctionInput) { in.Tags = map[string]string{snapshotsTag: "off"} })
	f.publish("hello")
	wantShown(t, f.settledVersion("hello", "1"), activeOff)
	if calls := snapshots.seen(&snapshots.calls); len(calls) > 0 {
		t.Errorf("made snapshots of %v", calls)
	}
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello")}); err != nil || !f.invoker.request().Version.SnapshotsOff {
		t.Errorf("%v %+v", err, f.invoker.request().Version)
	}
	if d := f.details("hello", "1").Snapshot; d.Reason != "the function's tag lapwing:snapshots is off" {
		t.Errorf("%+v", d)
	}
	tag := func(value string) error {
		_, err := f.TagResource(f.ctx(), &api.TagResourceInput{Resource: aws.Ptr(arnPrefix + "hello"), Tags: map[string]string{snapshotsTag: value}})
		return err
	}
	wantError(t, tag("of"), codeInvalid, "The tag lapwing:snapshots must be on or off")
	if err := tag("on"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello")}); err != nil || f.invoker.request().Version.SnapshotsOff {
		t.Errorf("%v %+v", err, f.invoker.request().Version)
	}
}

func TestVersionWhoseImageIsBeingRestoredIsNotReady(t *testing.T) {
	f, snapshots := newSnapshotFixture(t)
	f.create("hello", withSnapStart)
	f.publish("hello")
	f.settledVersion("hello", "1")
	f.close()
	store, err := state.Open(t.Context(), state.Options{Dir: f.dir})
	if err != nil {
		t.Fatal(err)
	}
	versions, err := state.Collect[versionRecord](t.Context(), store, "lambda-versions")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := versions.Modify(t.Context(), versionKey(functionKey{testRegion, "hello"}, 1), func(v *versionRecord) error { v.restore(); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	snapshots.set(func(context.Context, *function.Version) error { <-release; return nil })
	f.open()
	_, err = f.Invoke(f.ctx(), &api.InvokeInput{FunctionName: aws.Ptr("hello"), Qualifier: aws.Ptr("1")})
	wantError(t, err, "SnapStartNotReadyException", "Lambda is initializing your function. It will be ready to invoke once your function state becomes ACTIVE.")
	close(release)
	wantShown(t, f.settledVersion("hello", "1"), activeOn)
}
