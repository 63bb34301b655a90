package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/snapshot"
)

const (
	// buildDelay is how long after an Init its snapshot is begun: the invocations
	// that come first have the host to themselves.
	buildDelay = 500 * time.Millisecond
	// calmWait is how long a snapshot waits, beyond that, for starts to be over.
	calmWait = 10 * time.Second
	// buildSpare is the memory of the host, in bytes, that must be there beside
	// that of a small function for a snapshot to be made.
	buildSpare = 512 << 20
	// stateRoom is the disk, in bytes, that a snapshot takes beside the memory and
	// the files of the function: for the guest's kernel and process 1.
	stateRoom = 64 << 20
	// buildTimeout bounds what follows Init when a snapshot is made.
	buildTimeout = 5 * time.Minute
	// retrySoon and retryLater are when a snapshot that was not made is tried
	// again at the earliest: where the host had no room, and where it failed.
	retrySoon, retryLater = 30 * time.Second, 10 * time.Minute
	// never is when it is tried again where it cannot be made: another revision of
	// the version has another track.
	never = 365 * 24 * time.Hour
	// maxFailures is how often in a row a snapshot may fail to be restored before
	// it is removed.
	maxFailures = 3
)

// unkept is why no snapshot of a version can be kept, whatever is tried.
type unkept struct{ reason string }

func (e *unkept) Error() string { return e.reason }

// snapshots decides which environments start from snapshots, and has them made:
// in the background, one at a time, after the first Init of a version that
// succeeded.
type snapshots struct {
	w      *Worker
	store  *snapshot.Store // nil: off
	first  bool            // Options.SnapshotsFirst
	ctx    context.Context // ends with the worker
	cancel context.CancelFunc
	jobs   sync.WaitGroup
	turn   chan struct{} // held by the one that is made

	mu     sync.Mutex
	closed bool
	tracks map[trackKey]*track
}

type trackKey struct{ arn, initType string }

// subject is what a snapshot is of: a version, or a runtime alone (blank.go).
type subject struct {
	key   trackKey
	id    string
	build func() error
}

// name names the subject in logs.
func (o subject) name() string { return o.key.arn }

// ofVersion is the subject from whose snapshot e starts.
func (s *snapshots) ofVersion(e *environment) subject {
	id := e.snapshotID(s.store)
	spec := invoke.Spec{Version: e.v, Provisioned: e.initType == initProvisioned}
	return subject{trackKey{e.v.ARN(), e.initType}, id, func() error { return s.build(spec, id) }}
}

// track is what is known of the snapshot of a subject. snapshots.mu guards it.
type track struct {
	id       string
	building chan struct{} // closed when that is over; nil: it is not being made
	err      error         // why it was not made the last time
	retry    time.Time     // when to try again
	failures int           // restores in a row that failed
	gone     bool          // the version was forgotten
}

