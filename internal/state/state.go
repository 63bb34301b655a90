// Package state is Lapwing's store: what every part of the control plane must
// find again after a restart.
//
// It has two halves in one directory:
//
//   - Collections: small typed records, each collection a key-value bucket of
//     an embedded NATS JetStream server. A record's revision is its optimistic
//     lock. The whole collection is kept in memory, fed by one ordered watch,
//     so that readers never touch the store: see [Collection].
//   - Blobs: files by the SHA-256 of their content, for code packages and
//     object bodies: see [Blobs].
//
// # Durability
//
// What a method has answered without an error survives kill -9 and power loss.
// JetStream runs with SyncAlways: a message is fsynced to its stream's block
// file before it is acknowledged and before any watch sees it. Blobs are
// fsynced, and so is the directory that names them.
//
// SyncAlways costs one fsync a write and serialises the writers of one
// collection (not those of different collections): a single writer takes about
// 1.3 times a raw append and fsync, and 64 writers side by side together reach
// about the rate of one raw appender. Group commit was tried by JetStream's
// atomic batches, which do share one sync of the stream. But each batch is
// first staged in a file store of its own, about thirty syncs in all: a batch
// of 64 is only twice as fast as 64 single writes, and one below 24 is slower.
// Turning SyncAlways off and syncing the block files from outside is not
// sound, since JetStream then also rewrites blocks without syncing them. So
// there is no group commit; BenchmarkCollection shows the numbers.
package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/fsync"
)

// formatVersion is the version of everything that this package lays down in
// its directory. A build refuses a directory of a newer version.
const formatVersion = 1

const (
	startTimeout   = 30 * time.Second
	requestTimeout = 30 * time.Second // where the caller's context sets no end
	// MaxValueSize is how large a record may be as JSON, in bytes. The largest
	// are those of objects that were uploaded in 10,000 parts.
	MaxValueSize = 2 << 20
)

// ErrInUse is why Open fails where another process has the directory open.
var ErrInUse = errors.New("another process is using it")

// Errors that writes return, wrapped with the collection and the key.
var (
	ErrExists   = errors.New("already exists")
	ErrNotFound = errors.New("not found")
	// ErrConflict says that the record has another revision than the one that
	// the write was based on.
	ErrConflict = errors.New("was changed by another writer")
	ErrTooLarge = errors.New("value is too large")
	ErrClosed   = errors.New("state is closed")
)

// Options configures a Store.
type Options struct {
	// Dir is the data directory. Open creates it, and in it the files version
	// and lock and the directories nats and blobs.
	Dir string
	// Logger gets the embedded server's warnings and errors; nil discards them.
	Logger *slog.Logger
	// Hub lets leaf nodes mirror collections; nil: nobody does. Leaf makes the
	// store a mirror of a hub; nil: it is its own. At most one of them is set.
	Hub  *Hub
	Leaf *Leaf
}

// Store is an open data directory. All its methods may be called from any
// goroutine.
type Store struct {
	log    *slog.Logger
	lock   *os.File
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	dir    string
	blobs  *Blobs

	hub     *hub  // nil: none
	leaf    *Leaf // nil: not a mirror
	natsDir string

	// markerTTL is how long the mark of a deletion stays in a bucket, for
	// watches elsewhere to see it.
	markerTTL time.Duration
	timeout   time.Duration // requestTimeout

	mu          sync.Mutex
	collections map[string]closer
	closed      bool
}

// closer is a Collection, whatever of.
type closer interface {
	close()
	restart(context.Context) error
	Mark() Mark
}

// Open opens the store in o.Dir, or makes a new one. It fails if another
// process has it open, and if a newer build of Lapwing wrote it.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{log: o.Logger, dir: o.Dir, markerTTL: time.Hour, timeout: requestTimeout, collections: map[string]closer{}}
	defer func() {
		if err != nil {
			s.Close()
			err = fmt.Errorf("open state in %s: %w", o.Dir, err)
		}
	}()
	if o.Hub != nil && o.Leaf != nil {
		return nil, errors.New("it cannot be both a hub and a leaf")
	}
	s.leaf = o.Leaf
	if o.Hub != nil {
		s.hub = &hub{Hub: *o.Hub, log: o.Logger, connections: map[string]uint64{}}
		s.markerTTL = mirrorMarkerTTL
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if s.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	if err := checkVersion(o.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(o.Dir, "blobs"), 0o700); err != nil {
		return nil, err
	}
	if s.blobs, err = s.BlobSet("shared"); err != nil {
		return nil, err
	}
	if err := s.startServer(filepath.Join(o.Dir, "nats")); err != nil {
		return nil, err
	}
	return s, nil
}

