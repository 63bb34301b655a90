package schema

import (
	"hash/maphash"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Rule is one constraint of a shape: AWS's words, and whether a value keeps it.
type Rule struct {
	Text  string
	Keeps func(v reflect.Value) bool
}

// Rules returns the constraints of the value itself, not of what is in it.
func (s *Shape) Rules() []Rule {
	s.rulesOnce.Do(func() { s.rules = newRules(s) })
	return s.rules
}

func newRules(s *Shape) []Rule {
	if len(s.Enum) > 0 {
		return []Rule{{"Member must satisfy enum value set: [" + strings.Join(s.Enum, ", ") + "]",
			func(v reflect.Value) bool { return slices.Contains(s.Enum, v.String()) }}}
	}
	var list []Rule
	quantity, measure := "length", length
	switch s.Kind {
	case Integer, Long:
		quantity, measure = "value", func(v reflect.Value) float64 { return float64(v.Int()) }
	case Double:
		quantity, measure = "value", reflect.Value.Float
	}
	if s.Max != nil {
		list = append(list, Rule{"Member must have " + quantity + " less than or equal to " + formatBound(*s.Max),
			func(v reflect.Value) bool { return measure(v) <= *s.Max }})
	}
	if s.Min != nil {
		list = append(list, Rule{"Member must have " + quantity + " greater than or equal to " + formatBound(*s.Min),
			func(v reflect.Value) bool { return measure(v) >= *s.Min }})
	}
	if s.Pattern != "" {
		p := &pattern{text: s.Pattern}
		list = append(list, Rule{"Member must satisfy regular expression pattern: " + s.Pattern,
			func(v reflect.Value) bool { return p.matches(v.String()) }})
	}
	return list
}

// length counts characters, elements or bytes.
func length(v reflect.Value) float64 {
	switch v.Kind() {
	case reflect.String:
		return float64(utf8.RuneCountInString(v.String()))
	case reflect.Slice, reflect.Map:
		return float64(v.Len())
	}
	return 0 // a stream, which the operation's MaxBody bounds
}

func formatBound(f float64) string {
	if math.IsInf(f, 0) {
		panic("schema: a bound is infinite") // the models have none
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// pattern is a pattern that values must match. It is compiled when it is first
// needed, and remembers some of what has matched: the same few names come again and
// again, and matching one takes longer than all else that is checked.
type pattern struct {
	text    string
	compile sync.Once
	regexp  *regexp.Regexp
	matched [32]atomic.Pointer[string] // by hash
}

// maxRemembered is the longest value that is remembered, in bytes.
const maxRemembered = 256

var patternSeed = maphash.MakeSeed()

func (p *pattern) matches(s string) bool {
	place := &p.matched[maphash.String(patternSeed, s)%uint64(len(p.matched))]
	if last := place.Load(); last != nil && *last == s {
		return true
	}
	p.compile.Do(func() {
		var err error
		if p.regexp, err = CompilePattern(p.text); err != nil {
			panic(err) // awsgen emits what compiles
		}
	})
	if !p.regexp.MatchString(s) {
		return false
	}
	if len(s) <= maxRemembered {
		kept := strings.Clone(s) // without the request that it may be part of
		place.Store(&kept)
	}
	return true
}
