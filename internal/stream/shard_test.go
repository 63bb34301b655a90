package stream

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/killtest"
)

func TestMain(m *testing.M) { killtest.Main(m, appendForever) }

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func shard(t testing.TB, s *Store) *Shard {
	t.Helper()
	sh, err := s.Shard("a", 0)
	if err != nil {
		t.Fatal(err)
	}
	return sh
}

func put(t testing.TB, s *Shard, data ...string) uint64 {
	t.Helper()
	records := make([]Record, len(data))
	for i, d := range data {
		records[i] = Record{Key: "k", Data: []byte(d)}
	}
	first, err := s.Append(records)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// read returns the data of the records from an offset on.
func read(t testing.TB, s *Shard, from uint64, l Limits) (string, uint64) {
	t.Helper()
	if l.Records == 0 {
		l.Records = 1 << 20
	}
	if l.Bytes == 0 {
		l.Bytes = 1 << 30
	}
	records, next, err := s.Read(from, l)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for i, r := range records {
		if i > 0 && r.Offset != records[i-1].Offset+1 {
			t.Errorf("offset %d follows %d", r.Offset, records[i-1].Offset)
		}
		all = append(all, string(r.Data))
	}
	return strings.Join(all, " "), next
}

func TestRecordsAreReadInTheirOrderFromAnyOffset(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	sh := shard(t, s)
	if first := put(t, sh, "a", "b"); first != 1 {
		t.Errorf("the first offset is %d", first)
	}
	put(t, sh, "c", "d")
	for range 2 { // before and after a restart
		for _, tt := range []struct {
			from   uint64
			limits Limits
			want   string
			next   uint64
		}{
			{0, Limits{}, "a b c d", 5}, {1, Limits{}, "a b c d", 5}, {3, Limits{}, "c d", 5}, {5, Limits{}, "", 5},
			{1, Limits{Records: 3}, "a b c", 4}, {2, Limits{Bytes: 4}, "b c", 4}, {2, Limits{Bytes: 1}, "b", 3},
		} {
			if got, next := read(t, sh, tt.from, tt.limits); got != tt.want || next != tt.next {
				t.Errorf("from %d with %+v: %q, next %d; want %q, %d", tt.from, tt.limits, got, next, tt.want, tt.next)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
		sh = shard(t, s)
	}
	if put(t, sh, "e") != 5 {
		t.Error("the offsets do not go on after a restart")
	}
}

// fill appends records until there are some segments, and returns how many records
// there are.
func fill(t *testing.T, s *Shard, segments int) int {
	t.Helper()
	data := bytes.Repeat([]byte("x"), 100<<10)
	n := 0
	for len(s.segments) < segments {
		batch := make([]Record, 10)
		for i := range batch {
			batch[i] = Record{Key: strconv.Itoa(n + 1), Data: data}
			n++
		}
		if _, err := s.Append(batch); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestReadingGoesOnOverSegments(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	n := fill(t, shard(t, s), 3)
	for range 2 {
		sh := shard(t, s)
		count := 0
		for from := uint64(1); from < sh.End(); {
			records, next, err := sh.Read(from, Limits{Records: 37, Bytes: 10 << 20})
			if err != nil || len(records) == 0 {
				t.Fatalf("%d records, %v", len(records), err)
			}
			for _, r := range records {
				if count++; r.Key != strconv.Itoa(count) || r.Offset != uint64(count) {
					t.Fatalf("record %d has key %s, offset %d", count, r.Key, r.Offset)
				}
			}
			from = next
		}
		if count != n {
			t.Errorf("%d records were read, want %d", count, n)
		}
		if records, _, err := sh.Read(uint64(n)-5, Limits{Records: 2, Bytes: 1 << 20}); err != nil || len(records) != 2 || records[0].Key != strconv.Itoa(n-5) {
			t.Errorf("from the middle of the last segment: %d records, %v", len(records), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
	}
}

func TestRecordsAreFoundByTheirArrival(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, dir)
		sh := shard(t, s)
		start := time.Now()
		for i := range 200 { // a segment an hour
			put(t, sh, strconv.Itoa(i+1))
			time.Sleep(time.Minute)
		}
		if len(sh.segments) < 3 {
			t.Errorf("%d segments, want one an hour", len(sh.segments))
		}
		for range 2 {
			for _, tt := range []struct {
				at   time.Duration
				want uint64
			}{{-time.Hour, 1}, {0, 1}, {time.Nanosecond, 2}, {time.Minute, 2}, {90 * time.Minute, 91}, {90*time.Minute + time.Second, 92}, {199 * time.Minute, 200}, {200 * time.Minute, 201}} {
				if got, err := sh.Find(start.Add(tt.at)); err != nil || got != tt.want {
					t.Errorf("at %v: %d, %v; want %d", tt.at, got, err, tt.want)
				}
			}
			if got, _ := read(t, sh, 1, Limits{Since: start.Add(198 * time.Minute)}); got != "199 200" {
				t.Errorf("since the 198th minute: %q", got)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
			sh = shard(t, s)
		}
	})
}

func TestTrimmedRecordsTakeNoDiskAndOffsetsGoOn(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, dir)
		sh := shard(t, s)
		start := time.Now()
		for range 5 {
			put(t, sh, "x")
			time.Sleep(segmentAge)
		}
		if err := sh.Trim(start.Add(2*segmentAge + time.Minute)); err != nil {
			t.Fatal(err)
		}
		if got, next := read(t, sh, 0, Limits{}); got != "x x" || next != 6 {
			t.Errorf("after the first trim: %q, next %d", got, next)
		}
		if err := sh.Trim(time.Now()); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "a", "*", "*"))
		if err != nil || len(files) != 1 {
			t.Errorf("files %v, %v", files, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		sh = shard(t, open(t, dir))
		if got, next := read(t, sh, 1, Limits{}); got != "" || next != 6 {
			t.Errorf("after all was trimmed: %q, next %d", got, next)
		}
		if first := put(t, sh, "y"); first != 6 {
			t.Errorf("the next record has offset %d, want 6", first)
		}
	})
}

func TestAppendsSideBySideGetOffsetsWithoutGaps(t *testing.T) {
	sh := shard(t, open(t, t.TempDir()))
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]string{}
	for w := range 16 {
		wg.Go(func() {
			for i := range 20 {
				data := fmt.Sprintf("%d/%d", w, i)
				first := put(t, sh, data, data)
				mu.Lock()
				seen[first], seen[first+1] = data, data
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	records, _, err := sh.Read(1, Limits{Records: 10000, Bytes: 1 << 20})
	if err != nil || len(records) != 640 || len(seen) != 640 {
		t.Fatalf("%d records, %d offsets, %v", len(records), len(seen), err)
	}
	for _, r := range records {
		if seen[r.Offset] != string(r.Data) {
			t.Errorf("offset %d holds %s, its writer was told it is %s", r.Offset, r.Data, seen[r.Offset])
		}
	}
}

func TestTheEndThatACrashToreIsCutOff(t *testing.T) {
	for name, tear := range map[string]func([]byte) []byte{
		"half a frame":     func(b []byte) []byte { return b[:len(b)-1] },
		"half a head":      func(b []byte) []byte { return append(b[:len(b)-20], 1, 2, 3) },
		"zeros":            func(b []byte) []byte { return append(b[:len(b)-20], make([]byte, 4096)...) },
		"a wrong checksum": func(b []byte) []byte { b[len(b)-1]++; return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			put(t, shard(t, s), "a", "b")
			put(t, shard(t, s), "c")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			path := segmentPath(filepath.Join(dir, "a", "000000"), 1)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, tear(b), 0o600); err != nil {
				t.Fatal(err)
			}
			sh := shard(t, open(t, dir))
			if put(t, sh, "d") != 3 {
				t.Error("the torn record keeps its offset")
			}
			if got, _ := read(t, sh, 1, Limits{}); got != "a b d" {
				t.Errorf("read %q", got)
			}
		})
	}
}

func TestASegmentThatWasOnlyMadeIsUsed(t *testing.T) {
	for _, n := range []int{0, 3, len(magic)} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "a", "000000"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(segmentPath(filepath.Join(dir, "a", "000000"), 7), []byte(magic[:n]), 0o600); err != nil {
			t.Fatal(err)
		}
		if first := put(t, shard(t, open(t, dir)), "x"); first != 7 {
			t.Errorf("with %d bytes of magic the offset is %d", n, first)
		}
	}
}

func TestANewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, shard(t, s), "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := segmentPath(filepath.Join(dir, "a", "000000"), 1)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(magic)-1]++
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir).Shard("a", 0); err == nil {
		t.Error("it was opened")
	}
}

