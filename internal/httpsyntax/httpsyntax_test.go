package httpsyntax

import (
	"strings"
	"testing"
	"time"
)

func TestChunkSize(t *testing.T) {
	for _, c := range []struct {
		line string
		want int64 // -1: malformed
	}{
		{"0", 0}, {"a", 10}, {"1F", 31}, {"0000010", 16}, {"fffffffffffffff", 1<<60 - 1},
		{"5;ext=1", 5}, {"5 ;ext", 5}, {"5  ", 5},
		{"", -1}, {";ext", -1}, {" 5", -1}, {"-1", -1}, {"+5", -1}, {"0x5", -1}, {"5 5", -1}, {"5;\x00", -1}, {"5;\r", -1}, {"5_0", -1},
		{"1000000000000000", -1}, {"00000000000000005", -1},
	} {
		got, err := ChunkSize([]byte(c.line))
		if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("%q: %d, %v; want %d", c.line, got, err, c.want)
		}
	}
}

func TestIsValueFindsControlCharactersWhereverTheyAre(t *testing.T) {
	for c := range 256 {
		want := c >= ' ' && c != 0x7f || c == '\t'
		for at := range 20 {
			b := []byte(strings.Repeat("\xe9", 20))
			b[at] = byte(c)
			if IsValue(b) != want {
				t.Fatalf("%#x at %d: %v", c, at, !want)
			}
		}
	}
}

func TestCutCRLF(t *testing.T) {
	for line, want := range map[string]string{"\r\n": "", "a\r\n": "a", "\n": "no", "a\n": "no", "a": "no", "a\r": "no", "": "no"} {
		got, ok := CutCRLF([]byte(line))
		if !ok && want != "no" || ok && string(got) != want {
			t.Errorf("%q: %q, %v", line, got, ok)
		}
	}
}

func TestAppendDateFollowsTheClock(t *testing.T) {
	at := time.Date(2026, time.February, 3, 4, 5, 6, 999, time.FixedZone("", 3600))
	for _, want := range []string{"Tue, 03 Feb 2026 03:05:06 GMT", "Tue, 03 Feb 2026 03:05:06 GMT", "Tue, 03 Feb 2026 03:05:07 GMT"} {
		if got := string(AppendDate([]byte("Date: "), at)); got != "Date: "+want {
			t.Errorf("%q, want %q", got, want)
		}
		at = at.Add(500 * time.Millisecond)
	}
}
