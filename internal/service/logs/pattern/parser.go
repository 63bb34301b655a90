package pattern

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// parser holds what is left of the pattern.
type parser struct {
	rest      string
	regexes   int
	wildcards int
}

func (p *parser) space() { p.rest = strings.TrimLeftFunc(p.rest, unicode.IsSpace) }

// accept takes token if it comes next.
func (p *parser) accept(token string) bool {
	rest, ok := strings.CutPrefix(p.rest, token)
	p.rest = rest
	return ok
}

// keyword takes a word, whatever its case, if it comes next.
func (p *parser) keyword(word string) bool {
	p.space()
	if len(p.rest) < len(word) || !strings.EqualFold(p.rest[:len(word)], word) {
		return false
	}
	if rest := p.rest[len(word):]; rest != "" && isNameByte(rest[0]) {
		return false
	}
	p.rest = p.rest[len(word):]
	return true
}

func isNameByte(c byte) bool {
	return c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// name takes a run of name bytes.
func (p *parser) name() string {
	n := 0
	for n < len(p.rest) && isNameByte(p.rest[n]) {
		n++
	}
	name := p.rest[:n]
	p.rest = p.rest[n:]
	return name
}

func (p *parser) unexpected(want string) error {
	if p.rest == "" {
		return errEnd
	}
	near := p.rest
	if r := []rune(near); len(r) > 20 {
		near = string(r[:20])
	}
	return invalid("expected %s at '%s'", want, near)
}

// quoted takes a string in double quotes, in which \ escapes " and itself.
func (p *parser) quoted() (string, error) {
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), nil
		case c == '\\' && i+1 < len(p.rest) && (p.rest[i+1] == '"' || p.rest[i+1] == '\\'):
			i++
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", errEnd
}

// regex takes an expression between percent signs.
func (p *parser) regex() (value, error) {
	end := strings.IndexByte(p.rest[1:], '%')
	if end < 0 {
		return value{}, errEnd
	}
	text := p.rest[1 : 1+end]
	p.rest = p.rest[end+2:]
	p.regexes++
	if i := strings.IndexFunc(text, unsupportedInRegex); i >= 0 || text == "" {
		return value{}, invalid("unsupported character in regular expression '%s'", text)
	}
	// RE2 takes {,n} for text.
	re, err := regexp.Compile(strings.ReplaceAll(text, "{,", "{0,"))
	if err != nil {
		return value{}, invalid("invalid regular expression '%s'", text)
	}
	return value{regex: re}, nil
}

// unsupportedInRegex reports characters that AWS does not take in expressions.
func unsupportedInRegex(r rune) bool {
	switch {
	case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		return false
	}
	return !strings.ContainsRune(" :_#=@/;,-^$?[]{}|\\*+.", r)
}

// operator of a condition.
type operator uint8

const (
	opEqual operator = iota
	opNotEqual
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
)

func (p *parser) operator() (operator, bool) {
	for _, o := range []struct {
		text string
		op   operator
	}{
		{"!=", opNotEqual}, {"<=", opLessEqual}, {">=", opGreaterEqual}, {"<", opLess}, {">", opGreater}, {"=", opEqual},
	} {
		if p.accept(o.text) {
			return o.op, true
		}
	}
	return 0, false
}

// value is the right side of a condition, or a term.
type value struct {
	text     string
	regex    *regexp.Regexp
	any      bool // the value is *
	prefix   bool // text begins what is wanted: abc*
	suffix   bool // text ends what is wanted: *abc
	number   float64
	isNumber bool
}

