package kinesis

import (
	"sync"
	"time"
)

// What a shard takes and gives (developer guide, "Quotas and limits").
const (
	writeBytes   = 1 << 20 // a second, of data and partition keys
	writeRecords = 1000    // a second
	readBytes    = 2 << 20 // a second
	readCalls    = 5       // a second, of GetRecords; of GetShardIterator as many
)

// rates are what a shard has left of each.
type rates struct {
	mu             sync.Mutex
	bytes, records bucket // written
	read, calls    bucket
	iterators      bucket
}

func newRates() *rates {
	return &rates{
		bytes: bucket{rate: writeBytes}, records: bucket{rate: writeRecords},
		read: bucket{rate: readBytes}, calls: bucket{rate: readCalls}, iterators: bucket{rate: readCalls},
	}
}

// bucket gives so much a second. Who takes more than is left is served, and others
// wait until that is made good: a record may be larger than a second's worth, and
// how much a read returns is known after it.
type bucket struct {
	rate float64
	used float64
	at   time.Time // when it was so much
}

func (b *bucket) ready(now time.Time) bool {
	b.used = max(0, b.used-b.rate*now.Sub(b.at).Seconds())
	b.at = now
	return b.used < b.rate
}

// write tells whether the shard takes a record of so many bytes, and takes it.
func (r *rates) write(now time.Time, bytes int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.bytes.ready(now) || !r.records.ready(now) {
		return false
	}
	// The last record of a second does not reach into the next, unless it is
	// larger than one.
	if left := r.bytes.rate - r.bytes.used; float64(bytes) > left && r.bytes.used > 0 {
		return false
	}
	r.bytes.used += float64(bytes)
	r.records.used++
	return true
}

// call tells whether the shard may be read now.
func (r *rates) call(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.read.ready(now) || !r.calls.ready(now) {
		return false
	}
	r.calls.used++
	return true
}

// gave counts what was read.
func (r *rates) gave(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read.used += float64(bytes)
}

// iterator tells whether an iterator of the shard may be made now.
func (r *rates) iterator(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.iterators.ready(now) {
		return false
	}
	r.iterators.used++
	return true
}
