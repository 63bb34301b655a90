package template

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// sam is the transform of SAM templates.
const sam = "AWS::Serverless-2016-10-31"

// read takes the sections of a template out of its values.
func (t *Template) read(top map[string]any, r *reader) {
	for name, section := range top {
		line := t.lines[name]
		switch name {
		case "AWSTemplateFormatVersion":
			if section != "2010-09-09" {
				r.fail(line, "AWSTemplateFormatVersion must be 2010-09-09")
			}
		case "Description":
			t.Description, _ = section.(string)
		case "Metadata", "Resources":
		case "Transform":
			t.readTransform(section, r)
		case "Globals":
			t.Globals = r.object(section, name)
		case "Mappings":
			t.mappings = r.object(section, name)
		case "Conditions":
			t.conditions = r.object(section, name)
		case "Parameters":
			t.readParameters(r.object(section, name), r)
		case "Outputs":
			t.readOutputs(r.object(section, name), r)
		default:
			r.fail(line, "Lapwing does not have the template section %s", name)
		}
	}
	resources, ok := top["Resources"].(map[string]any)
	if !ok || len(resources) == 0 {
		r.fail(t.lines["Resources"], "a template needs Resources")
	}
	if len(resources) > maxResources {
		r.fail(t.lines["Resources"], "a template may have %d resources at most, and this one has %d", maxResources, len(resources))
		return
	}
	for _, id := range t.byLine(resources, "Resources") {
		t.readResource(id, r.object(resources[id], "Resources", id), r)
	}
	if t.Globals != nil && !t.Serverless {
		r.fail(t.lines["Globals"], "Globals needs Transform: %s", sam)
	}
}

// object returns a value as a mapping, which it must be.
func (r *reader) object(v any, path ...string) map[string]any {
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		r.fail(r.lines[strings.Join(path, "/")], "%s must be a mapping", strings.Join(path, "."))
	}
	return m
}

// byLine returns the keys of a section in the order of the file.
func (t *Template) byLine(m map[string]any, section string) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmpLine(t.lines[join(section, a)], t.lines[join(section, b)], a, b)
	})
}

// cmpLine orders two names by line; JSON may have all of them in one.
func cmpLine(la, lb int, a, b string) int {
	if la != lb {
		return la - lb
	}
	return strings.Compare(a, b)
}

func (t *Template) readTransform(v any, r *reader) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, one := range list {
		if one != sam {
			r.fail(t.lines["Transform"], "Lapwing does not have the transform %v; it has %s", one, sam)
			continue
		}
		t.Serverless = true
	}
}

var logicalID = regexp.MustCompile(`^[A-Za-z0-9]{1,255}$`)

func (t *Template) readResource(id string, m map[string]any, r *reader) {
	line := t.lines["Resources/"+id]
	if m == nil {
		return
	}
	if !logicalID.MatchString(id) {
		r.fail(line, "the name of resource %s may have letters and digits only", id)
	}
	res := Resource{ID: id}
	for key, v := range m {
		at := t.Line("Resources", id, key)
		text, _ := v.(string)
		switch key {
		case "Type":
			res.Type = text
		case "Properties":
			res.Properties = r.object(v, "Resources", id, key)
		case "Metadata":
			res.Metadata = r.object(v, "Resources", id, key)
		case "Condition":
			res.Condition = text
		case "DependsOn":
			res.DependsOn = texts(v)
		case "DeletionPolicy", "UpdateReplacePolicy":
			switch {
			case text == "Retain" && key == "DeletionPolicy", text == "RetainExceptOnCreate" && key == "DeletionPolicy":
				res.Retain = true
			case text == "Retain":
				res.RetainReplaced = true
			case text != "Delete":
				r.fail(at, "%s of %s: Lapwing has Delete and Retain", key, id)
			}
		default:
			r.fail(at, "Lapwing does not have the attribute %s of resource %s", key, id)
		}
	}
	if res.Type == "" {
		r.fail(line, "resource %s needs a Type", id)
	}
	if res.Properties == nil {
		res.Properties = map[string]any{}
	}
	t.Resources = append(t.Resources, res)
}

func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var list []string
		for _, one := range v {
			list = append(list, fmt.Sprint(one))
		}
		return list
	}
	return nil
}

func (t *Template) readOutputs(outputs map[string]any, r *reader) {
	for _, name := range t.byLine(outputs, "Outputs") {
		o := Output{Name: name}
		for key, v := range r.object(outputs[name], "Outputs", name) {
			text, _ := v.(string)
			switch key {
			case "Value":
				o.Value = v
			case "Description":
				o.Description = text
			case "Condition":
				o.Condition = text
			default:
				r.fail(t.Line("Outputs", name, key), "Lapwing does not have %s of output %s: nothing can import it", key, name)
			}
		}
		if o.Value == nil {
			r.fail(t.Line("Outputs", name), "output %s needs a Value", name)
		}
		t.Outputs = append(t.Outputs, o)
	}
}
