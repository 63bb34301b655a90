package worker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/sandbox"
)

// errBusy reports that the host has other things to do than to make snapshots.
var errBusy = errors.New("the host has no memory to spare for making it")

// takeTurn waits until a snapshot may be made, and takes s.turn.
func (s *snapshots) takeTurn(delay time.Duration) error {
	if delay > 0 {
		if err := s.sleep(delay); err != nil {
			return err
		}
	}
	select {
	case s.turn <- struct{}{}:
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
	// Whoever waits for an environment goes first.
	for waited := time.Duration(0); delay > 0 && waited < calmWait && len(s.w.starts) > 0; waited += calmWait / 100 {
		if err := s.sleep(calmWait / 100); err != nil {
			<-s.turn
			return err
		}
	}
	return nil
}

func (s *snapshots) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// build boots an environment for nothing else than its snapshot, and keeps that.
// Its identity is nobody's: each clone has its own. What the function prints
// belongs to the log of each clone, but with SnapStart to that of this Init, which
// the function's owner knows of.
func (s *snapshots) build(spec invoke.Spec, id string) error {
	if err := enoughMemory(spec.Version); err != nil {
		return err
	}
	e, err := s.w.newEnvironment(spec)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, e.initLimit()+buildTimeout)
	defer cancel()
	began := time.Now()
	if e.initType != initSnapStart {
		e.tape.record()
	}
	if e.in, err = s.w.boot(ctx, e); err != nil {
		return err
	}
	defer e.stream.flush()
	defer e.discard()
	fail, err := s.initialise(ctx, e)
	if err != nil {
		return err
	}
	if fail != nil {
		return fail.ofInit()
	}
	notes, ok := e.tape.notes()
	if !ok {
		return &unkept{"it prints too much while it is initialised to repeat that in each clone"}
	}
	if err := s.keep(ctx, e, id, e.about(), notes); err != nil {
		return err
	}
	s.w.standbys.want(e)
	info, _ := s.store.Info(id)
	s.w.log.Debug("a snapshot was made", "function", e.v.ARN(), "bytes", info.Size, "took", time.Since(began))
	return nil
}

// enoughMemory tells whether the host has memory for making a snapshot.
func enoughMemory(v *function.Version) error {
	if free, err := (HostMemory{}).Available(); err != nil || free < buildSpare+int64(min(v.MemoryMB, 512))<<20 {
		return errors.Join(errBusy, err)
	}
	return nil
}

// keep makes a snapshot of an environment, which ends.
func (s *snapshots) keep(ctx context.Context, e *environment, id string, about any, notes []byte) error {
	d, err := s.store.Create(id, about, e.snapshotSize())
	if err != nil {
		return err
	}
	err = e.in.sandbox.Snapshot(ctx, sandbox.Snapshot{State: d.State, Memory: d.Memory})
	e.discard() // it may still have the memory mapped, which is not to change any more
	if err != nil {
		d.Discard()
		return err
	}
	return d.Commit(ctx, notes)
}

// snapshotSize returns how many bytes a snapshot of the environment, as it is now,
// takes at most: what it uses, not what it may use.
func (e *environment) snapshotSize() int64 {
	memory, tmp := e.v.MemoryMB, e.v.EphemeralMB
	if st, err := e.in.sandbox.Stats(); err == nil { // else it has ended, which is told by what follows
		tmp = min(tmp, st.TmpMB)
		if st.MemoryMB > 0 { // else nobody counts it here
			memory = min(memory, st.MemoryMB)
		}
	}
	return int64(memory+tmp)<<20 + stateRoom
}

// initialise runs the Init phase of an environment up to the point where its
// snapshot can be taken.
func (s *snapshots) initialise(ctx context.Context, e *environment) (*failure, error) {
	told := e.initType == initSnapStart
	if told {
		e.log.initStart(time.Now(), phaseInit)
	}
	creds, err := e.credentials(credentialsTTL + s.store.TTL()) // what an Init keeps of them is good for the life of a clone
	if err != nil {
		return nil, err
	}
	start := e.start(creds)
	start.Restorable = true
	ictx, cancel := context.WithTimeoutCause(ctx, e.initLimit(), errInitTimeout)
	defer cancel()
	began := time.Now()
	res, err := e.in.conn.Start(ictx, start)
	var fail *failure
	switch {
	case err != nil:
		fail, err = e.fault(ictx, err)
	case res.Err != nil:
		fail = runtimeFailure(res.Err)
	case !res.Restorable:
		err = &unkept{"its runtime does not take part"}
	case res.Unfit != "":
		err = &unkept{res.Unfit}
	}
	if told && (err == nil || res.Unfit != "") {
		e.log.initReport(time.Now(), phaseInit, time.Since(began), fail)
	}
	return fail, err
}

// ofInit returns the failure of an Init for the function's owner.
func (f *failure) ofInit() *function.InitFailure {
	message := f.message
	var document struct{ ErrorMessage string }
	if json.Unmarshal(f.document, &document) == nil && document.ErrorMessage != "" {
		message = document.ErrorMessage
	}
	return &function.InitFailure{Type: f.errorType, Message: message}
}
