package usage

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/fsync"
	"lapwing.dev/lapwing/internal/meter"
)

// monthVersion is that of the format of a month's file.
const monthVersion = 1

// Row is the usage of a function version on one day (UTC).
type Row struct {
	Day          string `json:"day"` // YYYY-MM-DD
	Function     string `json:"function"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	meter.Quantities
}

// Month returns the month of the row, YYYY-MM.
func (r *Row) Month() string { return r.Day[:len("2006-01")] }

type rowKey struct{ day, function, version, architecture string }

func (r *Row) key() rowKey { return rowKey{r.Day, r.Function, r.Version, r.Architecture} }

func compareRows(a, b Row) int {
	return cmp.Or(strings.Compare(a.Day, b.Day), strings.Compare(a.Function, b.Function),
		strings.Compare(a.Version, b.Version), strings.Compare(a.Architecture, b.Architecture))
}

// month is the file of a month.
type month struct {
	Version int    `json:"version"` // of the format
	Folded  uint64 `json:"folded"`  // the records of the month up to this one are in the rows
	Rows    []Row  `json:"rows"`
}

func readMonth(path string) (month, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return month{}, nil
	}
	if err != nil {
		return month{}, fmt.Errorf("usage: %w", err)
	}
	var m month
	if err := json.Unmarshal(b, &m); err != nil {
		return month{}, fmt.Errorf("usage: %s: %w", path, err)
	}
	if m.Version != monthVersion {
		return month{}, fmt.Errorf("usage: %s has format version %d, this program reads %d", path, m.Version, monthVersion)
	}
	for _, r := range m.Rows {
		if len(r.Day) != len("2006-01-02") {
			return month{}, fmt.Errorf("usage: %s: a row of the day %q", path, r.Day)
		}
	}
	return m, nil
}

// write replaces the file of a month.
func (m *month) write(path string) error {
	m.Version = monthVersion
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("usage: %w", errors.Join(err, os.Remove(tmp)))
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	return fsync.Dir(filepath.Dir(path))
}

func monthPath(dir, name string) string { return filepath.Join(dir, name+".json") }

// readMonths reads the files of all months.
func readMonths(dir string) (map[string]month, error) {
	files, err := filepath.Glob(filepath.Join(dir, "[0-9][0-9][0-9][0-9]-[0-9][0-9].json"))
	if err != nil {
		return nil, err
	}
	all := map[string]month{}
	for _, f := range files {
		if all[strings.TrimSuffix(filepath.Base(f), ".json")], err = readMonth(f); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// sums adds rows up.
type sums map[rowKey]*Row

func (s sums) add(r Row) {
	if sum := s[r.key()]; sum != nil {
		sum.Add(r.Quantities)
	} else {
		own := r // on the heap only here
		s[own.key()] = &own
	}
}

func (s sums) rows() []Row {
	all := make([]Row, 0, len(s))
	for _, r := range s {
		all = append(all, *r)
	}
	slices.SortFunc(all, compareRows)
	return all
}

// segmentSums is what the records of a segment add to each month. Who writes a
// segment keeps them, so that it need not be read again.
type segmentSums map[string]*monthSums

type monthSums struct {
	last uint64 // of the records
	sums sums
}

func (s segmentSums) month(name string) *monthSums {
	m := s[name]
	if m == nil {
		m = &monthSums{sums: sums{}}
		s[name] = m
	}
	return m
}

// add adds a record.
func (s segmentSums) add(r *record) {
	if row, ok := r.row(); ok {
		m := s.month(row.Month())
		m.sums.add(row)
		m.last = max(m.last, r.Seq)
	}
}

// merge adds what o has.
func (s segmentSums) merge(o segmentSums) {
	for name, from := range o {
		m := s.month(name)
		for _, r := range from.sums {
			m.sums.add(*r)
		}
		m.last = max(m.last, from.last)
	}
}

// fold adds the records of a segment to their months. Done again, after a crash
// or in part, it changes nothing: a month has all of a segment or nothing.
func (s *segment) fold(dir string) error {
	months, err := readMonths(dir)
	if err != nil {
		return err
	}
	fresh := s.sums
	if fresh == nil {
		// An earlier process may have written some of it to the segment before as
		// well, where its disk was full.
		fresh = segmentSums{}
		if _, _, err := readSegment(s.path, func(r record) {
			row, ok := r.row()
			if ok && r.Seq > max(months[row.Month()].Folded, fresh.month(row.Month()).last) {
				fresh.add(&r)
			}
		}); err != nil {
			return err
		}
	}
	for name, sum := range fresh {
		m := months[name]
		if sum.last <= m.Folded {
			continue
		}
		all := sums{}
		for _, r := range m.Rows {
			all.add(r)
		}
		for _, r := range sum.sums {
			all.add(*r)
		}
		m.Folded, m.Rows = sum.last, all.rows()
		if err := m.write(monthPath(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// Read returns the usage kept in dir by day, function, version and
// architecture, in this order; none where there is no directory. It may be
// called while another process writes there.
func Read(dir string) ([]Row, error) {
	segments, err := listSegments(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Segments first: what is folded meanwhile is in the months then, and what
	// they say of it makes it not count twice.
	var records []record
	var last uint64
	for _, n := range segments {
		_, _, err := readSegment(segmentPath(dir, n), func(r record) {
			if r.Seq > last {
				last = r.Seq
				records = append(records, r)
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	months, err := readMonths(dir)
	if err != nil {
		return nil, err
	}
	s := sums{}
	for _, m := range months {
		for _, r := range m.Rows {
			s.add(r)
		}
	}
	for i := range records {
		if row, ok := records[i].row(); ok && records[i].Seq > months[row.Month()].Folded {
			s.add(row)
		}
	}
	return s.rows(), nil
}
