package pattern

import (
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
)

// jsonMatcher is a pattern of conditions on a JSON message.
type jsonMatcher struct {
	test jsonTest
}

// jsonTest is a condition on the decoded message.
type jsonTest func(root any) bool

func (m *jsonMatcher) match(message string) bool {
	trimmed := strings.TrimLeft(message, " \t\r\n")
	if trimmed == "" || trimmed[0] != '{' && trimmed[0] != '[' {
		return false
	}
	d := json.NewDecoder(strings.NewReader(trimmed))
	d.UseNumber()
	var root any
	if d.Decode(&root) != nil {
		return false
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return false // more than one value: not JSON
	}
	return m.test(root)
}

// jsonPattern parses what follows "{".
func (p *parser) jsonPattern() (matcher, error) {
	test, err := expression(p, p.jsonCondition,
		func(a, b jsonTest) jsonTest { return func(root any) bool { return a(root) && b(root) } },
		func(a, b jsonTest) jsonTest { return func(root any) bool { return a(root) || b(root) } })
	if err != nil {
		return nil, err
	}
	if p.space(); !p.accept("}") {
		return nil, p.unexpected("'&&', '||' or '}'")
	}
	if p.space(); p.rest != "" {
		return nil, p.unexpected("the end")
	}
	return &jsonMatcher{test: test}, p.checkQuotas()
}

func (p *parser) checkQuotas() error {
	if p.regexes > maxRegexes {
		return invalid("more than %d regular expressions", maxRegexes)
	}
	if p.wildcards > maxWildcards {
		return invalid("more than %d wildcard selectors", maxWildcards)
	}
	return nil
}

// jsonCondition parses one condition: selector, operator, value; selector IS
// NULL, TRUE or FALSE; selector NOT EXISTS.
func (p *parser) jsonCondition() (jsonTest, error) {
	sel, err := p.selector()
	if err != nil {
		return nil, err
	}
	switch {
	case p.keyword("IS"):
		var want any
		switch {
		case p.keyword("NULL"):
		case p.keyword("TRUE"):
			want = true
		case p.keyword("FALSE"):
			want = false
		default:
			return nil, p.unexpected("NULL, TRUE or FALSE")
		}
		return func(root any) bool {
			return sel.any(root, func(v any) bool {
				switch v := v.(type) {
				case nil:
					return want == nil
				case bool:
					return want == v
				}
				return false
			})
		}, nil
	case p.keyword("NOT"):
		if !p.keyword("EXISTS") {
			return nil, p.unexpected("EXISTS")
		}
		return func(root any) bool { return !sel.any(root, func(any) bool { return true }) }, nil
	}
	p.space()
	op, ok := p.operator()
	if !ok {
		return nil, p.unexpected("an operator")
	}
	v, err := p.value(op, "(){}")
	if err != nil {
		return nil, err
	}
	return func(root any) bool {
		return sel.any(root, func(node any) bool { return v.compareJSON(op, node) })
	}, nil
}

// compareJSON applies op to a JSON value. What is no string, number or truth
// value compares with nothing.
func (v *value) compareJSON(op operator, node any) bool {
	switch node := node.(type) {
	case string:
		if op != opEqual && op != opNotEqual {
			return false // only numbers are less or greater
		}
		return v.matches(node) == (op == opEqual)
	case json.Number:
		return v.compare(op, node.String())
	case bool:
		if op != opEqual && op != opNotEqual {
			return false
		}
		return v.matches(strconv.FormatBool(node)) == (op == opEqual)
	}
	return false
}

// selector is a path to properties: $.a.b[0].*, $.['a.b'].
type selector []step

type step struct {
	name  string
	index int // of an array element if name is empty
	all   bool
	array bool // all elements of an array and not members of an object
}

func (p *parser) selector() (selector, error) {
	p.space()
	if !p.accept("$") {
		return nil, p.unexpected("a property selector ($.name)")
	}
	var sel selector
	wildcards := 0
	for {
		var s step
		dot := p.accept(".")
		switch {
		case p.accept("['"), p.accept(`["`):
			name, rest, ok := cutQuotedName(p.rest)
			if !ok {
				return nil, p.unexpected("a property name in brackets")
			}
			s.name, p.rest = name, rest
		case p.accept("["):
			var err error
			if s, err = p.arrayStep(); err != nil {
				return nil, err
			}
		case dot && p.accept("*"):
			s.all = true
		case dot:
			if s.name = p.name(); s.name == "" {
				return nil, p.unexpected("a property name")
			}
		default:
			if len(sel) == 0 {
				return nil, p.unexpected("'.'")
			}
			return sel, nil
		}
		if s.all {
			p.wildcards++
			if wildcards++; wildcards > maxSelectorWildcards {
				return nil, invalid("more than %d wildcard in a property selector", maxSelectorWildcards)
			}
		}
		sel = append(sel, s)
	}
}

// cutQuotedName takes what follows [' or [" up to the quote and the bracket.
func cutQuotedName(s string) (name, rest string, ok bool) {
	for _, end := range []string{"']", `"]`} {
		if name, rest, ok := strings.Cut(s, end); ok && name != "" {
			return name, rest, true
		}
	}
	return "", s, false
}

// arrayStep parses what follows "[".
func (p *parser) arrayStep() (step, error) {
	p.space()
	s := step{array: true}
	if p.accept("*") {
		s.all = true
	} else {
		digits := p.name()
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil {
			return s, p.unexpected("an array index")
		}
		s.index = int(n)
	}
	if p.space(); !p.accept("]") {
		return s, p.unexpected("']'")
	}
	return s, nil
}

// any reports whether ok holds for one of the values that the selector selects.
func (sel selector) any(node any, ok func(any) bool) bool {
	if len(sel) == 0 {
		return ok(node)
	}
	s, rest := sel[0], sel[1:]
	switch node := node.(type) {
	case map[string]any:
		if s.array {
			return false
		}
		if s.all {
			for _, v := range node {
				if rest.any(v, ok) {
					return true
				}
			}
			return false
		}
		v, found := node[s.name]
		return found && rest.any(v, ok)
	case []any:
		if s.all {
			for _, v := range node {
				if rest.any(v, ok) {
					return true
				}
			}
			return false
		}
		return s.array && s.index < len(node) && rest.any(node[s.index], ok)
	}
	return false
}
