package wire

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/schema"
)

// maxViolations bounds how many broken constraints a message lists.
const maxViolations = 20

// validate checks the model's constraints, in the words of AWS: all that are
// broken, in one error.
func (c *Call) validate(in reflect.Value) error {
	v := validator{requiredOnly: c.Protocol == aws.RESTXML}
	v.structure("", c.Operation.Input, in)
	if len(v.violations) == 0 {
		return nil
	}
	code := c.Service.ValidationCode
	if code == "" {
		code = "ValidationException"
	}
	errorsText := "errors"
	if len(v.violations) == 1 {
		errorsText = "error"
	}
	return &aws.Error{Code: code, Status: 400,
		Message: fmt.Sprintf("%d validation %s detected: %s", len(v.violations), errorsText, strings.Join(v.violations, "; "))}
}

type validator struct {
	// requiredOnly is for S3, whose service checks values itself, each with an
	// error code of its own.
	requiredOnly bool
	violations   []string
}

func (v *validator) add(path, value, constraint string) {
	if len(v.violations) < maxViolations {
		v.violations = append(v.violations, fmt.Sprintf("Value%s at '%s' failed to satisfy constraint: %s", value, path, constraint))
	}
}

func (v *validator) structure(path string, s *schema.Shape, value reflect.Value) {
	for i := range s.Members {
		m := &s.Members[i]
		p := joinPath(path, m.Name)
		f, ok := present(value.Field(m.Index))
		if !ok {
			if m.Required && m.Shape.Kind != schema.Events {
				v.add(p, " null", "Member must not be null")
			}
			continue
		}
		v.value(p, m.Shape, f)
	}
}

func (v *validator) value(path string, s *schema.Shape, f reflect.Value) {
	switch s.Kind {
	case schema.Structure:
		if f.Kind() == reflect.Pointer {
			if f.IsNil() {
				v.add(path, " null", "Member must not be null")
				return
			}
			f = f.Elem()
		}
		v.structure(path, s, f)
	case schema.List:
		v.size(path, s, f.Len(), f)
		for i := range f.Len() {
			v.value(path+"."+strconv.Itoa(i+1)+".member", s.Elem.Shape, f.Index(i))
		}
	case schema.Map:
		v.size(path, s, f.Len(), f)
		for _, k := range f.MapKeys() {
			v.value(path+"."+k.String()+".key", s.Key.Shape, k)
			v.value(path+"."+k.String()+".member", s.Elem.Shape, f.MapIndex(k))
		}
	case schema.String:
		v.text(path, s, f)
	case schema.Blob:
		if f.Kind() == reflect.Slice {
			v.size(path, s, f.Len(), f)
		}
	case schema.Integer, schema.Long:
		v.number(path, s, float64(f.Int()), f)
	case schema.Double:
		v.number(path, s, f.Float(), f)
	}
}

func (v *validator) text(path string, s *schema.Shape, f reflect.Value) {
	if v.requiredOnly {
		return
	}
	if len(s.Enum) > 0 {
		if !slices.Contains(s.Enum, f.String()) {
			v.add(path, show(s, f), "Member must satisfy enum value set: ["+strings.Join(s.Enum, ", ")+"]")
		}
		return
	}
	n := utf8.RuneCountInString(f.String())
	v.size(path, s, n, f)
	if s.Pattern != "" && !pattern(s.Pattern).MatchString(f.String()) {
		v.add(path, show(s, f), "Member must satisfy regular expression pattern: "+s.Pattern)
	}
}

// size checks a length or a number of elements.
func (v *validator) size(path string, s *schema.Shape, n int, f reflect.Value) {
	if v.requiredOnly {
		return
	}
	if s.Max != nil && float64(n) > *s.Max {
		v.add(path, show(s, f), fmt.Sprintf("Member must have length less than or equal to %.0f", *s.Max))
	}
	if s.Min != nil && float64(n) < *s.Min {
		v.add(path, show(s, f), fmt.Sprintf("Member must have length greater than or equal to %.0f", *s.Min))
	}
}

func (v *validator) number(path string, s *schema.Shape, n float64, f reflect.Value) {
	if v.requiredOnly {
		return
	}
	if s.Max != nil && n > *s.Max {
		v.add(path, show(s, f), "Member must have value less than or equal to "+formatFloat(*s.Max))
	}
	if s.Min != nil && n < *s.Min {
		v.add(path, show(s, f), "Member must have value greater than or equal to "+formatFloat(*s.Min))
	}
}

// joinPath makes the path that AWS shows: names begin in lower case.
func joinPath(path, name string) string {
	r, n := utf8.DecodeRuneInString(name)
	name = string(unicode.ToLower(r)) + name[n:]
	if path == "" {
		return name
	}
	return path + "." + name
}

// show prints a value for a message, and nothing of what is secret or large.
func show(s *schema.Shape, f reflect.Value) string {
	if s.Sensitive {
		return ""
	}
	switch s.Kind {
	case schema.String:
		return " '" + clip(f.String()) + "'"
	case schema.Integer, schema.Long:
		return " '" + strconv.FormatInt(f.Int(), 10) + "'"
	case schema.Double:
		return " '" + formatFloat(f.Float()) + "'"
	case schema.List:
		if s.Elem.Shape.Kind == schema.String && !s.Elem.Shape.Sensitive {
			var items []string
			for i := range min(f.Len(), 10) {
				items = append(items, clip(f.Index(i).String()))
			}
			return " '[" + strings.Join(items, ", ") + "]'"
		}
	case schema.Timestamp:
		return " '" + formatTime(f.Interface().(time.Time), iso8601) + "'"
	}
	return ""
}

// patterns caches compiled patterns; they come from the models only.
var patterns sync.Map // string -> *regexp.Regexp

func pattern(p string) *regexp.Regexp {
	if v, ok := patterns.Load(p); ok {
		return v.(*regexp.Regexp)
	}
	re := regexp.MustCompile("^(?:" + p + ")$") // awsgen emits what compiles
	v, _ := patterns.LoadOrStore(p, re)
	return v.(*regexp.Regexp)
}
