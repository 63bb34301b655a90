package metrics

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// fileVersion is that of the database's layout.
	fileVersion = 1
	// flushEvery is how long a Series collects.
	flushEvery = 10 * time.Second
	// rollEvery is the time between the passes that thin out old data.
	rollEvery = time.Hour
	// batchDelay is how long a Put waits for others to share its fsync.
	batchDelay = 2 * time.Millisecond
	// lockWait is how long Open waits for another process to let go.
	lockWait = 2 * time.Second
)

var (
	metaBucket   = []byte("meta")
	seriesBucket = []byte("series") // metric and unit -> series
	pointsBucket = []byte("points") // id of the series, seconds -> Set
	versionKey   = []byte("version")
)

// Dimension is a part of a metric's name.
type Dimension struct{ Name, Value string }

// Metric names a metric. Dimensions are in the order of their names.
type Metric struct {
	Namespace, Name string
	Dimensions      []Dimension
}

// NewMetric returns a metric with its dimensions in order.
func NewMetric(namespace, name string, dims ...Dimension) Metric {
	dims = slices.Clone(dims)
	slices.SortFunc(dims, func(a, b Dimension) int { return strings.Compare(a.Name, b.Name) })
	return Metric{namespace, name, dims}
}

// Datum is something measured.
type Datum struct {
	Metric
	Unit string
	Time time.Time
	// Fine keeps the second of Time, not just its minute (CloudWatch's
	// high-resolution metrics).
	Fine bool
	Set  Set
}

// Store keeps metrics. Its methods are safe for concurrent use.
type Store struct {
	db   *bolt.DB
	log  *slog.Logger
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	series  map[string]*Series // by key
	failing bool               // flushing failed; it has been told

	flushing sync.Mutex
}

// Open opens the store in dir, which is made where it is missing.
func Open(dir string, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	path := filepath.Join(dir, "metrics.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("metrics: %s is in use by another process", path)
	}
	if err != nil {
		return nil, fmt.Errorf("metrics: %s: %w", path, err)
	}
	if err := db.Update(prepare); err != nil {
		return nil, fmt.Errorf("metrics: %s: %w", path, errors.Join(err, db.Close()))
	}
	db.MaxBatchDelay = batchDelay
	s := &Store{db: db, log: log, stop: make(chan struct{}), series: map[string]*Series{}}
	s.done.Go(s.run)
	return s, nil
}

func prepare(tx *bolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	if v := meta.Get(versionKey); v != nil && !bytes.Equal(v, []byte{fileVersion}) {
		return fmt.Errorf("format version %v, this program reads %d", v, fileVersion)
	}
	for _, name := range [][]byte{seriesBucket, pointsBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return meta.Put(versionKey, []byte{fileVersion})
}

// Close writes what Series have collected and closes the store.
func (s *Store) Close() error {
	close(s.stop)
	s.done.Wait()
	return errors.Join(s.flush(), s.db.Close())
}

// run flushes and thins out until the store is closed.
func (s *Store) run() {
	flush, roll := time.NewTicker(flushEvery), time.NewTicker(rollEvery)
	defer flush.Stop()
	defer roll.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-flush.C:
			s.report(s.flush())
		case now := <-roll.C:
			s.report(s.roll(now))
		}
	}
}

// report tells of a failure, once until it is over.
func (s *Store) report(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !s.failing {
		s.log.Error("metrics cannot be written; trying on", "error", err)
	}
	s.failing = err != nil
}

// Put keeps data and returns when they are durable.
func (s *Store) Put(_ context.Context, data []Datum) error {
	if len(data) == 0 {
		return nil
	}
	// Concurrent calls share a transaction, hence an fsync.
	err := s.db.Batch(func(tx *bolt.Tx) error { return add(tx, data) })
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// PutOnce keeps data under a source's number, unless it has had that number, or one
// after it, of the same id: a source that was not answered sends again, and one that
// lost what it knew has another id. It returns when the data are durable.
func (s *Store) PutOnce(_ context.Context, source, id string, sequence uint64, data []Datum) error {
	key := []byte("source\x00" + source)
	err := s.db.Batch(func(tx *bolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if last := meta.Get(key); len(last) >= 8 && string(last[8:]) == id && binary.BigEndian.Uint64(last) >= sequence {
			return nil
		}
		if err := add(tx, data); err != nil {
			return err
		}
		return meta.Put(key, append(binary.BigEndian.AppendUint64(nil, sequence), id...))
	})
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// add adds data to what is there.
func add(tx *bolt.Tx, data []Datum) error {
	points := tx.Bucket(pointsBucket)
	for i := range data {
		d := &data[i]
		at := seconds(d.Time, d.Fine)
		id, err := seriesID(tx, seriesKey(d.Metric, d.Unit), at)
		if err != nil {
			return err
		}
		if err := merge(points, pointKey(id, at), d.Set); err != nil {
			return err
		}
	}
	return nil
}

func merge(points *bolt.Bucket, key []byte, set Set) error {
	if old := points.Get(key); old != nil {
		sum, err := decodeSet(old)
		if err != nil {
			return err
		}
		sum.Merge(set)
		set = sum
	}
	return points.Put(key, set.encode(nil))
}

func seconds(t time.Time, fine bool) int64 {
	at := t.Unix()
	if !fine {
		at -= at % 60
	}
	return at
}

func pointKey(id uint64, at int64) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), id)
	return binary.BigEndian.AppendUint64(b, uint64(max(0, at)))
}

