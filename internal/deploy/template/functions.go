package template

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// evaluation is one walk through a value.
type evaluation struct {
	*Scope
	lookup   Lookup // nil: every resource is Pending
	problems Problems
}

func (e *evaluation) fail(path []string, format string, args ...any) any {
	e.problems = append(e.problems, Problem{e.t.Line(path...), fmt.Sprintf(format, args...)})
	return nil
}

// below returns a path one step further; its caller's is not written to.
func below(path []string, step string) []string { return append(slices.Clone(path), step) }

// value evaluates v, which stands at path. What depends on a resource that is not
// known comes back as Pending, with the whole function as it was written.
func (e *evaluation) value(v any, path []string) any {
	switch v := v.(type) {
	case Pending:
		return e.value(v.Expr, v.path)
	case []any:
		list := make([]any, len(v))
		for i, one := range v {
			list[i] = e.value(one, below(path, strconv.Itoa(i)))
		}
		return list
	case map[string]any:
		name, arg, ok := call(v)
		if !ok || name == "Condition" {
			m := make(map[string]any, len(v))
			for k, one := range v {
				m[k] = e.value(one, below(path, k))
			}
			return m
		}
		result, known := e.function(name, arg, below(path, name))
		if !known {
			return Pending{Expr: v, path: path}
		}
		return result
	}
	return v
}

// function evaluates one function. known is false where its value depends on a
// resource that is not known.
func (e *evaluation) function(name string, arg any, path []string) (result any, known bool) {
	switch name {
	case "Ref":
		return e.reference(plain(arg), "", path)
	case "Fn::GetAtt":
		id, attr := attribute(arg)
		attr, isText := e.value(attr, path).(string)
		if id == "" || !isText || attr == "" {
			return e.fail(path, "Fn::GetAtt takes a resource and an attribute: !GetAtt Resource.Attribute"), true
		}
		return e.reference(id, attr.(string), path)
	case "Fn::Sub":
		return e.sub(arg, path)
	case "Fn::If":
		list, ok := arg.([]any)
		if !ok || len(list) != 3 || !isText(list[0]) {
			return e.fail(path, "Fn::If takes a condition's name and two values"), true
		}
		branch := 2
		if e.condition(list[0].(string), path) {
			branch = 1
		}
		return e.value(list[branch], below(path, strconv.Itoa(branch))), true
	case "Fn::And", "Fn::Or", "Fn::Not", "Fn::Equals":
		return e.fail(path, "%s belongs into Conditions", name), true
	}
	f, ok := simple[name]
	if !ok {
		return e.fail(path, "%s", refused(name)), true
	}
	before := len(e.problems)
	arg = e.value(arg, path)
	if len(e.problems) > before {
		return nil, true
	}
	if pending(arg, f.shallow) {
		return nil, false
	}
	result, err := f.eval(e.Scope, drop(arg))
	if err != nil {
		return e.fail(path, "%s %v", name, err), true
	}
	return result, true
}

// refused says why a function is not evaluated.
func refused(name string) string {
	switch name {
	case "Fn::ImportValue":
		return "Lapwing does not have Fn::ImportValue: there are no exports of other stacks; use a parameter"
	case "Fn::Transform":
		return "Lapwing does not have Fn::Transform: it runs no macros"
	case "Fn::GetAZs":
		return "Lapwing does not have Fn::GetAZs: there are no availability zones"
	}
	return "Lapwing does not have the function " + name
}

// pending tells whether something is not known in v; with shallow, in v itself or
// in what it lists.
func pending(v any, shallow bool) bool {
	switch v := v.(type) {
	case Pending:
		return true
	case []any:
		return slices.ContainsFunc(v, func(one any) bool {
			if _, ok := one.(Pending); ok || !shallow {
				return ok || pending(one, shallow)
			}
			return false
		})
	case map[string]any:
		for _, one := range v {
			if pending(one, shallow) {
				return true
			}
		}
	}
	return false
}

