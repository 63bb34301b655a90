package metrics

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

const (
	// setVersion is that of a Set's encoding.
	setVersion = 1
	// maxValues is how many different values a Set keeps as they are; more are
	// rounded to half a percent, of which there are some 460 in a decade.
	maxValues = 1000
	// roundStep is twice the relative error of a rounded value.
	roundStep = 0.01
)

// Value is a value and how often it was seen.
type Value struct{ Value, Count float64 }

// Set is what was measured in a span of time: a statistic set as CloudWatch has
// them and, where it is known, how the values are distributed.
type Set struct {
	Count, Sum, Min, Max float64
	// Values are the values, in their order, unless some are not known: those
	// of statistic sets of more than one value.
	Values []Value
	Opaque bool // Values are not known
}

// Of returns the set of some values, whose counts must be above 0.
func Of(values ...Value) Set {
	s := Set{Values: slices.Clone(values)}
	for i, v := range values {
		if i == 0 {
			s.Min, s.Max = v.Value, v.Value
		}
		s.Count += v.Count
		s.Sum += v.Value * v.Count
		s.Min, s.Max = min(s.Min, v.Value), max(s.Max, v.Value)
	}
	s.compact()
	return s
}

// Statistics returns the set of which only these are known.
func Statistics(count, sum, min, max float64) Set {
	s := Set{Count: count, Sum: sum, Min: min, Max: max}
	if min == max { // then all values are known (CloudWatch, "Percentiles")
		s.Values = []Value{{min, count}}
	} else {
		s.Opaque = true
	}
	return s
}

// Merge adds what o has.
func (s *Set) Merge(o Set) {
	if o.Count == 0 {
		return
	}
	if s.Count == 0 {
		*s = o
		s.Values = slices.Clone(o.Values)
		return
	}
	s.Count += o.Count
	s.Sum += o.Sum
	s.Min, s.Max = min(s.Min, o.Min), max(s.Max, o.Max)
	if s.Opaque = s.Opaque || o.Opaque; s.Opaque {
		s.Values = nil
		return
	}
	s.Values = append(s.Values, o.Values...)
	s.compact()
}

// compact sorts the values, joins equal ones, and rounds them where they are too
// many.
func (s *Set) compact() {
	join := func() {
		slices.SortFunc(s.Values, func(a, b Value) int { return cmp.Compare(a.Value, b.Value) })
		n := 0
		for _, v := range s.Values {
			if n > 0 && s.Values[n-1].Value == v.Value {
				s.Values[n-1].Count += v.Count
				continue
			}
			s.Values[n] = v
			n++
		}
		s.Values = s.Values[:n]
	}
	if join(); len(s.Values) <= maxValues {
		return
	}
	for i := range s.Values {
		s.Values[i].Value = min(s.Max, max(s.Min, round(s.Values[i].Value)))
	}
	join()
}

func round(v float64) float64 {
	if v == 0 {
		return 0
	}
	return math.Copysign(math.Exp(math.Round(math.Log(math.Abs(v))/roundStep)*roundStep), v)
}

// encode appends the set.
func (s *Set) encode(b []byte) []byte {
	b = append(b, setVersion)
	for _, v := range []float64{s.Count, s.Sum, s.Min, s.Max} {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	for _, v := range s.Values {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Value))
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Count))
	}
	return b
}

var errEncoding = errors.New("metrics: a set is damaged, or written by a newer program")

func decodeSet(b []byte) (s Set, err error) {
	if len(b) < 33 || b[0] != setVersion || (len(b)-33)%16 != 0 {
		return Set{}, errEncoding
	}
	next := func() float64 {
		v := math.Float64frombits(binary.LittleEndian.Uint64(b))
		b = b[8:]
		return v
	}
	b = b[1:]
	s.Count, s.Sum, s.Min, s.Max = next(), next(), next(), next()
	s.Opaque = len(b) == 0
	if !s.Opaque {
		s.Values = make([]Value, 0, len(b)/16)
	}
	for len(b) > 0 {
		s.Values = append(s.Values, Value{next(), next()})
	}
	return s, nil
}
