package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/deploy/template"
)

// Desired is what a stack is to become.
type Desired struct {
	Template  *template.Template // for lines of problems
	Scope     *template.Scope
	Resources []template.Resource
	// Names maps further names that references may use to resources' (see
	// package sam).
	Names map[string]string
}

// Action is what is done with a resource.
type Action string

// The actions. Forget leaves a resource as it is, and takes it out of the stack.
const (
	Create  Action = "create"
	Update  Action = "update"
	Replace Action = "replace"
	Remove  Action = "remove"
	Forget  Action = "keep, out of the stack"
	none    Action = ""
)

// Change is what a deployment does with one resource.
type Change struct {
	ID, Type   string
	PhysicalID string // "" if it is not known before
	Action     Action
	Properties []Difference
}

// Difference is a property that changes. Old or New is nil where it is not there;
// New is a template.Pending where it is known only when resources are there.
type Difference struct {
	Path     string // with dots
	Old, New any
}

// Plan is how a state becomes what is desired.
type Plan struct {
	Changes []Change

	desired *Desired
	state   *State
	order   []template.Resource
}

// Empty tells that there is nothing to do.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// NewPlan compares a state with what is desired. What cannot be deployed comes
// back as template.Problems, all of it.
func NewPlan(state *State, desired *Desired) (*Plan, error) {
	p := &Plan{desired: desired, state: state}
	if err := desired.Check(); err != nil {
		return nil, err
	}
	var err error
	if p.order, err = desired.sort(); err != nil {
		return nil, err
	}
	moving := map[string]bool{} // what gets new attributes
	for _, r := range p.order {
		settled, err := desired.Scope.Settle(r.Properties, p.lookup(moving))
		if err != nil {
			return nil, err
		}
		change := p.compare(r, settled.(map[string]any))
		if change.Action == Create || change.Action == Replace {
			moving[r.ID] = true
		}
		if change.Action != none {
			p.Changes = append(p.Changes, change)
		}
	}
	for _, old := range slices.Backward(state.Resources) {
		if !old.Replaced && p.desired.find(old.ID) != nil {
			continue
		}
		action := Remove
		if old.Retain && !old.Replaced || old.RetainReplaced && old.Replaced {
			action = Forget
		}
		p.Changes = append(p.Changes, Change{ID: old.ID, Type: old.Type, PhysicalID: old.PhysicalID, Action: action})
	}
	return p, nil
}

// find returns the resource of a name, nil if there is none.
func (d *Desired) find(id string) *template.Resource {
	i := slices.IndexFunc(d.Resources, func(r template.Resource) bool { return r.ID == id })
	if i < 0 {
		return nil
	}
	return &d.Resources[i]
}

// name resolves a reference to the name of a resource.
func (d *Desired) name(id, attribute string) (string, string) {
	if to, ok := d.Names[id+"."+attribute]; ok {
		return to, ""
	}
	if to, ok := d.Names[id]; ok {
		return to, attribute
	}
	return id, attribute
}

// resource finds what a reference is to, and checks that it can have the attribute.
func (d *Desired) resource(id, attribute string) (r *template.Resource, attr string, err error) {
	name, attr := d.name(id, attribute)
	if r = d.find(name); r == nil {
		return nil, "", fmt.Errorf("there is no parameter or resource %s", id)
	}
	k, known := kinds[r.Type]
	if attr != "" && known && !slices.Contains(k.attributes, attr) {
		return nil, "", fmt.Errorf("%s (%s) has no attribute %s", id, r.Type, attr)
	}
	return r, attr, nil
}

// lookup finds what references stand for in the state; those to moving ones are
// not known.
func (p *Plan) lookup(moving map[string]bool) template.Lookup {
	return func(id, attribute string) (any, bool, error) {
		r, attr, err := p.desired.resource(id, attribute)
		if err != nil {
			return nil, false, err
		}
		old := p.state.find(r.ID)
		if old == nil || moving[r.ID] || len(old.Attributes) == 0 {
			return nil, false, nil
		}
		return old.Attributes[attr], true, nil
	}
}

// compare finds what is to be done with a resource.
func (p *Plan) compare(r template.Resource, settled map[string]any) Change {
	k := kinds[r.Type]
	wanted := p.state.record(settled).(map[string]any)
	c := Change{ID: r.ID, Type: r.Type}
	old := p.state.find(r.ID)
	if old == nil {
		c.Action, c.Properties = Create, differences(nil, wanted)
		return c
	}
	c.PhysicalID = old.PhysicalID
	c.Properties = differences(old.Properties, wanted)
	switch {
	case old.Type != r.Type:
		c.Action = Replace
	case old.Unfinished && len(old.Attributes) == 0:
		c.Action, c.Properties = Create, differences(nil, wanted)
	case len(c.Properties) == 0 && !old.Unfinished:
		return c
	case slices.ContainsFunc(c.Properties, func(d Difference) bool { return k.replaces(top(d.Path)) }):
		c.Action = Replace
	default:
		c.Action = Update
	}
	return c
}

