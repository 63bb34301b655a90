package wire

import (
	"bytes"
	"encoding/xml"
	"io"
	"reflect"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/schema"
)

// xmlNode is an element of a parsed document.
type xmlNode struct {
	name     string
	attrs    []xml.Attr
	text     []byte
	children []*xmlNode
}

func malformedXML() *aws.Error {
	return &aws.Error{Code: "MalformedXML", Status: 400, Message: "The XML you provided was not well-formed or did not validate against our published schema"}
}

// parseXML parses a document. Entities are only XML's own, so nothing expands.
func parseXML(body []byte) (*xmlNode, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	var stack []*xmlNode
	var root *xmlNode
	for {
		token, err := d.Token()
		if err == io.EOF && root != nil && len(stack) == 0 {
			return root, nil
		}
		if err != nil {
			return nil, malformedXML().WithCause(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			n := &xmlNode{name: t.Name.Local, attrs: append([]xml.Attr{}, t.Attr...)}
			switch {
			case len(stack) > 0:
				parent := stack[len(stack)-1]
				parent.children = append(parent.children, n)
			case root != nil:
				return nil, malformedXML()
			default:
				root = n
			}
			if stack = append(stack, n); len(stack) > maxDepth {
				return nil, malformedXML()
			}
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(stack) > 0 {
				n := stack[len(stack)-1]
				n.text = append(n.text, t...)
			}
		}
	}
}

// decodeXML decodes a document into a structure, whatever its root's name.
func decodeXML(body []byte, s *schema.Shape, v reflect.Value) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	root, err := parseXML(body)
	if err != nil {
		return err
	}
	return xmlStructure(root, s, v)
}

func xmlStructure(n *xmlNode, s *schema.Shape, v reflect.Value) error {
	for i := range s.Members {
		m := &s.Members[i]
		if m.Location != schema.Body && m.Location != schema.Payload {
			continue
		}
		if m.XMLAttribute {
			_, local, _ := strings.Cut(":"+m.WireName(), ":")
			if j := strings.LastIndex(local, ":"); j >= 0 {
				local = local[j+1:]
			}
			for _, a := range n.attrs {
				if a.Name.Local == local {
					if err := setText(m, v.Field(m.Index), a.Value, iso8601); err != nil {
						return err
					}
				}
			}
			continue
		}
		var found []*xmlNode
		for _, child := range n.children {
			if child.name == xmlName(m) {
				found = append(found, child)
			}
		}
		if len(found) == 0 {
			continue
		}
		if err := xmlValue(found, m, v.Field(m.Index)); err != nil {
			return err
		}
	}
	return nil
}

// flattened tells whether a list's or map's elements stand in the parent.
func flattened(m *schema.Member) bool { return m.Flattened || m.Shape.Flattened }

// xmlName is the name of a member's element.
func xmlName(m *schema.Member) string {
	if m.LocationName == "" && m.Shape.Kind == schema.List && flattened(m) && m.Shape.Elem.LocationName != "" {
		return m.Shape.Elem.LocationName
	}
	return m.WireName()
}

// elementName is the name of the elements inside of a list that is not
// flattened.
func elementName(m *schema.Member) string {
	if m.LocationName != "" {
		return m.LocationName
	}
	return "member"
}