// reference finds what a name stands for.
func (e *evaluation) reference(name, attr string, path []string) (any, bool) {
	if v, ok := e.values[name]; ok && attr == "" {
		return v, true
	}
	i := slices.IndexFunc(e.t.Resources, func(r Resource) bool { return r.ID == name })
	if i >= 0 && !e.Holds(e.t.Resources[i].Condition) {
		return e.fail(path, "there is no resource %s: its condition %s does not hold", name, e.t.Resources[i].Condition), true
	}
	if e.lookup == nil {
		// Names that the SAM transform makes are known only later, when
		// every reference is looked up.
		if i < 0 && !e.t.Serverless {
			return e.fail(path, "there is no parameter or resource %s", name), true
		}
		return nil, false
	}
	v, known, err := e.lookup(name, attr)
	if err != nil {
		return e.fail(path, "%v", err), true
	}
	return v, known
}

// subPart is a piece of Fn::Sub: a text, or a name in ${}.
type subPart struct{ text, name string }

// parseSub takes a text of Fn::Sub apart. ${!Name} stands for ${Name}.
func parseSub(s string) (parts []subPart) {
	for {
		before, rest, found := strings.Cut(s, "${")
		name, after, closed := strings.Cut(rest, "}")
		if !found || !closed {
			return append(parts, subPart{text: s})
		}
		parts = append(parts, subPart{text: before})
		if literal, ok := strings.CutPrefix(name, "!"); ok {
			parts = append(parts, subPart{text: "${" + literal + "}"})
		} else {
			parts = append(parts, subPart{name: strings.TrimSpace(name)})
		}
		s = after
	}
}

func (e *evaluation) sub(arg any, path []string) (any, bool) {
	own := map[string]any{}
	if list, ok := arg.([]any); ok && len(list) == 2 {
		m, isMap := e.value(list[1], below(path, "1")).(map[string]any)
		if !isMap {
			return e.fail(path, "Fn::Sub takes a text, or a text and a mapping of names to values"), true
		}
		arg, own = list[0], m
	}
	text, ok := arg.(string)
	if !ok {
		return e.fail(path, "Fn::Sub takes a text, or a text and a mapping of names to values"), true
	}
	parts, allKnown := []any{}, true
	for _, part := range parseSub(text) {
		if part.name == "" {
			parts = append(parts, part.text)
			continue
		}
		v, isOwn := own[part.name]
		known := isOwn
		if !isOwn {
			id, attr, _ := strings.Cut(part.name, ".")
			v, known = e.reference(id, attr, path)
		}
		if _, still := v.(Pending); still || !known {
			allKnown = false
			continue
		}
		parts = append(parts, v)
	}
	if !allKnown {
		return nil, false
	}
	v, err := concat(parts, "")
	if err != nil {
		return e.fail(path, "Fn::Sub %v", err), true
	}
	return v, true
}

// concat joins scalars; the result is secret if one of them is.
func concat(list []any, delimiter string) (any, error) {
	texts, secret := make([]string, len(list)), false
	for i, one := range list {
		switch one.(type) {
		case map[string]any, []any, noValue:
			return nil, fmt.Errorf("takes texts, not lists or mappings")
		}
		_, s := one.(Secret)
		secret = secret || s
		texts[i] = plain(one)
	}
	joined := strings.Join(texts, delimiter)
	if secret {
		return Secret(joined), nil
	}
	return joined, nil
}