// top is the property that a path begins with.
func top(path string) string {
	name, _, _ := strings.Cut(path, ".")
	return name
}

// differences lists the leaves in which two property trees differ.
func differences(old, wanted map[string]any) []Difference {
	var list []Difference
	walk("", old, wanted, &list)
	return list
}

func walk(path string, old, wanted any, list *[]Difference) {
	o, oldMap := old.(map[string]any)
	w, wantedMap := wanted.(map[string]any)
	if (oldMap || old == nil) && (wantedMap || wanted == nil) && len(o)+len(w) > 0 {
		names := slices.AppendSeq(slices.Collect(maps.Keys(o)), maps.Keys(w))
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			below := name
			if path != "" {
				below = path + "." + name
			}
			walk(below, o[name], w[name], list)
		}
		return
	}
	if path != "" && !reflect.DeepEqual(old, wanted) {
		*list = append(*list, Difference{path, old, wanted})
	}
}

// Check refuses what no plan can be made of: types and properties that are not
// there, names that are taken twice, references to nothing and in circles. All of
// it comes back as template.Problems.
func (d *Desired) Check() error {
	var problems template.Problems
	add := func(text string, path ...string) {
		problems = append(problems, template.Problem{Line: d.line(path...), Text: text})
	}
	exists := func(id, attribute string) (any, bool, error) {
		_, _, err := d.resource(id, attribute)
		return nil, false, err
	}
	settle := func(v any, err error, path ...string) {
		if err == nil {
			_, err = d.Scope.Settle(v, exists)
		}
		if several, ok := errors.AsType[template.Problems](err); ok {
			problems = append(problems, several...)
		} else if err != nil {
			add(err.Error(), path...)
		}
	}
	seen := map[string]bool{}
	for _, r := range d.Resources {
		if seen[r.ID] {
			add("there are two resources "+r.ID, "Resources", r.ID)
		}
		seen[r.ID] = true
		if k, ok := kinds[r.Type]; !ok {
			add(unknownType(r.Type, r.ID), "Resources", r.ID, "Type")
		} else {
			for _, f := range k.problems(r.Properties) {
				add(fmt.Sprintf(f.text, r.ID), "Resources", r.ID, "Properties", f.property)
			}
		}
		settle(r.Properties, nil, "Resources", r.ID)
	}
	if d.Template != nil {
		for _, o := range d.Template.Outputs {
			if d.Scope.Holds(o.Condition) {
				v, err := d.Scope.Evaluate(o.Value, "Outputs", o.Name, "Value")
				settle(v, err, "Outputs", o.Name)
			}
		}
	}
	_, err := d.sort()
	if circles, ok := errors.AsType[template.Problems](err); ok {
		problems = append(problems, circles...)
	}
	return problems.OrNil()
}

// left tells whether a resource is in the template and its condition does not hold.
func (d *Desired) left(id string) bool {
	return d.Template != nil && slices.ContainsFunc(d.Template.Resources, func(r template.Resource) bool { return r.ID == id })
}

func (d *Desired) line(path ...string) int {
	if d.Template == nil {
		return 0
	}
	return d.Template.Line(path...)
}

// sort orders the resources so that each comes after those it refers to, and
// otherwise as in the template.
func (d *Desired) sort() (order []template.Resource, err error) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var problems template.Problems
	var visit func(r *template.Resource)
	visit = func(r *template.Resource) {
		if state[r.ID] == done {
			return
		}
		line := d.line("Resources", r.ID)
		if state[r.ID] == visiting {
			problems = append(problems, template.Problem{Line: line, Text: fmt.Sprintf("resource %s depends on itself, through others", r.ID)})
			return
		}
		state[r.ID] = visiting
		for _, name := range d.needs(r) {
			if other := d.find(name); other != nil {
				visit(other)
			}
		}
		for _, name := range r.DependsOn {
			to, _ := d.name(name, "")
			if d.find(to) == nil && !d.left(name) {
				problems = append(problems, template.Problem{Line: line, Text: fmt.Sprintf("%s depends on %s, which is not there", r.ID, name)})
			}
		}
		state[r.ID] = done
		order = append(order, *r)
	}
	for i := range d.Resources {
		visit(&d.Resources[i])
	}
	return order, problems.OrNil()
}

// needs lists the resources that must be there before r.
func (d *Desired) needs(r *template.Resource) []string {
	var list []string
	for _, reference := range slices.Concat(template.References(r.Properties), r.DependsOn) {
		id, attribute, _ := strings.Cut(reference, ".")
		name, _ := d.name(id, attribute)
		list = append(list, name)
	}
	return list
}

// Show prints a value of a Difference for people: JSON, without secrets.
func Show(v any) string {
	switch v := v.(type) {
	case template.Pending:
		return "(known after deployment)"
	case string:
		if strings.HasPrefix(v, secretPrefix) {
			return "****"
		}
		b, err := json.Marshal(v)
		if err != nil {
			return v
		}
		return string(b)
	case map[string]any:
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, k+": "+Show(v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		parts := make([]string, len(v))
		for i, one := range v {
			parts[i] = Show(one)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return fmt.Sprint(v)
}
