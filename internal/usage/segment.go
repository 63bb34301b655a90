package usage

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/meter"
)

const (
	// segmentHeader begins every segment; its last character is the version of
	// the format.
	segmentHeader = "LWUSAGE1"
	segmentSuffix = ".journal"
	// frameHeader is the length of a record's header: length and CRC-32C of
	// what follows, sequence number.
	frameHeader = 4 + 4 + 8
	// maxRecord bounds a record: its line has a function's name, its log's and
	// numbers.
	maxRecord = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is what the journal holds of one event: an invocation, an allocation
// or that lines are settled.
type record struct {
	Seq        uint64        `json:"-"`
	Usage      *meter.Usage  `json:"usage,omitempty"`
	Report     *meter.Report `json:"report,omitempty"`
	Allocation *allocation   `json:"allocation,omitempty"`
	Settled    uint64        `json:"settled,omitempty"` // lines up to this record's are in the log
}

// allocation is provisioned concurrency and what is billed for it.
type allocation struct {
	meter.Allocation
	Quantities meter.Quantities
}

// row returns what a record adds to the sums, and where; ok tells whether it
// adds anything.
func (r *record) row() (Row, bool) {
	switch {
	case r.Usage != nil:
		u := r.Usage
		return Row{Day: day(u.Began), Function: u.Function, Version: u.Version, Architecture: u.Architecture, Quantities: u.Quantities()}, true
	case r.Allocation != nil:
		a := r.Allocation
		return Row{Day: day(a.From), Function: a.Function, Version: a.Version, Architecture: a.Architecture, Quantities: a.Quantities}, true
	}
	return Row{}, false
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// appendFrame appends a record.
func appendFrame(b []byte, r *record) []byte {
	at := len(b)
	b = binary.LittleEndian.AppendUint64(b, 0) // length and checksum
	b = binary.LittleEndian.AppendUint64(b, r.Seq)
	b = appendRecord(b, r)
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-8))
	binary.LittleEndian.PutUint32(b[at+4:], crc32.Checksum(b[at+8:], castagnoli))
	return b
}

// readFrame reads the first record of b and returns its length; 0 where there
// is no whole and sound one.
func readFrame(b []byte) (r record, n int, err error) {
	if len(b) < frameHeader {
		return record{}, 0, nil
	}
	size := binary.LittleEndian.Uint32(b)
	if size < 8 || size > maxRecord || int(size) > len(b)-8 {
		return record{}, 0, nil
	}
	body := b[8 : 8+size]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return record{}, 0, nil
	}
	if err := json.Unmarshal(body[8:], &r); err != nil {
		return record{}, 0, fmt.Errorf("usage: a record of the journal: %w", err)
	}
	r.Seq = binary.LittleEndian.Uint64(body)
	return r, 8 + int(size), nil
}

// readSegment calls f with the records of a segment, and returns where they
// end: what comes after is torn.
func readSegment(path string, f func(record)) (end, size int64, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, fmt.Errorf("usage: %w", err)
	}
	if len(b) < len(segmentHeader) {
		return 0, int64(len(b)), nil // torn while it was made
	}
	if head := string(b[:len(segmentHeader)]); head != segmentHeader {
		if strings.HasPrefix(head, segmentHeader[:len(segmentHeader)-1]) {
			return 0, 0, fmt.Errorf("usage: %s has format version %c, this program reads 1", path, head[len(head)-1])
		}
		return 0, 0, fmt.Errorf("usage: %s is not a segment of the journal", path)
	}
	at := len(segmentHeader)
	for {
		r, n, err := readFrame(b[at:])
		if err != nil || n == 0 {
			return int64(at), int64(len(b)), err
		}
		f(r)
		at += n
	}
}

func segmentPath(dir string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("%08d%s", n, segmentSuffix))
}

// listSegments returns the numbers of the segments, in order.
func listSegments(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("usage: %w", err)
	}
	var all []int
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if n, err := strconv.Atoi(name); ok && err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}
