package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/snapshot"
)

// restoreLimit is Lambda's limit of restoring a snapshot and of the hooks that
// follow (Lambda developer guide, "Lambda SnapStart runtime hooks"). Where nobody
// has opted in, it is how long a start from a snapshot is waited for before
// another way is taken.
const restoreLimit = 10 * time.Second

// errRestoreTimeout reports that restoreLimit is over.
var errRestoreTimeout = errors.New("worker: restoring a snapshot timed out")

// restoredIn is the time of a restore that the function knows of.
type restoredIn struct {
	took   time.Duration
	billed time.Duration // whole milliseconds
}

// initFromSnapshot makes the environment from a snapshot, if there is one. Where
// that fails it is as if it had not been tried, unless the function itself is at
// fault: that only SnapStart tells.
func (e *environment) initFromSnapshot(ctx context.Context) (done bool, err error) {
	u := e.w.snapshots.use(ctx, e)
	if u == nil {
		return false, nil
	}
	rctx, cancel := context.WithTimeoutCause(ctx, restoreLimit, errRestoreTimeout)
	defer cancel()
	e.tape.record()
	t, fail, err := e.restore(rctx, u)
	if fail == nil && err == nil {
		e.w.snapshots.restored(e.w.snapshots.ofVersion(e))
		e.w.standbys.want(e)
		e.tellRestored(t, u)
		e.park()
		return true, nil
	}
	e.discard()
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case e.initType == initSnapStart && fail != nil:
		return false, e.refuse(t, fail)
	default:
		if fail != nil {
			err = errors.New(fail.message)
		}
		e.w.snapshots.failed(e.w.snapshots.ofVersion(e), e, err)
		err = nil
	}
	e.tape.erase()
	return false, err
}

// restoring tells when the parts of a restore were over.
type restoring struct{ began, loaded, ended time.Time }

// restore makes the sandbox from a snapshot and lets its runtime go on. A failure
// is the runtime's.
func (e *environment) restore(ctx context.Context, u *snapshot.Use) (t restoring, _ *failure, err error) {
	t.began = time.Now()
	in := e.w.standbys.take(e, u)
	if in == nil {
		in, err = e.w.make(ctx, e, func(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
			t.began = time.Now()
			return e.w.opts.Driver.Restore(ctx, spec, sandbox.Snapshot{State: u.State, Memory: u.Memory})
		}, host.Resume)
		if err != nil {
			u.Release()
			return t, nil, err
		}
		in.kept = u
	}
	e.in = in
	t.loaded = time.Now()
	defer e.steps.Begin("restore")() // of the runtime, once its memory is there
	creds, err := e.credentials(credentialsTTL)
	if err != nil {
		return t, nil, err
	}
	start := e.start(creds)
	own := proto.Restore{Env: make(map[string]string), Credentials: start.Credentials}
	for _, name := range perClone {
		if value, there := start.Env[name]; there {
			own.Env[name] = value
		}
	}
	res, err := in.conn.Restore(ctx, own)
	t.ended = time.Now()
	if errors.Is(context.Cause(ctx), errRestoreTimeout) && err != nil {
		return t, timeoutFailure(restoreLimit), nil
	}
	if err != nil {
		return t, nil, err
	}
	fail, err := e.started(ctx, res, nil)
	return t, fail, err
}

// tellRestored tells of a restore as of an Init, with what the function has
// printed in it, or with SnapStart as what it is.
func (e *environment) tellRestored(t restoring, u *snapshot.Use) {
	if e.initType == initSnapStart {
		e.tellRestore(t, nil)
		return
	}
	var earlier []told
	if err := json.Unmarshal(u.Notes, &earlier); err != nil {
		e.w.log.Error("the notes of a snapshot are not read", "function", e.v.ARN(), "error", err)
	}
	e.log.initStart(e.stream.began, phaseInit)
	e.tape.play(earlier, e.tell)
	took := t.ended.Sub(t.began)
	e.log.initReport(t.ended, phaseInit, took, nil)
	e.initDuration, e.initEnded = took, t.ended
}

// tellRestore tells of a restore with SnapStart.
func (e *environment) tellRestore(t restoring, f *failure) {
	e.log.restoreStart(t.began)
	e.tape.play(nil, e.tell)
	took := t.ended.Sub(t.began)
	e.log.restoreReport(t.ended, took, f)
	// Billed is "the time that it takes the runtime to load, and to run hooks".
	billed := t.ended.Sub(t.loaded)
	e.restored = restoredIn{took, (billed + time.Millisecond - 1).Truncate(time.Millisecond)}
}

// refuse tells of a restore with SnapStart that the function has failed, and
// returns what its caller gets (Lambda API reference, Invoke).
func (e *environment) refuse(t restoring, f *failure) error {
	e.tellRestore(t, f)
	if f.status == statusTimeout {
		return lambda.NewSnapStartTimeoutException("Lambda couldn't restore the snapshot within the timeout limit.")
	}
	return lambda.NewSnapStartException("The afterRestore() runtime hook encountered an error. For more information, check the Amazon CloudWatch logs.").
		WithCause(fmt.Errorf("%s: %s", f.errorType, f.message))
}

// tell passes on what a guest has told, as if it were now.
func (e *environment) tell(x told) {
	now := time.Now()
	switch {
	case x.Log != nil:
		l := *x.Log
		l.TimeUs = now.UnixMicro()
		e.stream.function(l, x.Message)
	case x.Extension != nil:
		e.log.extension(now, *x.Extension)
	case x.Subscription != nil:
		e.log.subscription(now, *x.Subscription)
	}
}