// value takes the right side of a condition. stop holds the bytes that end a
// bare value, beside white space and the operators && and ||.
func (p *parser) value(op operator, stop string) (value, error) {
	p.space()
	if strings.HasPrefix(p.rest, "%") {
		if op != opEqual && op != opNotEqual {
			return value{}, p.unexpected("a number")
		}
		return p.regex()
	}
	var v value
	if strings.HasPrefix(p.rest, `"`) {
		text, err := p.quoted()
		if err != nil {
			return v, err
		}
		v = wildcards(text)
	} else {
		text := p.bare(stop)
		if text == "" {
			return v, p.unexpected("a value")
		}
		if n, err := strconv.ParseFloat(text, 64); err == nil && !strings.ContainsAny(text, "xXpP_iInN") {
			v = value{text: text, number: n, isNumber: true}
		} else {
			v = wildcards(text)
		}
	}
	if op != opEqual && op != opNotEqual && !v.isNumber {
		return v, invalid("'%s' is not a number", v.text)
	}
	return v, nil
}

func (p *parser) bare(stop string) string {
	n := 0
	for n < len(p.rest) {
		c := p.rest[n]
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' || strings.IndexByte(stop, c) >= 0 ||
			strings.HasPrefix(p.rest[n:], "&&") || strings.HasPrefix(p.rest[n:], "||") {
			break
		}
		n++
	}
	text := p.rest[:n]
	p.rest = p.rest[n:]
	return text
}

// wildcards reads the asterisks at the ends of a value.
func wildcards(text string) value {
	var v value
	if strings.Trim(text, "*") == "" && text != "" {
		return value{text: text, any: true}
	}
	v.text, v.suffix = strings.CutPrefix(text, "*")
	v.text, v.prefix = strings.CutSuffix(v.text, "*")
	return v
}

// in reports whether a term is in a message.
func (v *value) in(message string) bool {
	if v.regex != nil {
		return v.matches(message)
	}
	return strings.Contains(message, v.text)
}

// matches compares v with the text of a whole value.
func (v *value) matches(text string) bool {
	switch {
	case v.regex != nil:
		return v.regex.MatchString(strings.TrimSuffix(text, "\n"))
	case v.any:
		return true
	case v.prefix && v.suffix:
		return strings.Contains(text, v.text)
	case v.prefix:
		return strings.HasPrefix(text, v.text)
	case v.suffix:
		return strings.HasSuffix(text, v.text)
	}
	return text == v.text
}

// compare applies op to the text of a value, which is a number if it looks so.
func (v *value) compare(op operator, text string) bool {
	if !v.isNumber {
		return v.matches(text) == (op == opEqual)
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		switch op {
		case opEqual:
			return text == v.text
		case opNotEqual:
			return text != v.text
		}
		return false
	}
	return v.compareNumber(op, n)
}

func (v *value) compareNumber(op operator, n float64) bool {
	switch op {
	case opEqual:
		return n == v.number
	case opNotEqual:
		return n != v.number
	case opLess:
		return n < v.number
	case opLessEqual:
		return n <= v.number
	case opGreater:
		return n > v.number
	default:
		return n >= v.number
	}
}

// expression parses operands joined by && and ||, with parentheses, into calls
// of and, or.
func expression[T any](p *parser, operand func() (T, error), and, or func(a, b T) T) (T, error) {
	left, err := conjunction(p, operand, and, or)
	for err == nil {
		if p.space(); !p.accept("||") {
			return left, nil
		}
		var right T
		right, err = conjunction(p, operand, and, or)
		left = or(left, right)
	}
	return left, err
}

func conjunction[T any](p *parser, operand func() (T, error), and, or func(a, b T) T) (T, error) {
	left, err := factor(p, operand, and, or)
	for err == nil {
		if p.space(); !p.accept("&&") {
			return left, nil
		}
		var right T
		right, err = factor(p, operand, and, or)
		left = and(left, right)
	}
	return left, err
}

func factor[T any](p *parser, operand func() (T, error), and, or func(a, b T) T) (T, error) {
	if p.space(); !p.accept("(") {
		return operand()
	}
	inner, err := expression(p, operand, and, or)
	if err != nil {
		return inner, err
	}
	if p.space(); !p.accept(")") {
		return inner, p.unexpected("')'")
	}
	return inner, nil
}
