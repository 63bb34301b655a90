// Package sam turns the resources of AWS SAM templates into those that
// CloudFormation has: a function with its role, version, alias and URL, a layer.
// Resources of other types pass through.
//
// The rules and the names of what is generated are those of the SAM specification
// ("AWS SAM resources and properties", "Generated CloudFormation resources").
package sam

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/deploy/template"
)

// The resource types that are turned into others.
const (
	functionType = "AWS::Serverless::Function"
	layerType    = "AWS::Serverless::LayerVersion"
)

// Code is code that a template names by a path.
type Code struct {
	Resource              string // whose code it is
	Path                  string // as the template has it
	Runtime, Architecture string
	Handler               string
	// BuildMethod and BuildProperties are of the resource's Metadata.
	BuildMethod     string
	BuildProperties map[string]any
	Layer           bool
	Line            int // of the path in the template
}

// Options are what the templates' own text does not say.
type Options struct {
	// Package makes a package of code: a value for what reads the resources. It
	// marshals to JSON that is the same for the same content.
	Package func(Code) (any, error)
	// ManagedPolicy finds the ARN of an AWS managed policy by its name.
	ManagedPolicy func(name string) (arn string, ok bool)
}

// Expansion is a template with CloudFormation's resource types only.
type Expansion struct {
	Resources []template.Resource
	// Names maps names that a template may use to names of resources: a layer's
	// to that of its version, Function.Alias to that of the alias.
	Names map[string]string
}

// Expand evaluates the resources of a template whose conditions hold, and turns
// those of SAM into CloudFormation's. All that is wrong comes back as
// template.Problems.
func Expand(t *template.Template, scope *template.Scope, opts Options) (*Expansion, error) {
	x := &expander{t: t, scope: scope, opts: opts, out: &Expansion{Names: map[string]string{}}}
	x.checkGlobals()
	for _, r := range t.Resources {
		if !scope.Holds(r.Condition) {
			continue
		}
		r.Properties = x.withGlobals(r)
		v, err := scope.Evaluate(r.Properties, "Resources", r.ID, "Properties")
		if err != nil {
			x.add(err, 0)
			continue
		}
		props, ok := v.(map[string]any)
		if !ok {
			x.fail(t.Line("Resources", r.ID, "Properties"), "Properties of %s must be a mapping that is written out", r.ID)
			continue
		}
		r.Properties = props
		switch {
		case r.Type == functionType && t.Serverless:
			x.function(r)
		case r.Type == layerType && t.Serverless:
			x.layer(r)
		default:
			x.plain(r)
		}
	}
	return x.out, x.problems.OrNil()
}

type expander struct {
	t        *template.Template
	scope    *template.Scope
	opts     Options
	out      *Expansion
	problems template.Problems
}

func (x *expander) fail(line int, format string, args ...any) {
	x.problems = append(x.problems, template.Problem{Line: line, Text: fmt.Sprintf(format, args...)})
}

// add adds an error that was found at a line.
func (x *expander) add(err error, line int) {
	if several, ok := err.(template.Problems); ok {
		x.problems = append(x.problems, several...)
	} else {
		x.fail(line, "%v", err)
	}
}

func (x *expander) emit(r template.Resource) { x.out.Resources = append(x.out.Resources, r) }

// property returns the line of a property, which may come from Globals.
func (x *expander) property(r template.Resource, name string) int {
	if _, own := x.ownProperties(r.ID)[name]; own {
		return x.t.Line("Resources", r.ID, "Properties", name)
	}
	if global, ok := x.t.Globals[section(r.Type)].(map[string]any); ok && global[name] != nil {
		return x.t.Line("Globals", section(r.Type), name)
	}
	return x.t.Line("Resources", r.ID)
}

func (x *expander) ownProperties(id string) map[string]any {
	for _, r := range x.t.Resources {
		if r.ID == id {
			return r.Properties
		}
	}
	return nil
}

// plain passes a resource of CloudFormation through. Code that it names by a path
// is packaged, as `aws cloudformation package` does.
func (x *expander) plain(r template.Resource) {
	for typ, property := range map[string]string{"AWS::Lambda::Function": "Code", "AWS::Lambda::LayerVersion": "Content"} {
		if path, ok := r.Properties[property].(string); ok && r.Type == typ {
			r.Properties[property] = x.code(r, property, path)
		}
	}
	x.emit(r)
}

// code is the Code or Content of a function or layer whose template says where the
// code is: an S3 URI, or a path.
func (x *expander) code(r template.Resource, property, uri string) map[string]any {
	if rest, ok := strings.CutPrefix(uri, "s3://"); ok {
		bucket, key, _ := strings.Cut(rest, "/")
		return map[string]any{"S3Bucket": bucket, "S3Key": key}
	}
	c := Code{Resource: r.ID, Path: uri, Layer: strings.HasSuffix(r.Type, "LayerVersion"), Line: x.property(r, property)}
	c.Runtime, _ = r.Properties["Runtime"].(string)
	c.Handler, _ = r.Properties["Handler"].(string)
	if list, ok := r.Properties["Architectures"].([]any); ok && len(list) == 1 {
		c.Architecture, _ = list[0].(string)
	}
	c.BuildMethod, _ = r.Metadata["BuildMethod"].(string)
	c.BuildProperties, _ = r.Metadata["BuildProperties"].(map[string]any)
	v, err := x.opts.Package(c)
	if err != nil {
		x.add(err, c.Line)
		return nil
	}
	return map[string]any{"Package": v}
}