func newSnapshots(w *Worker) *snapshots {
	s := &snapshots{w: w, store: w.opts.Snapshots, first: w.opts.SnapshotsFirst, turn: make(chan struct{}, 1), tracks: make(map[trackKey]*track)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// close gives up what is being made and waits for that.
func (s *snapshots) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.jobs.Wait()
}

// off tells who has switched snapshots of a version off, or nil.
func (s *snapshots) off(v *function.Version) error {
	switch {
	case s.store == nil:
		return &unkept{"the operator has switched snapshots off"}
	case v.SnapshotsOff:
		return &unkept{"the function's owner has switched snapshots off"}
	}
	return nil
}

// excluded tells why environments like e never start from a snapshot, or nil.
func (s *snapshots) excluded(e *environment) error {
	switch err := s.off(e.v); {
	case err != nil:
		return err
	case e.v.SnapStart:
		return nil
	case s.w.opts.BlanksFirst:
		return &unkept{"the operator has environments start from snapshots of runtimes alone"}
	case e.v.Image != nil:
		return &unkept{"it is a container image, whose runtime does not take part"}
	case !e.runtime.Clones:
		return &unkept{fmt.Sprintf("the runtime %s does not take part", e.v.Runtime)}
	}
	return nil
}

// snapshotInputs is all that a snapshot depends on, beside the host and Lapwing.
type snapshotInputs struct {
	Function, Revision, Role, Runtime string
	Env                               map[string]string
	Start                             proto.Start
	Sandbox                           sandbox.Spec
}

// id returns the name of the snapshot that the environment starts from.
func (e *environment) snapshotID(s *snapshot.Store) string {
	start := e.start(credentials.Session{})
	for _, name := range perClone {
		delete(start.Env, name)
	}
	return s.ID(snapshotInputs{
		Function: e.v.ARN(), Revision: e.v.Revision, Role: e.v.Role, Runtime: e.runtime.Version + " " + e.runtimeARN(), Env: e.v.Env, Start: start, Sandbox: e.spec(Network{}),
	})
}

func (e *environment) runtimeARN() string {
	if e.v.Image != nil {
		return ""
	}
	return e.runtime.VersionARN(e.v.Region)
}

// about tells humans what a snapshot is of.
func (e *environment) about() map[string]any {
	return map[string]any{
		"function": e.v.ARN(), "revision": e.v.Revision, "runtime": e.runtime.Version, "runtimeArn": e.runtimeARN(), "handler": e.v.Handler,
		"initializationType": e.initType, "memoryMB": e.v.MemoryMB, "ephemeralMB": e.v.EphemeralMB,
		"code": filepath.Base(e.v.Code), "layers": filepath.Base(e.v.Layers),
		"variables": slices.Sorted(maps.Keys(e.v.Env)), // their values may be secrets
	}
}

// track returns what is known of the snapshot of a subject. s.mu is held.
func (s *snapshots) track(of subject) *track {
	t := s.tracks[of.key]
	if t == nil || t.id != of.id {
		t = &track{id: of.id}
		if reason, refused := s.store.Refused(of.id); refused {
			t.err, t.retry = &unkept{reason}, time.Now().Add(never)
		}
		s.tracks[of.key] = t
	}
	return t
}

// use returns a snapshot for an environment, or nil.
func (s *snapshots) use(ctx context.Context, e *environment) *snapshot.Use {
	if s.excluded(e) != nil {
		return nil
	}
	return s.get(ctx, s.ofVersion(e), s.first, s.first || e.initType == initSnapStart)
}

// get returns the snapshot of a subject, or nil: after it was made, if make is set,
// and verified, if verify is.
func (s *snapshots) get(ctx context.Context, of subject, make, verify bool) *snapshot.Use {
	if make {
		s.await(ctx, s.schedule(of, 0))
	}
	if verify {
		_ = s.store.Await(ctx, of.id) // Get tells
	}
	u, err := s.store.Get(of.id)
	switch {
	case err == nil && u.Stale:
		s.schedule(of, buildDelay)
	case err != nil && !errors.Is(err, snapshot.ErrNone) && !errors.Is(err, snapshot.ErrNotReady):
		s.w.log.Warn("a snapshot is not used", "of", of.name(), "error", err)
	}
	return u
}

// await waits for a channel to be closed, if there is one.
func (s *snapshots) await(ctx context.Context, done <-chan struct{}) {
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// want has a snapshot made for a version of which an Init has succeeded.
func (s *snapshots) want(e *environment) {
	if s.excluded(e) == nil {
		s.schedule(s.ofVersion(e), buildDelay)
	}
}

// restored notes that an environment was made from a snapshot.
func (s *snapshots) restored(of subject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.track(of).failures = 0
}

// failed notes that one was not. A snapshot that fails again and again is given
// up.
func (s *snapshots) failed(of subject, e *environment, err error) {
	if errors.Is(err, sandbox.ErrNoCapacity) {
		return // of the host: nothing is wrong with the snapshot
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.track(of)
	if t.failures++; t.failures == 1 {
		s.w.log.Warn("an environment was not restored from its snapshot and starts afresh", "function", e.v.ARN(), "snapshot", of.name(), "environment", e.id, "error", err)
	}
	unsupported := errors.Is(err, errors.ErrUnsupported)
	if t.failures < maxFailures && !unsupported {
		return
	}
	t.failures = 0
	t.err, t.retry = fmt.Errorf("environments were not restored from it: %w", err), time.Now().Add(retryLater)
	s.store.Remove(t.id)
	s.w.standbys.hurry()
}

// schedule has the snapshot of a subject made, unless it is there or was tried in
// vain. It returns a channel that is closed when that is over, or nil.
func (s *snapshots) schedule(of subject, delay time.Duration) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.track(of)
	info, there := s.store.Info(t.id)
	fresh := there && time.Since(info.Created) < s.store.TTL()/4*3
	switch {
	case t.building != nil:
		return t.building
	case s.closed || fresh || t.err != nil && time.Now().Before(t.retry):
		return nil
	}
	t.building = make(chan struct{})
	s.jobs.Go(func() {
		err := s.takeTurn(delay)
		if err == nil {
			err = of.build()
			<-s.turn
		}
		s.finished(of, t, err)
	})
	return t.building
}

// finished notes what became of making a snapshot.
func (s *snapshots) finished(of subject, t *track, err error) {
	if inFunction(err) {
		s.store.Refuse(t.id, reason(err)) // before the lock: it writes a file
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(t.building)
	t.building, t.err = nil, err
	if t.gone {
		s.store.Remove(t.id)
	}
	var failed *function.InitFailure
	switch {
	case err == nil || s.closed:
	case hopeless(err):
		t.retry = time.Now().Add(never)
		s.w.log.Debug("no snapshot can be kept", "of", of.name(), "reason", err)
	case errors.Is(err, errBusy), errors.Is(err, sandbox.ErrNoCapacity):
		t.retry = time.Now().Add(retrySoon)
	case errors.As(err, &failed):
		t.retry = time.Now().Add(retryLater)
	default:
		t.retry = time.Now().Add(retryLater)
		s.w.log.Warn("a snapshot was not made", "of", of.name(), "error", err)
	}
}

// Prepare initialises a version with SnapStart and makes its snapshot. It returns
// nil when the version can be invoked: from its snapshot, or without, where none
// can be kept. An error that is not a *function.InitFailure is a fault of this
// host, which may pass.
func (w *Worker) Prepare(ctx context.Context, v *function.Version) error {
	s := w.snapshots
	if s.off(v) != nil {
		return nil // Status tells
	}
	e, err := w.newEnvironment(invoke.Spec{Version: v})
	if err != nil {
		return err
	}
	of := s.ofVersion(e)
	s.mu.Lock()
	if t := s.track(of); t.building == nil {
		t.err = nil // who asks has it tried
	}
	s.mu.Unlock()
	s.await(ctx, s.schedule(of, 0))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.track(of).err; !hopeless(err) && !errors.Is(err, snapshot.ErrNoRoom) {
		return err
	}
	return nil
}

// hopeless tells whether an error stands for all attempts to make a snapshot.
func hopeless(err error) bool { return inFunction(err) || errors.Is(err, errors.ErrUnsupported) }

// inFunction tells whether an error of making a snapshot lies in the function and
// its runtime, rather than in this host.
func inFunction(err error) bool {
	var unkept *unkept
	return errors.As(err, &unkept) || errors.Is(err, sandbox.ErrUnfit)
}

// Forget removes the snapshots of a version, which is gone or has changed.
func (w *Worker) Forget(v *function.Version) {
	s := w.snapshots
	if s.store == nil {
		return
	}
	for _, provisioned := range []bool{false, true} {
		e, err := w.newEnvironment(invoke.Spec{Version: v, Provisioned: provisioned})
		if err != nil {
			continue // its runtime is gone: nobody finds its snapshots, and they expire
		}
		id := e.snapshotID(s.store)
		s.mu.Lock()
		s.store.Remove(id)
		key := trackKey{v.ARN(), e.initType}
		if t := s.tracks[key]; t != nil && t.id == id {
			t.gone = true
			delete(s.tracks, key)
		}
		s.mu.Unlock()
	}
	s.w.standbys.hurry()
}

// Status tells whether environments of a version start from a snapshot, and if
// not, why.
func (w *Worker) Status(v *function.Version) function.SnapshotStatus {
	st := w.ownStatus(v)
	st.Runtime = !st.Ready && w.snapshots.blankFor(v)
	return st
}

// ownStatus tells of the snapshot of the version itself.
func (w *Worker) ownStatus(v *function.Version) function.SnapshotStatus {
	s := w.snapshots
	err := s.off(v)
	var e *environment
	if err == nil {
		e, err = w.newEnvironment(invoke.Spec{Version: v})
	}
	if err == nil {
		err = s.excluded(e)
	}
	if err != nil {
		return function.SnapshotStatus{Reason: err.Error()}
	}
	id := e.snapshotID(s.store)
	s.mu.Lock()
	defer s.mu.Unlock()
	if info, there := s.store.Info(id); there {
		return function.SnapshotStatus{Ready: true, Created: info.Created, Size: info.Size, Uses: info.Uses}
	}
	t := s.tracks[trackKey{v.ARN(), e.initType}]
	switch {
	case t == nil || t.id != id:
		reason, _ := s.store.Refused(id)
		return function.SnapshotStatus{Reason: reason}
	case t.building != nil:
		return function.SnapshotStatus{Reason: reasonBuilding}
	case t.err != nil:
		return function.SnapshotStatus{Reason: reason(t.err)}
	}
	return function.SnapshotStatus{Reason: "it was given up for lack of room, or for its age, and is made again when the function starts"}
}

// reasonBuilding is why there is no snapshot yet.
const reasonBuilding = "it is being made"

// reason tells users why a snapshot was not made.
func reason(err error) string {
	var failed *function.InitFailure
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return "the driver of sandboxes has no snapshots"
	case errors.As(err, &failed):
		return "the function failed to initialise: " + failed.Error()
	case errors.Is(err, sandbox.ErrNoCapacity):
		return errBusy.Error()
	case errors.Is(err, sandbox.ErrUnfit):
		_, why, _ := strings.Cut(err.Error(), sandbox.ErrUnfit.Error()+": ")
		return why
	}
	return err.Error()
}
