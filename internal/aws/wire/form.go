package wire

import (
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/schema"
)

const (
	maxFields  = 10000 // of a form
	maxElement = 10000 // highest number of a list's element
)

// formNode is a part of a form: Tags.member.1.Key=x is a path of nodes.
type formNode struct {
	value    string
	set      bool
	children map[string]*formNode
}

func (n *formNode) child(name string) *formNode {
	if n == nil {
		return nil
	}
	return n.children[name]
}

// readForm reads the form of a request in one of the Query protocols: the body
// of a POST, before the parameters of the URL.
func readForm(r *http.Request) (*formNode, error) {
	raw := r.URL.RawQuery
	if r.Method == http.MethodPost && r.Body != nil {
		b, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
		if err != nil {
			if e, ok := err.(*aws.Error); ok {
				return nil, e
			}
			return nil, (&aws.Error{Code: "IncompleteBody", Status: 400, Message: "The request body terminated unexpectedly."}).WithCause(err)
		}
		if isGzip(r) {
			if b, err = gunzip(b, maxForm); err != nil {
				return nil, (&aws.Error{Code: "MalformedInput", Status: 400, Message: "The request body is not valid gzip."}).WithCause(err)
			}
		}
		if len(b) > maxForm {
			return nil, &aws.Error{Code: "RequestEntityTooLarge", Status: 413, Message: "Request must be smaller than " + strconv.Itoa(maxForm) + " bytes."}
		}
		if raw != "" {
			b = append(b, '&')
		}
		raw = string(b) + raw
	}
	return parseForm(raw)
}

func parseForm(raw string) (*formNode, error) {
	malformed := &aws.Error{Code: "MalformedQueryString", Status: 400, Message: "The query string contains a syntax error."}
	if strings.Count(raw, "&") >= maxFields {
		return nil, malformed
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, malformed.WithCause(err)
	}
	root := &formNode{}
	for key, v := range values {
		if strings.Count(key, ".") > 2*maxDepth {
			return nil, malformed
		}
		n := root
		for part := range strings.SplitSeq(key, ".") {
			if n.children == nil {
				n.children = map[string]*formNode{}
			}
			next := n.children[part]
			if next == nil {
				next = &formNode{}
				n.children[part] = next
			}
			n = next
		}
		n.value, n.set = v[0], true
	}
	return root, nil
}

// elements returns the numbered children in order.
func (n *formNode) elements() ([]*formNode, error) {
	type numbered struct {
		i int
		n *formNode
	}
	var list []numbered
	for name, child := range n.children {
		i, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if i < 1 || i > maxElement {
			return nil, &aws.Error{Code: "MalformedQueryString", Status: 400, Message: "The number of a list's element is out of range: " + clip(name)}
		}
		list = append(list, numbered{i, child})
	}
	slices.SortFunc(list, func(a, b numbered) int { return a.i - b.i })
	out := make([]*formNode, len(list))
	for i, e := range list {
		out[i] = e.n
	}
	return out, nil
}

// formDecoder decodes forms by the rules of Query or EC2 Query.
type formDecoder struct {
	ec2 bool
}

// name is the member's name in a form.
func (d formDecoder) name(m *schema.Member) string {
	if !d.ec2 {
		return xmlName(m)
	}
	if m.QueryName != "" {
		return m.QueryName
	}
	name := m.WireName()
	return strings.ToUpper(name[:1]) + name[1:]
}

func (d formDecoder) structure(n *formNode, s *schema.Shape, v reflect.Value, depth int) error {
	if depth > maxDepth {
		return &aws.Error{Code: "MalformedQueryString", Status: 400, Message: "The request is nested too deeply."}
	}
	for i := range s.Members {
		m := &s.Members[i]
		child := n.child(d.name(m))
		if child == nil {
			continue
		}
		if err := d.value(child, m, v.Field(m.Index), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (d formDecoder) value(n *formNode, m *schema.Member, v reflect.Value, depth int) error {
	s := m.Shape
	switch s.Kind {
	case schema.Structure:
		return d.structure(n, s, target(v), depth)
	case schema.List:
		if !d.ec2 && !flattened(m) && n.children != nil {
			if inner := n.child(elementName(s.Elem)); inner != nil {
				n = inner
			}
		}
		items, err := n.elements()
		if err != nil {
			return err
		}
		if len(items) == 0 && n.set && n.value != "" {
			return &aws.Error{Code: "MalformedInput", Status: 400, Message: "Unexpected value for the list " + m.Name}
		}
		out := reflect.MakeSlice(v.Type(), len(items), len(items))
		for i, item := range items {
			if err := d.value(item, s.Elem, out.Index(i), depth+1); err != nil {
				return err
			}
		}
		v.Set(out)
		return nil
	case schema.Map:
		return d.mapping(n, m, v, depth)
	}
	if !n.set {
		return nil
	}
	if n.value == "" && s.Kind != schema.String && s.Kind != schema.Blob {
		return nil
	}
	if err := setText(m, v, n.value, iso8601); err != nil {
		return &aws.Error{Code: "MalformedInput", Status: 400, Message: err.(*aws.Error).Message}
	}
	return nil
}

func (d formDecoder) mapping(n *formNode, m *schema.Member, v reflect.Value, depth int) error {
	s := m.Shape
	if !flattened(m) {
		if inner := n.child("entry"); inner != nil {
			n = inner
		}
	}
	entries, err := n.elements()
	if err != nil {
		return err
	}
	out := reflect.MakeMap(v.Type())
	for _, e := range entries {
		key := e.child(orElse(s.Key.LocationName, "key"))
		if key == nil {
			return &aws.Error{Code: "MalformedInput", Status: 400, Message: "An entry of " + m.Name + " has no key"}
		}
		value := reflect.New(v.Type().Elem()).Elem()
		if child := e.child(orElse(s.Elem.LocationName, "value")); child != nil {
			if err := d.value(child, s.Elem, value, depth+1); err != nil {
				return err
			}
		}
		out.SetMapIndex(reflect.ValueOf(key.value), value)
	}
	v.Set(out)
	return nil
}