// location is the Code or Content of a CodeUri or ContentUri.
func (x *expander) location(r template.Resource, property string) map[string]any {
	switch v := r.Properties[property].(type) {
	case string:
		return x.code(r, property, v)
	case map[string]any:
		m := map[string]any{}
		for from, to := range map[string]string{"Bucket": "S3Bucket", "Key": "S3Key", "Version": "S3ObjectVersion"} {
			if one, ok := v[from]; ok {
				m[to] = one
			}
		}
		if len(m) == len(v) && m["S3Bucket"] != nil && m["S3Key"] != nil {
			return m
		}
	}
	x.fail(x.property(r, property), "%s of %s must be a path, an S3 URI, or Bucket and Key", property, r.ID)
	return nil
}

// suffix is what makes a name of what a value holds: ten digits of its hash.
func suffix(v any) string {
	b, err := json.Marshal(hashable(v))
	if err != nil {
		b = fmt.Append(nil, v) // never: hashable has made JSON of it
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])[:10]
}

// hashable replaces what has no JSON form: what is pending by the expression,
// which names a resource, and secrets by their hash.
func hashable(v any) any {
	switch v := v.(type) {
	case template.Pending:
		return hashable(v.Expr)
	case template.Secret:
		sum := sha256.Sum256([]byte(v))
		return hex.EncodeToString(sum[:])
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, one := range v {
			m[k] = hashable(one)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, one := range v {
			list[i] = hashable(one)
		}
		return list
	}
	return v
}

// layer turns a SAM layer into a layer version, whose name in the stack changes
// with what it holds: a new version is made beside the old one, which stays
// unless RetentionPolicy is Delete.
func (x *expander) layer(r template.Resource) {
	props := map[string]any{"LayerName": r.ID}
	for name, v := range r.Properties {
		switch name {
		case "LayerName", "Description", "CompatibleRuntimes", "CompatibleArchitectures", "LicenseInfo":
			props[name] = v
		case "ContentUri":
			props["Content"] = x.location(r, name)
		case "RetentionPolicy":
			text, _ := v.(string)
			switch strings.ToLower(text) {
			case "retain":
				r.Retain = true
			case "delete":
				r.Retain = false
			default:
				x.fail(x.property(r, name), "RetentionPolicy of %s must be Retain or Delete", r.ID)
			}
		default:
			x.fail(x.property(r, name), "Lapwing does not have the property %s of %s", name, r.Type)
		}
	}
	if r.Properties["ContentUri"] == nil {
		x.fail(x.t.Line("Resources", r.ID), "%s needs a ContentUri", r.ID)
	}
	if _, said := r.Properties["RetentionPolicy"]; !said {
		r.Retain = true
	}
	id := r.ID + suffix(props)
	x.out.Names[r.ID] = id
	x.emit(template.Resource{ID: id, Type: "AWS::Lambda::LayerVersion", Properties: props, DependsOn: r.DependsOn, Retain: r.Retain, RetainReplaced: r.Retain})
}

func section(typ string) string {
	switch typ {
	case functionType:
		return "Function"
	case layerType:
		return "LayerVersion"
	}
	return ""
}

// notGlobal lists the properties of a function that Globals cannot have.
var notGlobal = []string{"Role", "Policies", "FunctionName", "Events", "InlineCode", "ImageUri", "PackageType", "ImageConfig"}

func (x *expander) checkGlobals() {
	for name, v := range x.t.Globals {
		props, ok := v.(map[string]any)
		if !ok || name != "Function" && name != "LayerVersion" {
			x.fail(x.t.Line("Globals", name), "Lapwing has Globals of Function and LayerVersion, not of %s", name)
			continue
		}
		for property := range props {
			if name == "Function" && slices.Contains(notGlobal, property) || name == "LayerVersion" && property != "PublishLambdaVersion" {
				x.fail(x.t.Line("Globals", name, property), "%s cannot be in Globals of %s", property, name)
			}
		}
	}
}

// withGlobals returns the properties of a resource merged with Globals.
func (x *expander) withGlobals(r template.Resource) map[string]any {
	global, ok := x.t.Globals[section(r.Type)].(map[string]any)
	if !ok {
		return r.Properties
	}
	return merge(global, r.Properties).(map[string]any)
}

// merge merges a value of Globals with a resource's own: mappings by key, lists
// one after the other, and otherwise the own value goes first (SAM specification,
// "Globals section").
func merge(global, own any) any {
	switch g := global.(type) {
	case map[string]any:
		o, ok := own.(map[string]any)
		if !ok || isFunction(g) || isFunction(o) {
			return own
		}
		m := maps.Clone(g)
		for k, v := range o {
			if m[k] == nil {
				m[k] = v
			} else {
				m[k] = merge(m[k], v)
			}
		}
		return m
	case []any:
		if o, ok := own.([]any); ok {
			return slices.Concat(g, o)
		}
	}
	return own
}

func isFunction(m map[string]any) bool {
	if len(m) != 1 {
		return false
	}
	for k := range m {
		return k == "Ref" || strings.HasPrefix(k, "Fn::")
	}
	return false
}
