package lambda

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"sync"
	"time"

	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
)

// A published version of a function with SnapStart is Pending until it has been
// initialised once and the snapshot of that is there (Lambda developer guide,
// "Activating and managing Lambda SnapStart"). That takes as long as the
// function's own code wants, so it is apart from the life cycle of $LATEST: each
// version has a goroutine of its own, and what it has to do stands in the
// version's record, so that a restart resumes it.

// Snapshots makes snapshots of versions ahead of their invocations. Package
// worker implements it.
type Snapshots interface {
	// Prepare initialises a version with SnapStart and makes its snapshot. It
	// returns nil when the version can be invoked: from its snapshot, or, where
	// what runs in it cannot be kept in one, without (Status has the reason).
	// A *function.InitFailure is final; any other error is a fault of this host,
	// and Prepare is called again later. A second call for a version whose
	// snapshot is there has nothing to do.
	Prepare(ctx context.Context, v *function.Version) error
	// Status tells about the snapshot of a version, with SnapStart or without.
	Status(v *function.Version) function.SnapshotStatus
	// Forget tells that a version, or what it was before it changed, is gone.
	Forget(v *function.Version)
}

// snapshotsTag is a tag of functions that are never to be started from
// snapshots: its value is on or off. AWS clients have no field for that, and
// take any tag.
const snapshotsTag = "lapwing:snapshots"

const (
	codeFunctionError = "FunctionError"
	codeInitTimeout   = "FunctionError.InitTimeout"
	// initReason is AWS's reason of a version that could not be initialised.
	initReason = "An error occurred during function initialization."

	// maxSnapStartEphemeralMB is the most that /tmp may have with SnapStart.
	maxSnapStartEphemeralMB = 512

	maxSnapshotDelay = time.Minute // between attempts that fail on faults of this host
)

// snapStart tells whether published versions of the configuration have SnapStart.
func (c *configuration) snapStart() bool {
	return c.SnapStart == api.SnapStartApplyOnPublishedVersions
}

var snapStartRuntime = regexp.MustCompile(`^(java|python3\.|dotnet)(\d+)$`)

// snapStartFrom is the first release of each managed runtime that has SnapStart.
var snapStartFrom = map[string]int{"java": 11, "python3.": 12, "dotnet": 8}

// hasSnapStart tells whether a managed runtime has SnapStart: "Java 11 and
// later, Python 3.12 and later, .NET 8 and later" (Lambda developer guide,
// "Improving startup performance with Lambda SnapStart").
func hasSnapStart(id api.Runtime) bool {
	m := snapStartRuntime.FindStringSubmatch(string(id))
	if m == nil {
		return false
	}
	n, err := strconv.Atoi(m[2])
	return err == nil && n >= snapStartFrom[m[1]]
}

// checkSnapStart refuses SnapStart for what AWS has it not for. Container images
// have it (since July 2026): whether what runs in one can be told that it was
// restored shows when a version is published.
func (s *Service) checkSnapStart(asked *api.SnapStart, c *configuration) error {
	if !c.snapStart() {
		return nil
	}
	switch {
	case asked != nil && s.opts.Snapshots == nil:
		return invalidParameter("SnapStart ApplyOn PublishedVersions is not supported by Lapwing where it makes no snapshots.")
	case !c.isImage() && !hasSnapStart(c.Runtime):
		return snapStartRefuses(string(c.Runtime))
	case c.EphemeralMB > maxSnapStartEphemeralMB:
		return snapStartRefuses("Ephemeral storage greater than 512 MB")
	case c.Tenancy != "":
		return snapStartRefuses("Tenant isolation")
	}
	return nil
}

// snapStartRefuses is AWS's answer to what SnapStart does not go with.
func snapStartRefuses(what string) error {
	return invalidParameter("%s is not supported for SnapStart enabled functions.", what)
}

// describeSnapStart is SnapStart as the API shows it: "On" means that there is a
// snapshot.
func (s *Service) describeSnapStart(key functionKey, v resolvedVersion) *api.SnapStartResponse {
	out := &api.SnapStartResponse{ApplyOn: api.SnapStartApplyOnNone, OptimizationStatus: api.SnapStartOptimizationStatusOff}
	if !v.config.snapStart() {
		return out
	}
	out.ApplyOn = v.config.SnapStart
	if v.number != function.Latest && v.status.State == api.StateActive && s.snapshotStatus(key, v.number).Ready {
		out.OptimizationStatus = api.SnapStartOptimizationStatusOn
	}
	return out
}

// snapshotStatus tells about the snapshot of a version, or $LATEST.
func (s *Service) snapshotStatus(key functionKey, version string) function.SnapshotStatus {
	if s.opts.Snapshots == nil {
		return function.SnapshotStatus{Reason: "snapshots are switched off on this host"}
	}
	e := s.entries.get(key)
	if e == nil || e.routes[version] == nil {
		return function.SnapshotStatus{}
	}
	v := e.routes[version].target.version
	if v.SnapshotsOff {
		return function.SnapshotStatus{Reason: "the function's tag " + snapshotsTag + " is off"}
	}
	return s.opts.Snapshots.Status(v)
}