// simple are the functions whose arguments are evaluated first.
var simple = map[string]struct {
	eval func(s *Scope, arg any) (any, error)
	// shallow functions can do with arguments that hold something unknown
	// deeper inside.
	shallow bool
}{
	"Fn::Join": {eval: func(_ *Scope, arg any) (any, error) {
		pair, ok := arg.([]any)
		if !ok || len(pair) != 2 {
			return nil, fmt.Errorf("takes a delimiter and a list")
		}
		list, ok := pair[1].([]any)
		if !ok {
			return nil, fmt.Errorf("takes a delimiter and a list")
		}
		return concat(list, plain(pair[0]))
	}},
	"Fn::Split": {eval: func(_ *Scope, arg any) (any, error) {
		pair, ok := arg.([]any)
		if !ok || len(pair) != 2 || plain(pair[0]) == "" {
			return nil, fmt.Errorf("takes a delimiter and a text")
		}
		_, secret := pair[1].(Secret)
		parts := strings.Split(plain(pair[1]), plain(pair[0]))
		list := make([]any, len(parts))
		for i, part := range parts {
			if list[i] = part; secret {
				list[i] = Secret(part)
			}
		}
		return list, nil
	}},
	"Fn::Select": {shallow: true, eval: func(_ *Scope, arg any) (any, error) {
		pair, ok := arg.([]any)
		if !ok || len(pair) != 2 {
			return nil, fmt.Errorf("takes an index and a list")
		}
		list, isList := pair[1].([]any)
		i, err := strconv.Atoi(plain(pair[0]))
		if !isList || err != nil || i < 0 || i >= len(list) {
			return nil, fmt.Errorf("has no item %s of a list of %d", plain(pair[0]), len(list))
		}
		return list[i], nil
	}},
	"Fn::Base64": {eval: func(_ *Scope, arg any) (any, error) {
		v, err := concat([]any{arg}, "")
		if secret, ok := v.(Secret); ok {
			return Secret(base64.StdEncoding.EncodeToString([]byte(secret))), nil
		}
		text, _ := v.(string)
		return base64.StdEncoding.EncodeToString([]byte(text)), err
	}},
	"Fn::FindInMap": {eval: func(s *Scope, arg any) (any, error) {
		list, ok := arg.([]any)
		if !ok || len(list) != 3 {
			return nil, fmt.Errorf("takes a mapping and two keys")
		}
		at, _ := any(s.t.mappings).(map[string]any)
		for i, key := range list {
			next, found := at[plain(key)]
			if !found {
				return nil, fmt.Errorf("finds no %q in Mappings", plain(key))
			}
			if i == 2 {
				return next, nil
			}
			at, _ = next.(map[string]any)
		}
		return nil, nil
	}},
}

// condition evaluates a condition of the template, once.
func (e *evaluation) condition(name string, path []string) bool {
	if v, done := e.conditions[name]; done {
		return v
	}
	expr, ok := e.t.conditions[name]
	if !ok {
		e.fail(path, "there is no condition %s", name)
		return false
	}
	if slices.Contains(e.evaluating, name) {
		e.fail(path, "condition %s depends on itself", name)
		return false
	}
	e.evaluating = append(e.evaluating, name)
	v := e.test(expr, []string{"Conditions", name})
	e.evaluating = e.evaluating[:len(e.evaluating)-1]
	e.conditions[name] = v
	return v
}

// test evaluates what may stand in Conditions.
func (e *evaluation) test(expr any, path []string) bool {
	m, _ := expr.(map[string]any)
	name, arg, ok := call(m)
	list, _ := arg.([]any)
	switch {
	case !ok:
	case name == "Condition":
		return e.condition(plain(arg), path)
	case name == "Fn::Equals" && len(list) == 2:
		a, b := drop(e.value(list[0], path)), drop(e.value(list[1], path))
		if pending(a, false) || pending(b, false) {
			e.fail(path, "a condition cannot depend on a resource")
			return false
		}
		return same(a, b)
	case name == "Fn::Not" && len(list) == 1:
		return !e.test(list[0], path)
	case (name == "Fn::And" || name == "Fn::Or") && len(list) >= 2 && len(list) <= 10:
		result := name == "Fn::And"
		for _, one := range list {
			if v := e.test(one, path); v != result {
				return v
			}
		}
		return result
	}
	e.fail(path, "a condition is made of Fn::Equals (2 values), Fn::Not (1), Fn::And and Fn::Or (2 to 10), and Condition")
	return false
}

// same compares as CloudFormation does: scalars as texts.
func same(a, b any) bool {
	_, mapA := a.(map[string]any)
	_, listA := a.([]any)
	_, mapB := b.(map[string]any)
	_, listB := b.([]any)
	if mapA || listA || mapB || listB {
		return reflect.DeepEqual(a, b)
	}
	return plain(a) == plain(b)
}
