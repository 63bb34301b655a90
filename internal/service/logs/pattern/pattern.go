// Package pattern is the filter pattern language of CloudWatch Logs, by which
// FilterLogEvents and Live Tail pick log events. A pattern is one of:
//
//	""                                   everything
//	ERROR -"not this" %tim(e|ed)%        terms: all, without the excluded ones
//	?ERROR ?WARN                         terms: any
//	{ $.level = "E*" && $.took > 100 }   conditions on a JSON message
//	[ip, user, ..., status=4*, bytes]    conditions on space-delimited fields
//
// It follows AWS's "Filter pattern syntax for metric filters, subscription
// filters, filter log events, and Live Tail". Where that text is silent:
//   - a term is found anywhere in the message, also inside a word (older
//     editions of the text show ERROR matching ERRORCODE);
//   - * stands for any text at the begin or the end of a value only (likewise);
//   - a condition on a property that is absent, an object or an array is false,
//     whatever the operator;
//   - the last field of a space-delimited pattern takes the rest of the line.
package pattern

import (
	"fmt"
	"strings"
	"unicode"
)

// Quotas of AWS, by which Parse refuses patterns.
const (
	// maxLength is the greatest length of a pattern in characters.
	maxLength = 1024

	maxRegexes           = 2 // in a JSON or space-delimited pattern
	maxWildcards         = 3 // property selectors with a wildcard, in a pattern
	maxSelectorWildcards = 1 // in one property selector
)

// Pattern tells which messages are wanted. It is safe for concurrent use.
type Pattern struct {
	m matcher // nil matches everything
}

type matcher interface {
	match(message string) bool
}

// Parse parses a pattern. Its errors are SyntaxErrors.
func Parse(s string) (*Pattern, error) {
	if len([]rune(s)) > maxLength {
		return nil, invalid("longer than %d characters", maxLength)
	}
	p := &parser{rest: s}
	p.space()
	var m matcher
	var err error
	switch {
	case p.rest == "":
		return new(Pattern), nil
	case p.accept("{"):
		m, err = p.jsonPattern()
	case p.accept("["):
		m, err = p.delimitedPattern()
	default:
		m, err = p.terms()
	}
	if err != nil {
		return nil, err
	}
	return &Pattern{m: m}, nil
}

// All reports whether the pattern matches every message.
func (p *Pattern) All() bool { return p.m == nil }

// Match reports whether the pattern matches a message.
func (p *Pattern) Match(message string) bool { return p.m == nil || p.m.match(message) }

// terms is a pattern of terms for unstructured messages.
type terms struct {
	all, none, any []value
}

func (t *terms) match(message string) bool {
	for i := range t.all {
		if !t.all[i].in(message) {
			return false
		}
	}
	for i := range t.none {
		if t.none[i].in(message) {
			return false
		}
	}
	if len(t.any) == 0 {
		return true
	}
	for i := range t.any {
		if t.any[i].in(message) {
			return true
		}
	}
	return false
}

func (p *parser) terms() (matcher, error) {
	t := new(terms)
	everything := false
	for p.space(); p.rest != ""; p.space() {
		list := &t.all
		if p.accept("-") {
			list = &t.none
		} else if p.accept("?") {
			list = &t.any
		}
		v, err := p.term()
		if err != nil {
			return nil, err
		}
		if v.regex == nil && strings.TrimSpace(v.text) == "" {
			everything = true // " " is how to say everything
			continue
		}
		*list = append(*list, v)
	}
	if len(t.all) > 0 || len(t.none) > 0 || everything {
		t.any = nil // AWS ignores optional terms beside others
	}
	if everything && len(t.all) == 0 && len(t.none) == 0 {
		return nil, nil
	}
	return t, nil
}

func (p *parser) term() (value, error) {
	switch {
	case strings.HasPrefix(p.rest, `"`):
		text, err := p.quoted()
		return value{text: text}, err
	case strings.HasPrefix(p.rest, "%"):
		return p.regex()
	}
	end := strings.IndexFunc(p.rest, unicode.IsSpace)
	if end < 0 {
		end = len(p.rest)
	}
	word := p.rest[:end]
	if word == "" || strings.ContainsFunc(word, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		return value{}, &SyntaxError{Message: fmt.Sprintf("Invalid character(s) in term '%s'", word)}
	}
	p.rest = p.rest[end:]
	return value{text: word}, nil
}

var errEnd = invalid("unexpected end")

// SyntaxError says what is wrong with a pattern. Its message is fit for callers
// of the API.
type SyntaxError struct {
	Message string
}

func (e *SyntaxError) Error() string { return e.Message }

func invalid(format string, args ...any) error {
	return &SyntaxError{Message: "Invalid filter pattern: " + fmt.Sprintf(format, args...)}
}