func xmlValue(found []*xmlNode, m *schema.Member, v reflect.Value) error {
	s := m.Shape
	switch s.Kind {
	case schema.Structure:
		return xmlStructure(found[0], s, target(v))
	case schema.List:
		items := found
		if !flattened(m) {
			items = nil
			for _, c := range found[0].children {
				if c.name == elementName(s.Elem) {
					items = append(items, c)
				}
			}
		}
		out := reflect.MakeSlice(v.Type(), len(items), len(items))
		for i, n := range items {
			if err := xmlValue([]*xmlNode{n}, s.Elem, out.Index(i)); err != nil {
				return err
			}
		}
		v.Set(out)
		return nil
	case schema.Map:
		entries := found
		if !flattened(m) {
			entries = found[0].children
		}
		out := reflect.MakeMap(v.Type())
		for _, e := range entries {
			value := reflect.New(v.Type().Elem()).Elem()
			var key string
			for _, c := range e.children {
				switch c.name {
				case orElse(s.Key.LocationName, "key"):
					key = string(c.text)
				case orElse(s.Elem.LocationName, "value"):
					if err := xmlValue([]*xmlNode{c}, s.Elem, value); err != nil {
						return err
					}
				}
			}
			out.SetMapIndex(reflect.ValueOf(key), value)
		}
		v.Set(out)
		return nil
	}
	if err := setText(m, v, string(found[0].text), iso8601); err != nil {
		return malformedXML().WithCause(err)
	}
	return nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func xmlNamespace(svc *aws.Service, s *schema.Shape) string {
	return orElse(s.XMLNamespace, svc.XMLNamespace)
}

// xmlDocument returns a document whose root has the members of a structure. A
// root that has the name of the structure's only scalar is that scalar, as
// S3's LocationConstraint is.
func xmlDocument(root, namespace string, s *schema.Shape, v reflect.Value) []byte {
	var x xmlWriter
	x.declare()
	if len(s.Members) == 1 && s.Members[0].WireName() == root && s.Members[0].Shape.Kind == schema.String {
		x.open(root, namespace, "")
		if f, ok := present(v.Field(s.Members[0].Index)); ok {
			x.escape(f.String())
		}
		x.close(root)
		return x.buf
	}
	x.structure(root, namespace, "", s, v)
	return x.buf
}

// xmlWriter writes XML.
type xmlWriter struct {
	buf []byte
	ec2 bool // EC2's rules: all lists in elements named item
}

func (x *xmlWriter) declare() {
	x.buf = append(x.buf, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"...)
}

func (x *xmlWriter) open(name, namespace, attrs string) {
	x.buf = append(append(x.buf, '<'), name...)
	if namespace != "" {
		x.buf = append(x.buf, ` xmlns="`...)
		x.escape(namespace)
		x.buf = append(x.buf, '"')
	}
	x.buf = append(append(x.buf, attrs...), '>')
}

func (x *xmlWriter) close(name string) {
	x.buf = append(append(append(x.buf, "</"...), name...), '>')
}

func (x *xmlWriter) text(name, s string) {
	x.open(name, "", "")
	x.escape(s)
	x.close(name)
}

// escape appends text, or the value of an attribute.
func (x *xmlWriter) escape(s string) {
	for _, r := range s {
		switch {
		case r == '&':
			x.buf = append(x.buf, "&amp;"...)
		case r == '<':
			x.buf = append(x.buf, "&lt;"...)
		case r == '>':
			x.buf = append(x.buf, "&gt;"...)
		case r == '"':
			x.buf = append(x.buf, "&quot;"...)
		case r == '\n' || r == '\r' || r == '\t':
			x.buf = append(x.buf, "&#x"...)
			x.buf = append(x.buf, "0123456789ABCDEF"[r])
			x.buf = append(x.buf, ';')
		case r < ' ' || r == 0xFFFE || r == 0xFFFF:
			x.buf = append(x.buf, "\uFFFD"...) // not allowed in XML
		default:
			x.buf = append(x.buf, string(r)...)
		}
	}
}

// structure writes an element with the members of a structure.
func (x *xmlWriter) structure(name, namespace, prefix string, s *schema.Shape, v reflect.Value) {
	var attrs xmlWriter
	if prefix != "" {
		attrs.buf = append(attrs.buf, ` xmlns:`+prefix+`="`...)
		attrs.escape(namespace)
		attrs.buf = append(attrs.buf, '"')
		namespace = ""
	}
	for i := range s.Members {
		m := &s.Members[i]
		if !m.XMLAttribute {
			continue
		}
		if f, ok := present(v.Field(m.Index)); ok {
			attrs.buf = append(attrs.buf, ' ')
			attrs.buf = append(attrs.buf, m.WireName()...)
			attrs.buf = append(attrs.buf, '=', '"')
			attrs.escape(text(m, f, iso8601))
			attrs.buf = append(attrs.buf, '"')
		}
	}
	x.open(name, namespace, string(attrs.buf))
	x.members(s, v)
	x.close(name)
}

func (x *xmlWriter) members(s *schema.Shape, v reflect.Value) {
	if !v.IsValid() || v.Kind() != reflect.Struct {
		return
	}
	for i := range s.Members {
		m := &s.Members[i]
		if m.Location != schema.Body && m.Location != schema.Payload || m.XMLAttribute {
			continue
		}
		if f, ok := present(v.Field(m.Index)); ok {
			x.value(x.memberName(m), m, f)
		}
	}
}

func (x *xmlWriter) memberName(m *schema.Member) string {
	if x.ec2 {
		return m.WireName()
	}
	return xmlName(m)
}

func (x *xmlWriter) value(name string, m *schema.Member, v reflect.Value) {
	s := m.Shape
	switch s.Kind {
	case schema.Structure:
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return
			}
			v = v.Elem()
		}
		namespace, prefix := m.XMLNamespace, m.XMLPrefix
		if namespace == "" && s.XMLPrefix != "" {
			namespace, prefix = s.XMLNamespace, s.XMLPrefix
		}
		x.structure(name, namespace, prefix, s, v)
	case schema.List:
		if flattened(m) && !x.ec2 {
			for i := range v.Len() {
				x.value(name, s.Elem, v.Index(i))
			}
			return
		}
		item := elementName(s.Elem)
		if x.ec2 {
			item = orElse(s.Elem.LocationName, "item")
		}
		x.open(name, "", "")
		for i := range v.Len() {
			x.value(item, s.Elem, v.Index(i))
		}
		x.close(name)
	case schema.Map:
		if !flattened(m) {
			x.open(name, "", "")
			defer x.close(name)
			name = "entry"
		}
		for _, key := range sortedKeys(v) {
			x.open(name, "", "")
			x.text(orElse(s.Key.LocationName, "key"), key)
			x.value(orElse(s.Elem.LocationName, "value"), s.Elem, v.MapIndex(reflect.ValueOf(key)))
			x.close(name)
		}
	default:
		x.text(name, text(m, v, iso8601))
	}
}
