package template

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Secret is a text that came from a NoEcho parameter. It must not be shown nor
// kept.
type Secret string

// Pending is a value that depends on a resource: an intrinsic function, and where
// it stands.
type Pending struct {
	Expr any
	path []string
}

// Ref is a reference to a resource; what it stands for depends on its type.
func Ref(id string) Pending { return Pending{Expr: map[string]any{"Ref": id}} }

// GetAtt is an attribute of a resource.
func GetAtt(id, attribute string) Pending {
	return Pending{Expr: map[string]any{"Fn::GetAtt": []any{id, attribute}}}
}

// noValue is what AWS::NoValue stands for: what holds it goes away.
type noValue struct{}

// Environment is where a template is deployed.
type Environment struct {
	AccountID, Region, StackName, StackID string
}

// Lookup finds what Ref (with an empty attribute) or Fn::GetAtt of a resource
// stand for. known is false if the resource does not have it yet.
type Lookup func(id, attribute string) (value any, known bool, err error)

// Scope is what the functions of a template are evaluated in: the values of its
// parameters, and its conditions.
type Scope struct {
	t          *Template
	values     map[string]any // of parameters and pseudo parameters
	conditions map[string]bool
	evaluating []string // conditions, to find a circle
}

// NewScope checks what was given for the parameters, and evaluates the
// conditions. previous has values of an earlier deployment, which go before the
// template's defaults. What is wrong comes back as Problems.
func (t *Template) NewScope(env Environment, given, previous map[string]string) (*Scope, error) {
	s := &Scope{t: t, conditions: map[string]bool{}, values: map[string]any{
		"AWS::AccountId": env.AccountID, "AWS::Region": env.Region, "AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com",
		"AWS::StackName": env.StackName, "AWS::StackId": env.StackID, "AWS::NotificationARNs": []any{}, "AWS::NoValue": noValue{},
	}}
	var problems Problems
	for i := range t.Parameters {
		p := &t.Parameters[i]
		text, ok := given[p.Name]
		if !ok {
			text, ok = previous[p.Name]
		}
		if !ok && p.Default != nil {
			text, ok = *p.Default, true
		}
		line := t.Line("Parameters", p.Name)
		if !ok {
			problems = append(problems, Problem{line, fmt.Sprintf("parameter %s has no value: give one with --parameter %s=…", p.Name, p.Name)})
			continue
		}
		v, err := p.value(text)
		if err != nil {
			problems = append(problems, Problem{line, err.Error()})
		}
		s.values[p.Name] = v
	}
	for name := range given {
		if !slices.ContainsFunc(t.Parameters, func(p Parameter) bool { return p.Name == name }) {
			problems = append(problems, Problem{0, "the template has no parameter " + name})
		}
	}
	if len(problems) > 0 {
		return nil, problems.OrNil()
	}
	e := evaluation{Scope: s}
	for name := range t.conditions {
		e.condition(name, []string{"Conditions", name})
	}
	return s, e.problems.OrNil()
}

// Parameter returns the value of a parameter as it was given, and whether it may
// be kept: that of a NoEcho parameter may not.
func (s *Scope) Parameter(name string) (value string, keep bool) {
	switch v := s.values[name].(type) {
	case string:
		return v, true
	case []any:
		items := make([]string, len(v))
		for i, one := range v {
			if _, secret := one.(Secret); secret {
				return "", false
			}
			items[i] = plain(one)
		}
		return strings.Join(items, ","), true
	}
	return "", false
}

// Holds tells whether a condition of the template holds; the empty one does.
func (s *Scope) Holds(condition string) bool {
	return condition == "" || s.conditions[condition]
}

// Evaluate evaluates the intrinsic functions in a value that stands at a place of
// the template. What depends on resources is Pending in what it returns. What is
// wrong comes back as Problems.
func (s *Scope) Evaluate(v any, path ...string) (any, error) {
	e := evaluation{Scope: s}
	v = e.value(v, path)
	return drop(v), e.problems.OrNil()
}

// Settle replaces what is Pending in an evaluated value by what lookup knows.
// What lookup does not know yet stays Pending.
func (s *Scope) Settle(v any, lookup Lookup) (any, error) {
	e := evaluation{Scope: s, lookup: lookup}
	v = e.settle(v)
	return drop(v), e.problems.OrNil()
}

func (e *evaluation) settle(v any) any {
	switch v := v.(type) {
	case Pending:
		return e.value(v.Expr, v.path)
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, one := range v {
			m[k] = e.settle(one)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, one := range v {
			list[i] = e.settle(one)
		}
		return list
	}
	return v
}

// drop leaves out what AWS::NoValue stands for.
func drop(v any) any {
	switch v := v.(type) {
	case noValue:
		return nil
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, one := range v {
			if _, none := one.(noValue); !none {
				m[k] = drop(one)
			}
		}
		return m
	case []any:
		list := make([]any, 0, len(v))
		for _, one := range v {
			if _, none := one.(noValue); !none {
				list = append(list, drop(one))
			}
		}
		return list
	}
	return v
}

// References lists what is Pending in v refers to, each once: Name or
// Name.Attribute, of resources and of parameters.
func References(v any) []string {
	found := map[string]bool{}
	references(v, false, found)
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func references(v any, inside bool, found map[string]bool) {
	switch v := v.(type) {
	case Pending:
		references(v.Expr, true, found)
	case []any:
		for _, one := range v {
			references(one, inside, found)
		}
	case map[string]any:
		name, arg, ok := call(v)
		if !inside || !ok {
			for _, one := range v {
				references(one, inside, found)
			}
			return
		}
		switch name {
		case "Ref":
			found[plain(arg)] = true
			return
		case "Fn::GetAtt":
			id, attr := attribute(arg)
			found[id+"."+plain(attr)] = true
		case "Fn::Sub":
			text, own := arg, map[string]any{}
			if list, ok := arg.([]any); ok && len(list) == 2 {
				text = list[0]
				own, _ = list[1].(map[string]any)
			}
			for _, part := range parseSub(plain(text)) {
				if part.name != "" && own[part.name] == nil {
					found[part.name] = true
				}
			}
		}
		references(arg, inside, found)
	}
}

// call takes a mapping for an intrinsic function, if it is one.
func call(m map[string]any) (name string, arg any, ok bool) {
	if len(m) != 1 {
		return "", nil, false
	}
	for name, arg = range m {
	}
	return name, arg, name == "Ref" || name == "Condition" && isText(arg) || strings.HasPrefix(name, "Fn::")
}

func isText(v any) bool {
	_, ok := v.(string)
	return ok
}

// attribute splits the argument of Fn::GetAtt.
func attribute(arg any) (id string, name any) {
	switch arg := arg.(type) {
	case string:
		id, rest, _ := strings.Cut(arg, ".")
		return id, rest
	case []any:
		if len(arg) == 2 {
			return plain(arg[0]), arg[1]
		}
	}
	return "", nil
}

// MarshalJSON refuses to write a secret: whoever writes must say how.
func (Secret) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("a NoEcho parameter's value may not be written")
}

// MarshalJSON refuses to write what is not known.
func (p Pending) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("the value of %v is not known yet", p.Expr)
}

var (
	_ json.Marshaler = Secret("")
	_ json.Marshaler = Pending{}
)
