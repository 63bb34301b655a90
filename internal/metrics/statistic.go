package metrics

import (
	"regexp"
	"strconv"
	"strings"
)

// Statistic is what is asked of a Set: one of SampleCount, Sum, Average,
// Minimum, Maximum, a percentile (p99.9) or another extended statistic of
// CloudWatch (tm90, TM(10%:90%), WM, TC, TS, PR(:300), IQM).
type Statistic struct {
	kind   string  // simple name, or p tm wm tc ts pr
	lo, hi float64 // bounds
	share  bool    // the bounds are shares of the values, not values
	noLo   bool
	noHi   bool
}

var (
	shortForm = regexp.MustCompile(`^(p|tm|wm|tc|ts)(\d{1,2}(?:\.\d{0,10})?|100)$`)
	longForm  = regexp.MustCompile(`^(TM|WM|TC|TS|PR)\((-?\d*(?:\.\d+)?)(%?):(-?\d*(?:\.\d+)?)(%?)\)$`)
)

// ParseStatistic reads the name of a statistic; ok is false where there is none
// of that name.
func ParseStatistic(name string) (st Statistic, ok bool) {
	switch name {
	case "SampleCount", "Sum", "Average", "Minimum", "Maximum":
		return Statistic{kind: name}, true
	case "IQM":
		return Statistic{kind: "tm", lo: 0.25, hi: 0.75, share: true}, true
	}
	if m := shortForm.FindStringSubmatch(name); m != nil {
		v, err := strconv.ParseFloat(m[2], 64)
		return Statistic{kind: m[1], hi: v / 100, share: true}, err == nil
	}
	m := longForm.FindStringSubmatch(name)
	if m == nil {
		return st, false
	}
	st = Statistic{kind: strings.ToLower(m[1]), share: m[3] != "" || m[5] != "", noLo: m[2] == "", noHi: m[4] == ""}
	if st.noLo && st.noHi || st.kind == "pr" && st.share {
		return st, false
	}
	if st.share && (!st.noLo && m[3] == "" || !st.noHi && m[5] == "") {
		return st, false // one bound is a share and the other is not
	}
	st.lo, st.hi = 0, 1
	for i, p := range map[int]*float64{2: &st.lo, 4: &st.hi} {
		if m[i] == "" {
			continue
		}
		v, err := strconv.ParseFloat(m[i], 64)
		if err != nil || st.share && (v < 0 || v > 100) {
			return st, false
		}
		if *p = v; st.share {
			*p = v / 100
		}
	}
	return st, st.noLo || st.noHi || st.lo < st.hi
}

// Of evaluates the statistic; ok is false where the set cannot tell.
func (st Statistic) Of(s *Set) (v float64, ok bool) {
	if s.Count == 0 {
		return 0, false
	}
	switch st.kind {
	case "SampleCount":
		return s.Count, true
	case "Sum":
		return s.Sum, true
	case "Average":
		return s.Sum / s.Count, true
	case "Minimum":
		return s.Min, true
	case "Maximum":
		return s.Max, true
	}
	if s.Opaque {
		return 0, false
	}
	if st.kind == "p" {
		return s.percentile(st.hi), true
	}
	count, sum := st.within(s)
	switch st.kind {
	case "tc":
		return count, true
	case "ts":
		return sum, true
	case "pr":
		return 100 * count / s.Count, true
	case "wm":
		return st.winsorized(s) / s.Count, true
	}
	if count == 0 {
		return 0, false
	}
	return sum / count, true // tm
}

// percentile returns the lowest value that the share p of all values does not
// exceed.
func (s *Set) percentile(p float64) float64 {
	rank, seen := p*s.Count, 0.0
	for _, v := range s.Values {
		if seen += v.Count; seen >= rank-1e-9*s.Count {
			return v.Value
		}
	}
	return s.Max
}

// within returns number and sum of the values within the bounds. A value at the
// bound of a share counts in part.
func (st Statistic) within(s *Set) (count, sum float64) {
	seen := 0.0
	for _, v := range s.Values {
		n := v.Count
		if st.share {
			from, to := max(seen, st.lo*s.Count), min(seen+v.Count, st.hi*s.Count)
			n = max(0, to-from)
		} else if !st.noLo && v.Value < st.lo || !st.noHi && v.Value > st.hi {
			n = 0
		}
		seen += v.Count
		count += n
		sum += n * v.Value
	}
	return count, sum
}

// winsorized returns the sum of the values with those beyond the bounds moved
// there.
func (st Statistic) winsorized(s *Set) (sum float64) {
	lo, hi := s.Min, s.Max
	if !st.noLo {
		if lo = st.lo; st.share {
			lo = s.percentile(st.lo)
		}
	}
	if !st.noHi {
		if hi = st.hi; st.share {
			hi = s.percentile(st.hi)
		}
	}
	for _, v := range s.Values {
		sum += min(hi, max(lo, v.Value)) * v.Count
	}
	return sum
}