// startServer starts the embedded server and connects to it in memory. It
// listens on no socket, but for the leaf nodes of a hub.
func (s *Store) startServer(dir string) error {
	s.natsDir = dir
	o := &server.Options{
		ServerName:             "lapwing",
		DontListen:             true,
		NoSigs:                 true,
		JetStream:              true,
		StoreDir:               dir,
		SyncAlways:             true,
		DisableJetStreamBanner: true,
		MaxControlLine:         16 << 10, // long keys, escaped
		MaxPayload:             MaxValueSize + 64<<10,
		NoSystemAccount:        true,
	}
	if err := s.mirrorOptions(o); err != nil {
		return err
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("configure JetStream: %w", err)
	}
	srv.SetLoggerV2(&serverLog{s.log}, false, false, false)
	s.server = srv
	if s.hub != nil {
		s.hub.mu.Lock()
		s.hub.server = srv
		s.hub.mu.Unlock()
	}
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		return fmt.Errorf("JetStream was not ready within %v", startTimeout)
	}
	if !srv.JetStreamEnabled() {
		return errors.New("JetStream did not start; the log says why")
	}
	s.conn, err = nats.Connect("", nats.InProcessServer(srv),
		nats.Name("lapwing-state"), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.log.Error("state connection", "err", err)
		}))
	if err != nil {
		return fmt.Errorf("connect to JetStream: %w", err)
	}
	s.js, err = jetstream.New(s.conn, jetstream.WithDefaultTimeout(requestTimeout))
	return err
}

// bounded gives a context that sets no end one: a store that does not answer
// must not hold up its callers, and what they have locked, for good.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.timeout)
}

// Blobs returns the set of blobs that nobody owns alone: its users never delete
// what another may need.
func (s *Store) Blobs() *Blobs { return s.blobs }

// BlobSet opens the set of blobs with this name for its owner, and makes it if
// it is not there. Names are as those of collections; open a set once.
func (s *Store) BlobSet(name string) (*Blobs, error) {
	if !collectionName.MatchString(name) {
		return nil, fmt.Errorf("state: %q is no name for a set of blobs", name)
	}
	return openBlobs(filepath.Join(s.dir, "blobs", name))
}

// Close stops every collection and the embedded server, and gives the
// directory free. Readers may go on reading what was in memory.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	collections := s.collections
	s.mu.Unlock()
	for _, c := range collections {
		c.close()
	}
	if s.conn != nil {
		s.conn.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
	if s.lock != nil {
		return s.lock.Close()
	}
	return nil
}

// lockDir keeps two processes from using one directory. The kernel drops the
// lock when the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

// checkVersion refuses a directory that a newer build wrote, and marks a new
// one with formatVersion.
func checkVersion(dir string) error {
	name := filepath.Join(dir, "version")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return writeFileSync(name, fmt.Appendf(nil, "%d\n", formatVersion))
	}
	if err != nil {
		return err
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || v < 1 {
		return fmt.Errorf("%s holds %q, not a format version", name, b)
	}
	if v > formatVersion {
		return fmt.Errorf("it has format version %d, written by a newer lapwing; this one reads up to %d", v, formatVersion)
	}
	return nil
}

// writeFileSync writes a small file so that after a crash it is there whole or
// not at all.
func writeFileSync(name string, b []byte) error {
	tmp := name + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return fsync.Dir(filepath.Dir(name))
}

// serverLog passes on what the embedded server has to say that matters to an
// operator.
type serverLog struct{ log *slog.Logger }

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Warnf(format string, v ...any) { l.log.Warn("nats: " + fmt.Sprintf(format, v...)) }
func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Error("nats: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Fatalf(format string, v ...any) {
	l.log.Error("nats: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}
