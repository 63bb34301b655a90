package trace

import (
	"strings"
	"testing"
	"time"
)

func TestParseKeepsWhatTheHeaderSays(t *testing.T) {
	for in, want := range map[string]string{
		"": "",
		"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
		" Sampled=? ; root=1-a-b;Self=1-x-y;CalledFrom=app":                          "Root=1-a-b;Sampled=?",
		"Root=1-a-b;Lineage=a87bd80c:1|68fd508a:5|c512fbe3:2":                        "Root=1-a-b;Lineage=a87bd80c:1|68fd508a:5|c512fbe3:2",
		"Root=1-a-b;Lineage=a87bd80c:-1|x|:3|68fd508a:5|b:99999999":                  "Root=1-a-b;Lineage=68fd508a:5",
		"Root=a\nb;Sampled=0":                        "Sampled=0",
		"Root=1-a-b;" + strings.Repeat("x=y;", 2000): "",
	} {
		if got := Parse(in).String(); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestVisitCountsEachFunctionByItself(t *testing.T) {
	h := New(time.Unix(1700000000, 0))
	for i := range 20 {
		var n, m int
		h, n = Parse(h.String()).Visit("arn:f")
		h, m = Parse(h.String()).Visit("arn:g")
		if n != i+1 || m != i+1 {
			t.Fatalf("round %d: counted %d and %d", i, n, m)
		}
	}
	if len(h.Lineage) != 2 || !strings.HasPrefix(h.Root, "1-6553f100-") || len(h.Root) != 35 {
		t.Errorf("%v", h)
	}
}

func TestVisitForgetsTheOldestOfALongLineage(t *testing.T) {
	var h Header
	for i := range 2 * maxHops {
		h, _ = h.Visit(string(rune('a' + i)))
	}
	if len(h.Lineage) != maxHops || len(h.String()) > maxHeader {
		t.Errorf("%d hops, %d bytes", len(h.Lineage), len(h.String()))
	}
}

func FuzzParse(f *testing.F) {
	f.Add("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a87bd80c:1|68fd508a:5")
	f.Add("Lineage=a:1:2|b=:3")
	f.Fuzz(func(t *testing.T, s string) {
		h := Parse(s)
		out := h.String()
		if again := Parse(out).String(); again != out {
			t.Errorf("%q reads as %q, and that as %q", s, out, again)
		}
		if strings.ContainsAny(out, "\r\n") || len(h.Lineage) > maxHops {
			t.Errorf("%q", out)
		}
	})
}
