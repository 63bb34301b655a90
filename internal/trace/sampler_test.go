package trace

import (
	"testing"
	"time"
)

func TestSamplingIsTheCallersDecisionFirst(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		sampled string
		active  bool
		want    string
	}{
		{"1", false, "1"}, {"1", true, "1"}, {"0", true, "0"}, {"0", false, "0"},
		{"", true, "1"}, {"?", true, "1"}, {"yes", true, "1"}, {"", false, "0"}, {"?", false, "0"},
	} {
		var s Sampler
		if got := s.Decide(Header{Sampled: c.sampled}, c.active, now).Sampled; got != c.want {
			t.Errorf("%q, active %v: %q, want %q", c.sampled, c.active, got, c.want)
		}
	}
}

func TestSamplerTakesTheFirstOfEachSecondAndFivePercentOfTheRest(t *testing.T) {
	var s Sampler
	const seconds, each = 10, 10_000
	rest := 0
	for i := range seconds {
		now := time.Unix(int64(1000+i), 0)
		for j := range each {
			sampled := s.Decide(Header{}, true, now).Sampled == "1"
			switch {
			case j == 0 && !sampled:
				t.Errorf("the first request of second %d is not traced", i)
			case j > 0 && sampled:
				rest++
			}
		}
	}
	// Binomial: the standard deviation is about 70.
	if want := seconds * each / 20; rest < want-700 || rest > want+700 {
		t.Errorf("%d of the rest, want about %d", rest, want)
	}
}
