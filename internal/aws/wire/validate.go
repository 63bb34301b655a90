package wire

import (
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/schema"
)

// maxViolations bounds how many broken constraints a message lists.
const maxViolations = 20

// notNull is the constraint that a required member breaks by its absence.
const notNull = "Member must not be null"

// validate checks the model's constraints, in the words of AWS: all that are
// broken, in one error.
func (c *Call) validate(in reflect.Value) error {
	v := validator{requiredOnly: c.Service.ChecksValues}
	v.structure(c.Operation.Input, in)
	n := len(v.violations)
	if n == 0 {
		return nil
	}
	plural := "s"
	if n == 1 {
		plural = ""
	}
	return &aws.Error{Code: orElse(c.Service.ValidationCode, "ValidationException"), Status: 400,
		Message: fmt.Sprintf("%d validation error%s detected: %s", n, plural, strings.Join(v.violations, "; "))}
}

// validator walks a value. It joins the path only where a constraint is broken.
type validator struct {
	requiredOnly bool // aws.Service.ChecksValues
	path         []string
	violations   []string
}

// add adds a broken constraint of the value at the path; shown is how the
// message shows the value, as show returns it.
func (v *validator) add(shown, constraint string) {
	if len(v.violations) == maxViolations {
		return
	}
	v.violations = append(v.violations, "Value"+shown+" at '"+v.at()+"' failed to satisfy constraint: "+constraint)
}

// at returns the path as AWS shows it: the names of members begin in lower case.
func (v *validator) at() string {
	names := make([]string, len(v.path))
	for i, name := range v.path {
		r, n := utf8.DecodeRuneInString(name)
		names[i] = string(unicode.ToLower(r)) + name[n:]
	}
	return strings.Join(names, ".")
}

func (v *validator) structure(s *schema.Shape, value reflect.Value) {
	for i := range s.Members {
		m := &s.Members[i]
		f, ok := present(value.Field(m.Index))
		if !ok && !m.Required || m.Shape.Kind == schema.Events {
			continue
		}
		v.path = append(v.path, m.Name)
		if ok {
			v.value(m.Shape, f)
		} else {
			v.add(" null", notNull)
		}
		v.path = v.path[:len(v.path)-1]
	}
}

func (v *validator) value(s *schema.Shape, f reflect.Value) {
	switch s.Kind {
	case schema.Structure:
		if f.Kind() == reflect.Pointer {
			if f.IsNil() {
				v.add(" null", notNull)
				return
			}
			f = f.Elem()
		}
		v.structure(s, f)
	case schema.List:
		v.check(s, f)
		v.list(s, f)
	case schema.Map:
		v.check(s, f)
		v.mapping(s, f)
	default:
		v.check(s, f)
	}
}

// check checks the constraints of the value itself.
func (v *validator) check(s *schema.Shape, f reflect.Value) {
	if v.requiredOnly {
		return
	}
	for constraint := range broken(s, f) {
		v.add(show(s, f), constraint)
	}
}

// list checks the elements. Those that are scalars have one message for the
// list, with all that is asked of an element.
func (v *validator) list(s *schema.Shape, f reflect.Value) {
	if scalar(s.Elem.Shape) {
		for i := range f.Len() {
			if !v.requiredOnly && violates(s.Elem.Shape, f.Index(i)) {
				v.add(show(s, f), "Member must satisfy constraint: ["+strings.Join(append(constraints(s.Elem.Shape), notNull), ", ")+"]")
				return
			}
		}
		return
	}
	for i := range f.Len() {
		v.path = append(v.path, strconv.Itoa(i+1), "member")
		v.value(s.Elem.Shape, f.Index(i))
		v.path = v.path[:len(v.path)-2]
	}
}

// mapping checks keys and values, in the manner of list.
func (v *validator) mapping(s *schema.Shape, f reflect.Value) {
	keys, values := false, false
	for _, key := range sortedKeys(f) {
		k := reflect.ValueOf(key)
		value := f.MapIndex(k)
		keys = keys || violates(s.Key.Shape, k)
		if scalar(s.Elem.Shape) {
			values = values || violates(s.Elem.Shape, value)
			continue
		}
		v.path = append(v.path, key, "member")
		v.value(s.Elem.Shape, value)
		v.path = v.path[:len(v.path)-2]
	}
	if keys && !v.requiredOnly {
		v.add(show(s, f), "Map keys must satisfy constraint: ["+strings.Join(constraints(s.Key.Shape), ", ")+"]")
	}
	if values && !v.requiredOnly {
		v.add(show(s, f), "Map value must satisfy constraint: ["+strings.Join(constraints(s.Elem.Shape), ", ")+"]")
	}
}

func scalar(s *schema.Shape) bool {
	return s.Kind != schema.Structure && s.Kind != schema.List && s.Kind != schema.Map
}

// broken yields the texts of the rules that a value breaks.
func broken(s *schema.Shape, f reflect.Value) iter.Seq[string] {
	return func(yield func(string) bool) {
		if f.Kind() == reflect.Interface {
			return
		}
		for _, r := range s.Rules() {
			if !r.Keeps(f) && !yield(r.Text) {
				return
			}
		}
	}
}

func violates(s *schema.Shape, f reflect.Value) bool {
	for range broken(s, f) {
		return true
	}
	return false
}

// constraints returns the texts of all rules of a shape.
func constraints(s *schema.Shape) []string {
	var texts []string
	for _, r := range s.Rules() {
		texts = append(texts, r.Text)
	}
	return texts
}

// show prints a value for a message, and nothing of what is secret or large.
func show(s *schema.Shape, f reflect.Value) string {
	if s.Sensitive {
		return ""
	}
	switch s.Kind {
	case schema.List:
		if !printable(s.Elem.Shape) {
			return ""
		}
		var items []string
		for i := range min(f.Len(), maxShown) {
			items = append(items, clip(text(s.Elem, f.Index(i), iso8601)))
		}
		return " '[" + strings.Join(items, ", ") + "]'"
	case schema.Map:
		if !printable(s.Key.Shape) || !printable(s.Elem.Shape) {
			return ""
		}
		var items []string
		for _, key := range sortedKeys(f)[:min(f.Len(), maxShown)] {
			items = append(items, clip(key)+"="+clip(text(s.Elem, f.MapIndex(reflect.ValueOf(key)), iso8601)))
		}
		return " '{" + strings.Join(items, ", ") + "}'"
	}
	if !printable(s) {
		return ""
	}
	return " '" + clip(text(&schema.Member{Shape: s}, f, iso8601)) + "'"
}

// maxShown bounds how many elements of a list or map a message shows.
const maxShown = 10

func printable(s *schema.Shape) bool {
	return scalar(s) && !s.Sensitive && s.Kind != schema.Blob && s.Kind != schema.Events
}
