package pattern

import (
	"strings"
)

// delimited is a pattern of conditions on the space-delimited fields of a
// message.
type delimited struct {
	before, after []fieldTest // around the ellipsis; all are in before without one
	ellipsis      bool
}

// fieldTest is a condition on one field; nil takes any.
type fieldTest func(text string) bool

// delimitedPattern parses what follows "[".
func (p *parser) delimitedPattern() (matcher, error) {
	d := new(delimited)
	for {
		p.space()
		if p.accept("...") || p.accept("…") {
			if d.ellipsis {
				return nil, p.unexpected("one ellipsis at most, not another")
			}
			d.ellipsis = true
		} else {
			test, err := p.field()
			if err != nil {
				return nil, err
			}
			if d.ellipsis {
				d.after = append(d.after, test)
			} else {
				d.before = append(d.before, test)
			}
		}
		p.space()
		if p.accept("]") {
			break
		}
		if !p.accept(",") {
			return nil, p.unexpected("',' or ']'")
		}
	}
	if p.space(); p.rest != "" {
		return nil, p.unexpected("the end")
	}
	return d, p.checkQuotas()
}

// field parses a field: nothing, a name, or conditions on that name.
func (p *parser) field() (fieldTest, error) {
	if strings.HasPrefix(p.rest, ",") || strings.HasPrefix(p.rest, "]") {
		return nil, nil
	}
	name := ""
	return expression(p, func() (fieldTest, error) {
		p.space()
		word := p.fieldName()
		if word == "" {
			return nil, p.unexpected("a field name")
		}
		if name == "" {
			name = word
		} else if word != name {
			return nil, invalid("condition on '%s' in the place of field '%s'", word, name)
		}
		p.space()
		op, ok := p.operator()
		if !ok {
			return func(string) bool { return true }, nil
		}
		v, err := p.value(op, ",]()")
		if err != nil {
			return nil, err
		}
		return func(text string) bool { return v.compare(op, text) }, nil
	}, func(a, b fieldTest) fieldTest {
		return func(text string) bool { return a(text) && b(text) }
	}, func(a, b fieldTest) fieldTest {
		return func(text string) bool { return a(text) || b(text) }
	})
}

// fieldName takes a field's name, which may be any text without the characters
// of the language.
func (p *parser) fieldName() string {
	n := strings.IndexAny(p.rest, " \t\r\n,[](){}=!<>&|\"%*")
	if n < 0 {
		n = len(p.rest)
	}
	name := p.rest[:n]
	p.rest = p.rest[n:]
	return name
}

func (d *delimited) match(message string) bool {
	message = strings.TrimRight(message, " \t\r\n")
	if !d.ellipsis {
		return matchFields(d.before, splitFields(message, len(d.before)))
	}
	fields := splitFields(message, -1)
	if len(fields) < len(d.before)+len(d.after) {
		return false
	}
	return matchFields(d.before, fields[:len(d.before)]) &&
		matchFields(d.after, fields[len(fields)-len(d.after):])
}

func matchFields(tests []fieldTest, fields []string) bool {
	if len(fields) != len(tests) {
		return false
	}
	for i, test := range tests {
		if test != nil && !test(fields[i]) {
			return false
		}
	}
	return true
}

// splitFields splits a message at white space. What is between brackets or
// double quotes is one field. The last of n fields takes all that is left;
// n < 0 is no limit.
func splitFields(message string, n int) []string {
	var fields []string
	for {
		message = strings.TrimLeft(message, " \t\r\n")
		if message == "" {
			return fields
		}
		field, rest := cutField(message)
		if len(fields) == n-1 && strings.TrimLeft(rest, " \t\r\n") != "" {
			return append(fields, message)
		}
		fields, message = append(fields, field), rest
	}
}

func cutField(message string) (field, rest string) {
	end := byte(0)
	switch message[0] {
	case '[':
		end = ']'
	case '"':
		end = '"'
	}
	if end != 0 {
		for i := 1; i < len(message); i++ {
			if message[i] == '\\' && end == '"' {
				i++
			} else if message[i] == end {
				return message[1:i], message[i+1:]
			}
		}
	}
	if i := strings.IndexAny(message, " \t\r\n"); i >= 0 {
		return message[:i], message[i:]
	}
	return message, ""
}
