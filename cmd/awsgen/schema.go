package main

import (
	"fmt"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws/schema"
)

// schemaFile describes the shapes for the codecs. They refer to each other in
// circles, so they are filled in by init.
func (g *generator) schemaFile() string {
	var b strings.Builder
	b.WriteString("const (\n")
	n := 0
	for _, name := range g.order {
		if g.isException(name) {
			continue
		}
		if n == 0 {
			fmt.Fprintf(&b, "%s = iota\n", shapeConst(name))
		} else {
			fmt.Fprintf(&b, "%s\n", shapeConst(name))
		}
		n++
	}
	fmt.Fprintf(&b, ")\n\nvar shapes [%d]schema.Shape\n\nfunc init() {\n", n)
	for _, name := range g.order {
		if !g.isException(name) {
			g.describe(&b, name)
		}
	}
	b.WriteString("}\n")
	return g.packageClause() + imports(b.String()) + b.String()
}

func shapeConst(name string) string { return "shape" + upperFirst(name) }

var kinds = map[string]string{
	"structure": "Structure", "list": "List", "map": "Map", "string": "String", "character": "String",
	"integer": "Integer", "long": "Long", "float": "Double", "double": "Double", "boolean": "Boolean",
	"timestamp": "Timestamp", "blob": "Blob",
}

// describe writes the assignments that fill in one shape.
func (g *generator) describe(b *strings.Builder, name string) {
	s := g.model.Shapes[name]
	kind := kinds[s.Type]
	if s.EventStream {
		kind = "Events"
	}
	v := "s" // each shape in its own block
	fmt.Fprintf(b, "{\n%s := &shapes[%s]\n%s.Name, %s.Kind = %q, schema.%s\n", v, shapeConst(name), v, v, name, kind)
	for _, f := range shapeFields(s, slices.Contains(g.list.OpenEnums, name)) {
		fmt.Fprintf(b, "%s.%s\n", v, f)
	}
	if s.Member != nil {
		fmt.Fprintf(b, "%s.Elem = &%s\n", v, g.memberLiteral("member", 0, s.Member, s))
	}
	if s.Value != nil {
		fmt.Fprintf(b, "%s.Key, %s.Elem = &%s, &%s\n", v, v, g.memberLiteral("key", 0, s.Key, s), g.memberLiteral("value", 0, s.Value, s))
	}
	if len(s.Members) > 0 {
		fmt.Fprintf(b, "%s.Members = []schema.Member{\n", v)
		index := 0
		for i := range s.Members {
			if g.isException(s.Members[i].Shape) {
				continue
			}
			fmt.Fprintf(b, "%s,\n", strings.TrimPrefix(g.memberLiteral(s.Members[i].Name, index, &s.Members[i].reference, s), "schema.Member"))
			index++
		}
		b.WriteString("}\n")
	}
	b.WriteString("}\n")
}

func shapeFields(s *shape, openEnum bool) []string {
	var f []string
	add := func(ok bool, format string, args ...any) {
		if ok {
			f = append(f, fmt.Sprintf(format, args...))
		}
	}
	add(len(s.Enum) > 0 && !openEnum, "Enum = []string{%s}", quoted(s.Enum))
	_, err := schema.CompilePattern(s.Pattern)
	add(s.Pattern != "" && err == nil, "Pattern = %q", s.Pattern)
	if s.Min != nil {
		add(true, "Min = schema.Float(%v)", *s.Min)
	}
	if s.Max != nil {
		add(true, "Max = schema.Float(%v)", *s.Max)
	}
	add(s.Sensitive, "Sensitive = true")
	add(s.Flattened, "Flattened = true")
	add(s.Streaming, "Streaming = true")
	add(s.TimestampFormat != "", "TimestampFormat = %q", s.TimestampFormat)
	add(s.LocationName != "", "XMLName = %q", s.LocationName)
	if s.XMLNamespace != nil {
		add(true, "XMLNamespace, s.XMLPrefix = %q, %q", s.XMLNamespace.URI, s.XMLNamespace.Prefix)
	}
	return f
}

var locations = map[string]string{
	"header": "Header", "headers": "Headers", "uri": "URI", "querystring": "Query", "statusCode": "StatusCode",
}

// memberLiteral describes a member of the structure s, or its element.
func (g *generator) memberLiteral(name string, index int, ref *reference, s *shape) string {
	var b strings.Builder
	fmt.Fprintf(&b, "schema.Member{Name: %q, Index: %d, Shape: &shapes[%s]", name, index, shapeConst(ref.Shape))
	add := func(ok bool, format string, args ...any) {
		if ok {
			fmt.Fprintf(&b, ", "+format, args...)
		}
	}
	for _, r := range s.Required {
		add(r == name, "Required: true")
	}
	location := locations[ref.Location]
	if s.Payload == name && name != "" {
		location = "Payload"
	}
	add(location != "", "Location: schema.%s", location)
	add(ref.LocationName != "" && ref.LocationName != name, "LocationName: %q", ref.LocationName)
	add(ref.QueryName != "", "QueryName: %q", ref.QueryName)
	add(ref.Flattened, "Flattened: true")
	add(ref.XMLAttribute, "XMLAttribute: true")
	if ref.XMLNamespace != nil {
		add(true, "XMLNamespace: %q, XMLPrefix: %q", ref.XMLNamespace.URI, ref.XMLNamespace.Prefix)
	}
	add(ref.TimestampFormat != "", "TimestampFormat: %q", ref.TimestampFormat)
	add(ref.EventPayload, "EventPayload: true")
	add(ref.EventHeader, "EventHeader: true")
	add(ref.IdempotencyToken, "Token: true")
	return b.String() + "}"
}