// seriesKey is namespace, name, unit and dimensions, separated by zero bytes,
// which none of them can have.
func seriesKey(m Metric, unit string) string {
	var b strings.Builder
	b.WriteString(m.Namespace + "\x00" + m.Name + "\x00" + unit)
	for _, d := range m.Dimensions {
		b.WriteString("\x00" + d.Name + "\x00" + d.Value)
	}
	return b.String()
}

func parseSeriesKey(key []byte) (m Metric, unit string) {
	parts := strings.Split(string(key), "\x00")
	if len(parts) < 3 {
		return m, ""
	}
	m.Namespace, m.Name, unit = parts[0], parts[1], parts[2]
	for i := 3; i+1 < len(parts); i += 2 {
		m.Dimensions = append(m.Dimensions, Dimension{parts[i], parts[i+1]})
	}
	return m, unit
}

// seriesID returns the id of a series, which is made where it is missing, and
// notes the time of its latest data.
func seriesID(tx *bolt.Tx, key string, at int64) (uint64, error) {
	b := tx.Bucket(seriesBucket)
	id, last := uint64(0), int64(-1)
	if v := b.Get([]byte(key)); len(v) == 16 {
		id, last = binary.BigEndian.Uint64(v), int64(binary.BigEndian.Uint64(v[8:]))
	} else {
		var err error
		if id, err = b.NextSequence(); err != nil {
			return 0, err
		}
	}
	if at <= last {
		return id, nil
	}
	return id, b.Put([]byte(key), pointKey(id, at))
}

// Listed is a metric and when it last had data.
type Listed struct {
	Metric
	Last time.Time
}

// List calls f with the metrics of a namespace (all where it is empty) in the
// order of their names, until it returns false.
func (s *Store) List(namespace string, f func(Listed) bool) error {
	s.report(s.flush()) // what is there can be read all the same
	var prefix []byte
	if namespace != "" {
		prefix = []byte(namespace + "\x00")
	}
	return s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(seriesBucket).Cursor()
		var before Listed
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			m, _ := parseSeriesKey(k)
			l := Listed{m, time.Unix(int64(binary.BigEndian.Uint64(v[8:])), 0)}
			if before.Name != "" && seriesKey(before.Metric, "") != seriesKey(l.Metric, "") && !f(before) {
				return nil
			}
			before = l // of several units, one is enough
		}
		if before.Name != "" {
			f(before)
		}
		return nil
	})
}

// Bucket is what was measured in one period.
type Bucket struct {
	Time time.Time // of its beginning
	Unit string
	Set  Set
}

// Query asks for Start <= time < End, in periods from Start on.
type Query struct {
	Metric
	Unit       string // empty for any
	Start, End time.Time
	Period     time.Duration
}

// Query returns the periods that have data, in the order of time; several of
// one time where the metric has several units.
func (s *Store) Query(q Query) ([]Bucket, error) {
	s.report(s.flush()) // what is there can be read all the same
	var all []Bucket
	err := s.db.View(func(tx *bolt.Tx) error {
		series := tx.Bucket(seriesBucket)
		c := series.Cursor()
		prefix := []byte(q.Namespace + "\x00" + q.Name + "\x00")
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			m, unit := parseSeriesKey(k)
			if q.Unit != "" && unit != q.Unit || !slices.Equal(m.Dimensions, q.Dimensions) {
				continue
			}
			buckets, err := readSeries(tx, binary.BigEndian.Uint64(v), unit, &q)
			if err != nil {
				return err
			}
			all = append(all, buckets...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	slices.SortStableFunc(all, func(a, b Bucket) int { return a.Time.Compare(b.Time) })
	return all, nil
}

func readSeries(tx *bolt.Tx, id uint64, unit string, q *Query) (all []Bucket, err error) {
	c := tx.Bucket(pointsBucket).Cursor()
	from, to := q.Start.Unix(), q.End.Unix()
	period := int64(q.Period / time.Second)
	end := pointKey(id, to)
	for k, v := c.Seek(pointKey(id, from)); k != nil && bytes.Compare(k, end) < 0; k, v = c.Next() {
		set, err := decodeSet(v)
		if err != nil {
			return nil, err
		}
		at := int64(binary.BigEndian.Uint64(k[8:]))
		start := time.Unix(from+(at-from)/period*period, 0)
		if n := len(all); n == 0 || !all[n-1].Time.Equal(start) {
			all = append(all, Bucket{Time: start, Unit: unit})
		}
		all[len(all)-1].Set.Merge(set)
	}
	return all, nil
}
