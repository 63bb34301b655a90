package metrics

import (
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// maxCollected bounds the values that a Series holds before it sums them up.
const maxCollected = 4096

// Series collects one metric in memory. Adding to it is cheap.
type Series struct {
	metric Metric
	unit   string

	mu     sync.Mutex
	minute int64   // of values, in seconds
	values []Value // of minute
	ended  []Datum // of earlier minutes, or many values
}

// Series returns the series of a metric.
func (s *Store) Series(m Metric, unit string) *Series {
	key := seriesKey(m, unit)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.series[key] == nil {
		s.series[key] = &Series{metric: m, unit: unit}
	}
	return s.series[key]
}

// Add notes a value as of t.
func (s *Series) Add(t time.Time, v float64) {
	minute := seconds(t, false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if minute != s.minute || len(s.values) >= maxCollected {
		s.end()
		s.minute = minute
	}
	// Many are what the one before was: a 1 for an invocation, a 0 for no error.
	if n := len(s.values); n > 0 && s.values[n-1].Value == v {
		s.values[n-1].Count++
		return
	}
	s.values = append(s.values, Value{v, 1})
}

// end sums up the values; mu is held.
func (s *Series) end() {
	if len(s.values) == 0 {
		return
	}
	s.give(Datum{Metric: s.metric, Unit: s.unit, Time: time.Unix(s.minute, 0), Set: Of(s.values...)})
	s.values = s.values[:0]
}

// give adds to what has ended, one datum a minute; mu is held.
func (s *Series) give(d Datum) {
	for i := range s.ended {
		if s.ended[i].Time.Equal(d.Time) {
			s.ended[i].Set.Merge(d.Set)
			return
		}
	}
	s.ended = append(s.ended, d)
}

// take returns what was collected.
func (s *Series) take() []Datum {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
	all := s.ended
	s.ended = nil
	return all
}

// maxWaiting is how many minutes a series keeps while they cannot be written.
const maxWaiting = 60

// giveBack takes what could not be written; the oldest goes where it is much.
func (s *Series) giveBack(d Datum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.give(d)
	if n := len(s.ended); n > maxWaiting {
		s.ended = s.ended[n-maxWaiting:]
	}
}

// flush writes what Series have collected.
func (s *Store) flush() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.Lock()
	all := make([]*Series, 0, len(s.series))
	for _, one := range s.series {
		all = append(all, one)
	}
	s.mu.Unlock()
	var data []Datum
	var from []*Series
	for _, one := range all {
		for _, d := range one.take() {
			data, from = append(data, d), append(from, one)
		}
	}
	if len(data) == 0 {
		return nil
	}
	if err := s.db.Update(func(tx *bolt.Tx) error { return add(tx, data) }); err != nil {
		for i, d := range data {
			from[i].giveBack(d)
		}
		return err
	}
	return nil
}