// publishing is the status of a version with SnapStart whose snapshot is not
// there yet. As on AWS it has the two signs that clients wait for: the state, and
// the update, for which Terraform waits.
func publishing(now time.Time) status {
	st := pending(now)
	st.startUpdate(now)
	return st
}

// preparations are the snapshots that are being made.
type preparations struct {
	mu      sync.Mutex
	running map[string]context.CancelFunc // by preparationID
	slots   chan struct{}                 // bounds how many are made at once
}

func newPreparations(n int) *preparations {
	return &preparations{running: map[string]context.CancelFunc{}, slots: make(chan struct{}, n)}
}

// preparationID names a version as it was deployed once.
func preparationID(v *function.Version) string { return v.ARN() + " " + v.Revision }

// start returns the context of a new preparation, false where one is running.
func (p *preparations) start(ctx context.Context, v *function.Version) (context.Context, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := preparationID(v)
	if p.running[id] != nil {
		return nil, false
	}
	ctx, p.running[id] = context.WithCancel(ctx)
	return ctx, true
}

// end ends the preparation of a version, if one is running.
func (p *preparations) end(v *function.Version) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cancel := p.running[preparationID(v)]; cancel != nil {
		cancel()
	}
}

// done is for the preparation itself.
func (p *preparations) done(v *function.Version) {
	p.end(v)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, preparationID(v))
}

// publish brings a version with SnapStart from Pending to Active or Failed, in
// the background.
func (s *Service) publish(e *entry, record *versionRecord) {
	v, c := e.routes[number(record.Number)].target.version, &record.Config
	ctx, ok := s.preparations.start(s.ctx, v)
	if !ok {
		return
	}
	s.wg.Go(func() {
		defer s.preparations.done(v)
		for delay := retryDelay; ctx.Err() == nil; delay = min(2*delay, maxSnapshotDelay) {
			o, err := s.initialise(ctx, c, v)
			if err == nil {
				err = s.concludeVersion(ctx, e.key, v, o)
			}
			if err == nil || ctx.Err() != nil {
				return
			}
			s.log.Error("publication of version is held up", "version", v.ARN(), "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(delay):
			}
		}
	})
}

// initialise makes ready what environments of a version need, and its snapshot.
func (s *Service) initialise(ctx context.Context, c *configuration, v *function.Version) (outcome, error) {
	if o := s.deploy(v.Region, c); o.code != "" || s.opts.Snapshots == nil || v.SnapshotsOff {
		return o, nil
	}
	select {
	case s.preparations.slots <- struct{}{}:
		defer func() { <-s.preparations.slots }()
	case <-ctx.Done():
		return outcome{}, ctx.Err()
	}
	err := s.opts.Snapshots.Prepare(ctx, v)
	failure, ok := errors.AsType[*function.InitFailure](err)
	if !ok {
		return outcome{}, err
	}
	o := outcome{code: codeFunctionError, reason: initReason, detail: failure.Error()}
	if failure.Type == function.TypeTimeout {
		o.code = codeInitTimeout
	}
	return o, nil
}

// concludeVersion writes down how the publication of a version ended. The
// version may have been deleted or have changed meanwhile: then its snapshot is
// nobody's.
func (s *Service) concludeVersion(ctx context.Context, key functionKey, v *function.Version, o outcome) error {
	defer s.lock(key)()
	if ctx.Err() != nil { // by the end of the service, or of the version
		if s.ctx.Err() == nil && s.opts.Snapshots != nil {
			s.opts.Snapshots.Forget(v)
		}
		return nil
	}
	e := s.entries.get(key)
	if e == nil {
		return nil
	}
	item := e.published(v.Version)
	if item == nil || item.Value.Config.Deployment != v.Revision || !item.Value.inProgress() {
		return nil
	}
	record := item.Value
	o.apply(&record.status)
	wctx, cancel := writeContext(s.ctx)
	defer cancel()
	defer s.reload(key)
	_, err := s.versions.Update(wctx, item.Key, item.Revision, record)
	return err
}

// forgetReplaced tells of the versions that a function had and has no more: it
// or they were deleted, or changed. now may be nil.
func (s *Service) forgetReplaced(old, now *entry) {
	if s.opts.Snapshots == nil || old == nil {
		return
	}
	for qualifier, r := range old.routes {
		v := r.target.version
		if v.Version != qualifier { // an alias, or $LATEST by its other name
			continue
		}
		if now != nil {
			if r := now.routes[qualifier]; r != nil && r.target.version.Revision == v.Revision {
				continue
			}
		}
		s.preparations.end(v)
		s.opts.Snapshots.Forget(v)
	}
}
