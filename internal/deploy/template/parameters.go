package template

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Parameter is a parameter of a template, with its constraints.
type Parameter struct {
	Name, Type, Description string
	Default                 *string
	NoEcho                  bool

	allowed              []string
	pattern              *regexp.Regexp
	minLength, maxLength *float64
	minValue, maxValue   *float64
	explanation          string // the template's ConstraintDescription
}

func (t *Template) readParameters(parameters map[string]any, r *reader) {
	for _, name := range t.byLine(parameters, "Parameters") {
		p := Parameter{Name: name}
		for key, v := range r.object(parameters[name], "Parameters", name) {
			if err := p.set(key, v); err != nil {
				r.fail(t.Line("Parameters", name, key), "parameter %s: %v", name, err)
			}
		}
		line := t.Line("Parameters", name)
		if !logicalID.MatchString(name) {
			r.fail(line, "the name of parameter %s may have letters and digits only", name)
		}
		switch p.Type {
		case "String", "Number", "CommaDelimitedList", "List<Number>", "List<String>":
		case "":
			r.fail(line, "parameter %s needs a Type", name)
		default:
			r.fail(t.Line("Parameters", name, "Type"), "parameter %s: Lapwing does not have the type %s; it has String, Number, CommaDelimitedList, List<Number>", name, p.Type)
		}
		t.Parameters = append(t.Parameters, p)
	}
}

func (p *Parameter) set(key string, v any) (err error) {
	text := plain(v)
	switch key {
	case "Type":
		p.Type = text
	case "Description":
		p.Description = text
	case "ConstraintDescription":
		p.explanation = text
	case "Default":
		p.Default = &text
	case "NoEcho":
		p.NoEcho, err = strconv.ParseBool(text)
	case "AllowedValues":
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("AllowedValues must be a list")
		}
		for _, one := range list {
			p.allowed = append(p.allowed, plain(one))
		}
	case "AllowedPattern":
		if p.pattern, err = regexp.Compile(`^(?:` + text + `)$`); err != nil {
			return fmt.Errorf("AllowedPattern is not a regular expression that Lapwing can use: %w", err)
		}
	case "MinLength":
		p.minLength, err = number(text)
	case "MaxLength":
		p.maxLength, err = number(text)
	case "MinValue":
		p.minValue, err = number(text)
	case "MaxValue":
		p.maxValue, err = number(text)
	default:
		return fmt.Errorf("%s is not part of a parameter", key)
	}
	return err
}

func number(s string) (*float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil {
		return nil, fmt.Errorf("%q is not a number", s)
	}
	return &f, nil
}

// plain prints a scalar as CloudFormation does where a text is wanted.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case Secret:
		return string(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// value checks what was given for the parameter and returns its value: a text, a
// Secret, or a list of them.
func (p *Parameter) value(given string) (any, error) {
	items := []string{given}
	list := p.Type == "CommaDelimitedList" || strings.HasPrefix(p.Type, "List<")
	if list {
		items = strings.Split(given, ",")
		for i := range items {
			items[i] = strings.TrimSpace(items[i])
		}
	}
	values := make([]any, len(items))
	for i, one := range items {
		if err := p.check(one); err != nil {
			if p.explanation != "" {
				err = fmt.Errorf("%w (%s)", err, p.explanation)
			}
			return nil, fmt.Errorf("parameter %s %w", p.Name, err)
		}
		values[i] = one
		if p.NoEcho {
			values[i] = Secret(one)
		}
	}
	if list {
		return values, nil
	}
	return values[0], nil
}

// check holds one value against the constraints. A value is not repeated: it may
// be secret.
func (p *Parameter) check(s string) error {
	n := float64(utf8.RuneCountInString(s))
	switch {
	case len(p.allowed) > 0 && !slices.Contains(p.allowed, s):
		return fmt.Errorf("must be one of %s", strings.Join(p.allowed, ", "))
	case p.pattern != nil && !p.pattern.MatchString(s):
		return fmt.Errorf("must match the pattern %s", strings.TrimSuffix(strings.TrimPrefix(p.pattern.String(), "^(?:"), ")$"))
	case p.minLength != nil && n < *p.minLength:
		return fmt.Errorf("must have at least %v characters", *p.minLength)
	case p.maxLength != nil && n > *p.maxLength:
		return fmt.Errorf("must have at most %v characters", *p.maxLength)
	}
	if p.Type != "Number" && p.Type != "List<Number>" {
		return nil
	}
	f, err := number(s)
	switch {
	case err != nil:
		return fmt.Errorf("must be a number")
	case p.minValue != nil && *f < *p.minValue:
		return fmt.Errorf("must be at least %v", *p.minValue)
	case p.maxValue != nil && *f > *p.maxValue:
		return fmt.Errorf("must be at most %v", *p.maxValue)
	}
	return nil
}