func TestARemovedStreamIsGone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	sh := shard(t, s)
	put(t, sh, "a")
	if err := s.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := sh.Append([]Record{{}}); !errors.Is(err, ErrClosed) {
		t.Errorf("appended: %v", err)
	}
	if _, _, err := sh.Read(1, Limits{Records: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if names, err := s.Streams(); err != nil || len(names) != 0 {
		t.Errorf("streams %v, %v", names, err)
	}
	if put(t, shard(t, s), "b") != 1 {
		t.Error("a stream of the same name goes on where the old one ended")
	}
}

// appendForever is the work of the process that is killed.
func appendForever(dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			sh, err := s.Shard("a", w%2)
			for i := 0; err == nil; i++ {
				data := fmt.Sprintf("%d.%d", w, i)
				var first uint64
				if first, err = sh.Append([]Record{{Key: "k", Data: []byte(data)}}); err == nil {
					fmt.Printf("%d %d %s\n", w%2, first, data)
				}
			}
		})
	}
	wg.Wait()
	return errors.New("nothing is appended any more")
}

func TestWhatWasAcknowledgedSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	told := map[string]string{}
	for range 3 {
		p := killtest.Start(t, dir)
		n := 0
		for line := range p.Lines() {
			if n++; n == 500 {
				p.Kill()
			}
			at, data, _ := strings.Cut(line[2:], " ")
			told[line[:2]+at] = data
		}
		p.Wait()
		s := open(t, dir)
		there := map[string]string{}
		for number := range 2 {
			sh, err := s.Shard("a", number)
			if err != nil {
				t.Fatal(err)
			}
			records, _, err := sh.Read(1, Limits{Records: 1 << 20, Bytes: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				there[fmt.Sprintf("%d %d", number, r.Offset)] = string(r.Data)
			}
		}
		for at, data := range told {
			if there[at] != data {
				t.Errorf("record %s is %q, its writer was told %q", at, there[at], data)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged records survived three kills", len(told))
}

// FuzzSegment opens a shard whose last segment holds anything: what comes after
// must be readable.
func FuzzSegment(f *testing.F) {
	frame := appendFrame(nil, 1, 1000, true, "key", []byte("data"))
	f.Add([]byte(nil))
	f.Add(frame)
	f.Add(append(frame, frame...))
	f.Add(appendFrame(frame, 2, 900, true, "", nil))
	f.Add(frame[:len(frame)-2])
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "a", "000000"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(segmentPath(filepath.Join(dir, "a", "000000"), 1), append([]byte(magic), content...), 0o600); err != nil {
			t.Fatal(err)
		}
		sh := shard(t, open(t, dir))
		at := put(t, sh, "after")
		if got, _ := read(t, sh, at, Limits{}); got != "after" {
			t.Errorf("read %q", got)
		}
		if _, err := sh.Find(time.Now()); err != nil {
			t.Error(err)
		}
		everything(t, sh)
	})
}

// BenchmarkAppend measures appends of 500 records of 1 KB, as a call of PutRecords
// makes them, and single ones.
func BenchmarkAppend(b *testing.B) {
	data := bytes.Repeat([]byte("x"), 1000)
	for _, c := range []struct{ records, writers int }{{1, 1}, {1, 64}, {500, 1}, {500, 8}} {
		b.Run(fmt.Sprintf("%d records, %d writers", c.records, c.writers), func(b *testing.B) {
			sh := shard(b, open(b, b.TempDir()))
			records := make([]Record, c.records)
			for i := range records {
				records[i] = Record{Key: "key", Data: data}
			}
			var wg sync.WaitGroup
			for range c.writers {
				wg.Go(func() {
					for range b.N/c.writers + 1 {
						if _, err := sh.Append(records); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N*c.records)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
