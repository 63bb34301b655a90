package stream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/killtest"
)

// reopen opens the store with a log, and returns its one shard.
func reopen(t testing.TB, dir string) (*Shard, *bytes.Buffer) {
	t.Helper()
	told := &bytes.Buffer{}
	s, err := Open(dir, Options{Logger: slog.New(slog.NewTextHandler(told, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return shard(t, s), told
}

// everything returns the data of all records that can be read, by their offsets.
func everything(t testing.TB, s *Shard) map[uint64]string {
	t.Helper()
	all := map[uint64]string{}
	for from := uint64(0); ; {
		records, next, err := s.Read(from, Limits{Records: 7, Bytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			all[r.Offset] = string(r.Data)
		}
		if len(records) == 0 && next >= s.End() {
			return all
		}
		from = next
	}
}

// damageFile changes the file of a shard's segment.
func damageFile(t testing.TB, dir string, first uint64, f func([]byte) []byte) {
	t.Helper()
	path := segmentPath(filepath.Join(dir, "a", "000000"), first)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// frames returns where the frames of records begin in a segment's content, and at
// last where they end.
func frames(content []byte) []int {
	at := []int{len(magic)}
	for n := at[0]; n < len(content); {
		n += frameHead + int(binary.LittleEndian.Uint32(content[n:]))
		at = append(at, n)
	}
	return at
}

func TestDamageBeforeALaterWriteLosesOnlyWhatIsDamaged(t *testing.T) {
	// Four writes: "1 2", "3", "4 5", "6".
	for name, c := range map[string]struct {
		harm func(b []byte, at []int) []byte
		lost []uint64
	}{
		"data":                     {func(b []byte, at []int) []byte { b[at[3]-1] ^= 1; return b }, []uint64{3}},
		"a length":                 {func(b []byte, at []int) []byte { b[at[2]]++; return b }, []uint64{3}},
		"a length beyond the file": {func(b []byte, at []int) []byte { b[at[2]+2]++; return b }, []uint64{3}},
		"the first record":         {func(b []byte, at []int) []byte { b[at[0]+6] ^= 1; return b }, []uint64{1}},
		"an end and a beginning":   {func(b []byte, at []int) []byte { clear(b[at[2]-3 : at[2]+10]); return b }, []uint64{2, 3}},
		"two places":               {func(b []byte, at []int) []byte { b[at[1]-1]++; b[at[4]-1]++; return b }, []uint64{1, 4}},
		"a record is gone":         {func(b []byte, at []int) []byte { return append(b[:at[2]], b[at[3]:]...) }, []uint64{3}},
		"bytes between": {func(b []byte, at []int) []byte {
			return append(b[:at[2]:at[2]], append(make([]byte, 100), b[at[2]:]...)...)
		}, nil},
		"and a torn end": {func(b []byte, at []int) []byte { b[at[1]-1]++; return append(b, 1, 2, 3) }, []uint64{1}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			put(t, shard(t, s), "1", "2")
			put(t, shard(t, s), "3")
			put(t, shard(t, s), "4", "5")
			put(t, shard(t, s), "6")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			damageFile(t, dir, 1, func(b []byte) []byte { return c.harm(b, frames(b)) })
			want := map[uint64]string{1: "1", 2: "2", 3: "3", 4: "4", 5: "5", 6: "6"}
			for _, offset := range c.lost {
				delete(want, offset)
			}
			for start := range 2 {
				sh, told := reopen(t, dir)
				everything(t, sh)
				if got := everything(t, sh); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("start %d: records %v, want %v", start, got, want)
				}
				damages := 1
				if name == "two places" {
					damages = 2
				}
				if n := strings.Count(told.String(), "damaged"); n != damages {
					t.Errorf("start %d: the log tells %d damages, want %d:\n%s", start, n, damages, told)
				}
				offset := uint64(7 + start)
				want[offset] = strconv.FormatUint(offset, 10)
				if got := put(t, sh, want[offset]); got != offset {
					t.Errorf("the next record has offset %d, want %d", got, offset)
				}
				if err := sh.close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestOfTheLastWriteNothingIsKeptBehindWhatACrashLeftOut(t *testing.T) {
	for name, harm := range map[string]func(b []byte, at []int){
		"its first record":    func(b []byte, at []int) { clear(b[at[1]:at[2]]) },
		"one in its middle":   func(b []byte, at []int) { clear(b[at[2]+5 : at[3]]) },
		"its last record":     func(b []byte, at []int) { clear(b[at[3]:]) },
		"more than one place": func(b []byte, at []int) { clear(b[at[1]+5 : at[2]]); clear(b[at[3]:]) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			put(t, shard(t, s), "1")
			put(t, shard(t, s), "2", "3", "4")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			kept := 0
			damageFile(t, dir, 1, func(b []byte) []byte {
				at := frames(b)
				whole := bytes.Clone(b)
				harm(b, at)
				for kept = 0; bytes.Equal(b[at[kept]:at[kept+1]], whole[at[kept]:at[kept+1]]); kept++ {
				}
				return b
			})
			sh, told := reopen(t, dir)
			if got := everything(t, sh); len(got) != kept {
				t.Errorf("%d records are kept, want %d: %v", len(got), kept, got)
			}
			if !strings.Contains(told.String(), "cut off") || strings.Contains(told.String(), "damaged") {
				t.Errorf("the log says:\n%s", told)
			}
			if got := put(t, sh, "x"); got != uint64(kept)+1 {
				t.Errorf("the next record has offset %d", got)
			}
		})
	}
}

func TestARecordThatLooksLikeOthersIsNotTakenForThem(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	forged := appendFrame([]byte("x"), 2, 1000, true, "k", []byte("forged"))
	put(t, shard(t, s), "1")
	put(t, shard(t, s), string(forged))
	put(t, shard(t, s), "3")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damageFile(t, dir, 1, func(b []byte) []byte { b[frames(b)[1]+frameHead+bodyHead+1] ^= 1; return b })
	sh, _ := reopen(t, dir)
	if got := everything(t, sh); fmt.Sprint(got) != "map[1:1 3:3]" {
		t.Errorf("records %v", got)
	}
}

func TestDamageInAnOlderSegmentIsToldOnceAndLeftOut(t *testing.T) {
	for name, c := range map[string]struct {
		harm func([]byte) []byte
		lost int // 0: some
	}{
		"a record":       {func(b []byte) []byte { b[frames(b)[20]+500]++; return b }, 1},
		"the last one":   {func(b []byte) []byte { b[len(b)-1]++; return b }, 1},
		"all":            {func(b []byte) []byte { clear(b[len(magic):]); return b }, 0},
		"the file's end": {func(b []byte) []byte { return b[:len(b)/2] }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			sh := shard(t, s)
			n := fill(t, sh, 3)
			second := sh.segments[1].first
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			damageFile(t, dir, 1, c.harm)
			sh, told := reopen(t, dir)
			everything(t, sh)
			got := everything(t, sh)
			if lost := n - len(got); c.lost > 0 && lost != c.lost || c.lost == 0 && (lost == 0 || lost > int(second)) {
				t.Errorf("%d of %d records are lost", lost, n)
			}
			for offset := second; offset <= uint64(n); offset++ {
				if got[offset] == "" {
					t.Fatalf("record %d of another segment is lost", offset)
				}
			}
			if n := strings.Count(told.String(), "damaged"); n > 1 || n == 0 && name != "the file's end" {
				t.Errorf("the log tells %d damages:\n%s", n, told)
			}
			if put(t, sh, "x") != uint64(n)+1 {
				t.Error("the offsets do not go on")
			}
		})
	}
}

// asBefore makes a segment one of the format before.
func asBefore(b []byte) []byte {
	at := frames(b)
	copy(b, magicBefore)
	for i := range at[:len(at)-1] {
		r, _, err := readFrame(bytes.NewReader(b[at[i]:]))
		if err != nil {
			panic(err)
		}
		appendFrame(b[:at[i]], r.Offset, r.Arrived.UnixMilli(), false, r.Key, r.Data)
	}
	return b
}

func TestSegmentsOfTheFormatBeforeAreReadAndNotAppendedTo(t *testing.T) {
	for name, c := range map[string]struct {
		records, want string
		harm          func([]byte) []byte
		first         uint64 // of the segment of the next record
	}{
		"whole":      {"a b c", "a b c d", asBefore, 4},
		"torn":       {"a b c", "a b d", func(b []byte) []byte { b = asBefore(b); return b[:len(b)-1] }, 3},
		"no records": {"", "d", asBefore, 1},
		"none whole": {"a", "d", func(b []byte) []byte { b = asBefore(b); return b[:len(b)-1] }, 1},
		"only begun": {"", "d", func(b []byte) []byte { return b[:4] }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			sh := shard(t, s)
			for _, data := range strings.Fields(c.records) {
				put(t, sh, data)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			damageFile(t, dir, 1, c.harm)
			for range 2 {
				s = open(t, dir)
				sh = shard(t, s)
				if sh.End() <= c.first && put(t, sh, "d") != c.first {
					t.Error("the offsets do not go on")
				}
				if got, _ := read(t, sh, 1, Limits{}); got != c.want {
					t.Errorf("read %q, want %q", got, c.want)
				}
				if last := sh.segments[len(sh.segments)-1]; last.first != c.first {
					t.Errorf("the last segment begins at %d, want %d", last.first, c.first)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestAfterAKillDamageLosesNothingElseThatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	p := killtest.Start(t, dir)
	told := map[uint64]string{}
	n := 0
	for line := range p.Lines() {
		if n++; n == 600 {
			p.Kill()
		}
		var offset uint64
		var data string
		if _, err := fmt.Sscanf(line, "0 %d %s", &offset, &data); err == nil {
			told[offset] = data
		}
	}
	p.Wait()
	damageFile(t, dir, 1, func(b []byte) []byte {
		at := len(magic)
		for range 100 {
			at += frameHead + int(binary.LittleEndian.Uint32(b[at:]))
		}
		b[at+frameHead+bodyHead+1] ^= 1
		return b
	})
	sh, _ := reopen(t, dir)
	got := everything(t, sh)
	delete(told, 101)
	if _, ok := got[101]; ok || len(told) < 150 {
		t.Fatalf("%d records were acknowledged; is the damaged one there? %t", len(told), ok)
	}
	for offset, data := range told {
		if got[offset] != data {
			t.Errorf("record %d is %q, its writer was told %q", offset, got[offset], data)
		}
	}
}

// FuzzDamage changes bytes of a log anywhere: what is read is what was written
// there, and the shard takes more.
func FuzzDamage(f *testing.F) {
	f.Add(uint16(40), uint16(1), byte(0xff))
	f.Add(uint16(100), uint16(60), byte(0))
	f.Add(uint16(8), uint16(4), byte(7))
	f.Fuzz(func(t *testing.T, at, n uint16, with byte) {
		dir := t.TempDir()
		s := open(t, dir)
		want := map[uint64]string{}
		for i := range 6 {
			data := []string{strings.Repeat(strconv.Itoa(i), i*7), "second", strings.Repeat("x", 100*i)}
			first := put(t, shard(t, s), data...)
			for j, d := range data {
				want[first+uint64(j)] = d
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		damageFile(t, dir, 1, func(b []byte) []byte {
			from := len(magic) + int(at)%(len(b)-len(magic))
			for i := from; i < min(len(b), from+int(n)); i++ {
				b[i] ^= with
			}
			return b
		})
		sh, _ := reopen(t, dir)
		for offset, data := range everything(t, sh) {
			if want[offset] != data {
				t.Errorf("record %d is %q, was %q", offset, data, want[offset])
			}
		}
		first := put(t, sh, "after")
		if got, _ := read(t, sh, first, Limits{}); got != "after" {
			t.Errorf("read %q", got)
		}
	})
}
