package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"lapwing.dev/lapwing/internal/snapshot"
)

// Values of --snapshots.
const (
	snapshotsOn    = "on"
	snapshotsOff   = "off"
	snapshotsFirst = "first"
	// snapshotsRuntimes has starts wait for snapshots of runtimes alone.
	snapshotsRuntimes = "runtimes"
)

// checkSnapshots checks the options about snapshots.
func (o *upOptions) checkSnapshots() error {
	switch o.snapshots {
	case snapshotsOff:
		return nil
	case snapshotsOn, snapshotsFirst, snapshotsRuntimes:
	default:
		return usageError{fmt.Errorf("--snapshots %q: want on, off, first or runtimes", o.snapshots)}
	}
	if o.snapshotMB < 0 {
		return usageError{fmt.Errorf("--snapshot-space %d: want at least 0", o.snapshotMB)}
	}
	if o.snapshotAge <= 0 {
		return usageError{fmt.Errorf("--snapshot-age %v: want more than 0", o.snapshotAge)}
	}
	if o.snapshotAge > snapshot.MaxTTL {
		return usageError{fmt.Errorf("--snapshot-age %v: want at most %v, which is as long as the credentials in a snapshot are good", o.snapshotAge, snapshot.MaxTTL)}
	}
	if o.snapshotKey != "" {
		if _, err := readSnapshotKey(o.snapshotKey); err != nil {
			return usageError{fmt.Errorf("--snapshot-key: %w", err)}
		}
	}
	return nil
}

// readSnapshotKey reads the file of the operator's key.
func readSnapshotKey(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() != snapshot.KeySize {
		return nil, fmt.Errorf("%s has %d bytes, want %d random ones: head -c %[3]d /dev/urandom", path, st.Size(), snapshot.KeySize)
	}
	return os.ReadFile(path)
}

// openSnapshots opens the store of snapshots of sandboxes that run a program,
// unless the operator wants none.
func (s *server) openSnapshots(program string) (err error) {
	dir := filepath.Join(s.opts.data, "snapshots")
	if s.opts.snapshots == snapshotsOff {
		return os.RemoveAll(dir) // they hold what functions had in memory
	}
	o := snapshot.Options{Dir: dir, Logger: s.log, MaxBytes: int64(s.opts.snapshotMB) << 20, TTL: s.opts.snapshotAge}
	if s.opts.snapshotKey != "" {
		if o.Key, err = readSnapshotKey(s.opts.snapshotKey); err != nil {
			return fmt.Errorf("--snapshot-key: %w", err)
		}
	}
	host, err := snapshot.Host()
	if err != nil {
		return err
	}
	// The program's name tells its content.
	sum := sha256.Sum256([]byte(host))
	o.Base = fmt.Sprintf("gvisor %s on %s", filepath.Base(program), hex.EncodeToString(sum[:16]))
	if s.snapshots, err = snapshot.Open(o); err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.snapshots.Close() })
	return nil
}
