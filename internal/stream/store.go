// Package stream keeps records in order: shards, each a log on the disk to which
// records are appended and from which they are read by their offset, until they
// are trimmed. What streams and shards mean to a client is for the service.
//
// # Durability
//
// Append returns when its records are on the disk (fdatasync). Those who append to
// a shard while another append is being written share the next one: a shard takes
// as many records a second as its clients send side by side, at one sync at a
// time. Different shards do not wait for one another.
//
// JetStream was looked at first, since it holds the records of package state. Its
// streams sync each message by itself (package state has the numbers), so that
// 500 records of one call would cost 500 syncs, and its messages are smaller than
// the largest record here.
//
// # On the disk
//
// A shard is a directory of segments, files named by the offset of their first
// record. A segment begins with a magic number that has the format's version in
// it. A record is a frame: length, CRC-32C, offset, time of arrival with a bit that
// says that a write begins, key, data. A sparse index of each segment is in memory:
// for those that were there at the start it is made at their first use.
//
// At the start the last segment is read to its end. What a crash left of the last
// write was never acknowledged and is cut off. Damage before a later write is none
// of a crash: a write begins when what is before it is durable. It is told in the
// log, and what is whole behind it is kept: records are lost, not the shard.
// Readers leave damaged records out as they do trimmed ones.
package stream

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/fsync"
)

// ErrClosed says that the shard was removed, or the store closed.
var ErrClosed = errors.New("the shard is closed")

// Options configures a Store. The zero value of a field means its default.
type Options struct {
	// Logger is told of what is damaged. Default: nobody is.
	Logger *slog.Logger
	// Now tells the time at which records arrive. Default time.Now.
	Now func() time.Time
}

// Store is a directory of streams. All its methods may be called from any
// goroutine.
type Store struct {
	dir  string
	opts Options

	mu     sync.Mutex
	shards map[string]map[int]*Shard // by stream and number
	closed bool
}

// Open opens the store in dir, which is made where it is missing.
func Open(dir string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	return &Store{dir: dir, opts: o, shards: map[string]map[int]*Shard{}}, nil
}

// Streams returns the names of the streams that have shards, or had before they
// were removed in part.
func (s *Store) Streams() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Shards returns the numbers of the shards that a stream has on the disk, none where
// there is no such stream.
func (s *Store) Shards(stream string) ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, stream))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("streams: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, fmt.Errorf("streams: %s of stream %s is no shard", e.Name(), stream)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// Shard opens a shard of a stream by its number, and makes it where it is missing.
// A stream's name must be good for a file's.
func (s *Store) Shard(stream string, number int) (*Shard, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if sh := s.shards[stream][number]; sh != nil {
		return sh, nil
	}
	if err := makeDir(filepath.Join(s.dir, stream)); err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	sh, err := openShard(s.shardDir(stream, number), s.opts)
	if err != nil {
		return nil, fmt.Errorf("shard %d of stream %s: %w", number, stream, err)
	}
	if s.shards[stream] == nil {
		s.shards[stream] = map[int]*Shard{}
	}
	s.shards[stream][number] = sh
	return sh, nil
}

func (s *Store) shardDir(stream string, number int) string {
	return filepath.Join(s.dir, stream, fmt.Sprintf("%06d", number))
}

// RemoveShard closes a shard and deletes it. It can be repeated.
func (s *Store) RemoveShard(stream string, number int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if sh := s.shards[stream][number]; sh != nil {
		err = sh.close()
		delete(s.shards[stream], number)
	}
	return errors.Join(err, os.RemoveAll(s.shardDir(stream, number)))
}

// Remove closes the shards of a stream and deletes them. It can be repeated.
func (s *Store) Remove(stream string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, sh := range s.shards[stream] {
		errs = append(errs, sh.close())
	}
	delete(s.shards, stream)
	return errors.Join(append(errs, os.RemoveAll(filepath.Join(s.dir, stream)))...)
}

// Close closes all shards.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, shards := range s.shards {
		for _, sh := range shards {
			errs = append(errs, sh.close())
		}
	}
	s.shards = nil
	return errors.Join(errs...)
}

// makeDir makes a directory that is there after a crash, too.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return fsync.Dir(filepath.Dir(dir))
}
