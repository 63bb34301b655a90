// Package template reads AWS CloudFormation and SAM templates, in YAML or JSON,
// and evaluates their parameters, conditions and intrinsic functions.
//
// A template becomes a tree of map[string]any, []any, string, int64, float64,
// bool and nil; short tags (!Ref) become their long forms. What is evaluated
// holds three more kinds of value: Secret, from a NoEcho parameter, Pending,
// which depends on a resource that is not there yet, and whatever leaves a caller
// puts in.
//
// What a template may say is in the CloudFormation User Guide, "Template anatomy"
// and "Intrinsic function reference".
package template

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of a template. Bytes is CloudFormation's limit of a template in S3, and
// Resources that of a stack; the others keep hostile input small.
const (
	maxBytes     = 1 << 20
	maxResources = 500
	maxDepth     = 100
	maxValues    = 100_000  // after aliases are written out
	maxPaths     = 64 << 20 // bytes of the paths to all values
)

// Template is a template as it was written, with short tags in their long forms
// and nothing evaluated.
type Template struct {
	Description string
	// Serverless tells of the transform AWS::Serverless-2016-10-31.
	Serverless bool
	Globals    map[string]any
	Parameters []Parameter
	Resources  []Resource // in the order of the file
	Outputs    []Output   // in the order of the file

	mappings, conditions map[string]any
	lines                map[string]int
}

// Resource is a resource of a template.
type Resource struct {
	ID, Type   string
	Properties map[string]any
	Metadata   map[string]any
	DependsOn  []string
	Condition  string
	// Retain and RetainReplaced tell of a DeletionPolicy and an
	// UpdateReplacePolicy that keep what is there. CloudFormation's other values
	// (Snapshot) are of resource types that nothing here makes.
	Retain, RetainReplaced bool
}

// Output is an output of a template.
type Output struct {
	Name, Description, Condition string
	Value                        any
}

// Problem is something that is wrong with a template.
type Problem struct {
	Line int // 0 if it is not about a place in the template
	Text string
}

// Problems are all that is wrong with a template.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.Text
		if one.Line > 0 {
			lines[i] = fmt.Sprintf("line %d: %s", one.Line, one.Text)
		}
	}
	return strings.Join(lines, "\n")
}

// OrNil returns the problems as an error in the order of their lines, nil if
// there are none.
func (p Problems) OrNil() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b Problem) int { return a.Line - b.Line })
	return slices.CompactFunc(p, func(a, b Problem) bool { return a == b })
}

// Parse reads a template. What it refuses, it refuses with Problems.
func Parse(b []byte) (*Template, error) {
	if len(b) > maxBytes {
		return nil, fmt.Errorf("a template may have %d bytes at most, and this one has %d", maxBytes, len(b))
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("not valid YAML or JSON: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) == 0 {
		return nil, errors.New("the template is empty")
	}
	r := reader{lines: map[string]int{}}
	root := r.value(doc.Content[0], "", 0)
	if err := r.problems.OrNil(); err != nil {
		return nil, err
	}
	top, ok := root.(map[string]any)
	if !ok {
		return nil, errors.New("a template is a mapping with the key Resources")
	}
	t := &Template{lines: r.lines}
	t.read(top, &r)
	return t, r.problems.OrNil()
}

// Line returns the line of a place in the template, or of the closest place
// around it, 0 if there is none.
func (t *Template) Line(path ...string) int {
	for n := len(path); n > 0; n-- {
		if line := t.lines[strings.Join(path[:n], "/")]; line > 0 {
			return line
		}
	}
	return 0
}

// reader turns YAML nodes into values.
type reader struct {
	lines    map[string]int
	problems Problems
	values   int
	paths    int // bytes
}

func (r *reader) fail(line int, format string, args ...any) {
	r.problems = append(r.problems, Problem{line, fmt.Sprintf(format, args...)})
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "/" + key
}

func (r *reader) value(n *yaml.Node, path string, depth int) any {
	r.values++
	r.paths += len(path)
	if r.values > maxValues || depth > maxDepth || r.paths > maxPaths {
		if len(r.problems) == 0 {
			r.fail(n.Line, "the template holds too much: at most %d values, %d deep", maxValues, maxDepth)
		}
		return nil
	}
	if _, known := r.lines[path]; !known {
		r.lines[path] = n.Line
	}
	if n.Kind == yaml.AliasNode {
		return r.value(n.Alias, path, depth+1)
	}
	if name, ok := strings.CutPrefix(n.Tag, "!"); ok && !strings.HasPrefix(name, "!") {
		return r.short(n, name, path, depth)
	}
	switch n.Kind {
	case yaml.MappingNode:
		return r.mapping(n, path, depth)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			list[i] = r.value(c, join(path, strconv.Itoa(i)), depth+1)
		}
		return list
	}
	return scalar(n)
}

func (r *reader) mapping(n *yaml.Node, path string, depth int) map[string]any {
	m := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			r.fail(k.Line, "a key must be a text")
			continue
		}
		if k.Tag == "!!merge" {
			r.fail(k.Line, "YAML's merge key << is not part of a template; Globals and Mappings are for what is common")
			continue
		}
		if _, twice := m[k.Value]; twice {
			r.fail(k.Line, "%s is there twice", k.Value)
			continue
		}
		r.lines[join(path, k.Value)] = k.Line
		m[k.Value] = r.value(v, join(path, k.Value), depth+1)
	}
	return m
}

// functions lists the intrinsic functions that have short tags. Those which are
// not evaluated are refused by name when they are (see functions.go).
var functions = []string{"And", "Base64", "Cidr", "Equals", "FindInMap", "GetAZs", "GetAtt", "If", "ImportValue", "Join",
	"Length", "Not", "Or", "Select", "Split", "Sub", "ToJsonString", "Transform"}

// short turns a short tag into its long form.
func (r *reader) short(n *yaml.Node, name, path string, depth int) any {
	long := "Fn::" + name
	if name == "Ref" || name == "Condition" {
		long = name
	} else if !slices.Contains(functions, name) {
		r.fail(n.Line, "!%s is not an intrinsic function", name)
		return nil
	}
	plain := *n
	plain.Tag = ""
	if n.Kind == yaml.ScalarNode {
		plain.Tag = "!!str"
	}
	return map[string]any{long: r.value(&plain, path, depth+1)}
}

var (
	decimal  = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	fraction = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
)

// scalar is a value as people mean it in a template: a date, an account id with a
// leading zero and a number in another notation are texts.
func scalar(n *yaml.Node) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int":
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil && decimal.MatchString(n.Value) {
			return i
		}
	case "!!float":
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil && !math.IsInf(f, 0) && fraction.MatchString(n.Value) {
			return f
		}
	}
	return n.Value
}
