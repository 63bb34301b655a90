package metrics

import (
	"encoding/binary"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

const hour, dayLength = time.Hour, 24 * time.Hour

// ages are the ages from which data have a coarser grain (CloudWatch, "Metrics
// retention"): grain 0 is gone.
var ages = []struct{ age, grain time.Duration }{
	{455 * dayLength, 0}, {63 * dayLength, hour}, {15 * dayLength, 5 * time.Minute}, {3 * hour, time.Minute},
}

// rollBatch bounds the points that are moved in one transaction.
const rollBatch = 5000

// roll thins out old data.
func (s *Store) roll(now time.Time) error {
	var after []byte
	for done := false; !done; {
		err := s.db.Update(func(tx *bolt.Tx) (err error) {
			after, done, err = rollFrom(tx, after, now)
			return err
		})
		if err != nil {
			return err
		}
	}
	return s.db.Update(func(tx *bolt.Tx) error { return forget(tx, now) })
}

type point struct{ key, set []byte }

// rollFrom looks at the points after a key, until it has moved enough of them.
func rollFrom(tx *bolt.Tx, after []byte, now time.Time) (last []byte, done bool, err error) {
	points := tx.Bucket(pointsBucket)
	c := points.Cursor()
	k, v := c.Seek(after)
	var old []point
	for seen := 0; k != nil && seen < 20*rollBatch && len(old) < rollBatch; seen++ {
		if coarser(k, now) != nil {
			old = append(old, point{slices.Clone(k), slices.Clone(v)})
		}
		last = slices.Clone(k)
		k, v = c.Next()
	}
	for _, p := range old {
		if err := points.Delete(p.key); err != nil {
			return nil, false, err
		}
		to := coarser(p.key, now)
		if len(to) == 0 {
			continue
		}
		set, err := decodeSet(p.set)
		if err != nil {
			return nil, false, err
		}
		if err := merge(points, to, set); err != nil {
			return nil, false, err
		}
	}
	return last, k == nil, nil
}

// coarser returns the key that a point of this age belongs to, empty where it
// has no place any more, or nil where it is in its place.
func coarser(key []byte, now time.Time) []byte {
	at := int64(binary.BigEndian.Uint64(key[8:]))
	age := now.Sub(time.Unix(at, 0))
	for _, a := range ages {
		if age < a.age {
			continue
		}
		if a.grain == 0 {
			return []byte{}
		}
		grain := int64(a.grain / time.Second)
		if at%grain == 0 {
			return nil
		}
		return pointKey(binary.BigEndian.Uint64(key), at-at%grain)
	}
	return nil
}

// forget removes the series that have no data any more.
func forget(tx *bolt.Tx, now time.Time) error {
	b := tx.Bucket(seriesBucket)
	var gone [][]byte
	err := b.ForEach(func(k, v []byte) error {
		if now.Sub(time.Unix(int64(binary.BigEndian.Uint64(v[8:])), 0)) > ages[0].age {
			gone = append(gone, slices.Clone(k))
		}
		return nil
	})
	for _, k := range gone {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return err
}
