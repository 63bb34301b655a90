package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"lapwing.dev/lapwing/internal/aws/schema"
)

// decodeJSON decodes a JSON document into a structure.
func decodeJSON(body []byte, s *schema.Shape, v reflect.Value) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return serialization("Could not parse request body into json: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return serialization("Could not parse request body into json: data after the document")
	}
	return treeDecoder{}.structure(tree, s, v, "", 0)
}

// treeDecoder decodes the generic value of a JSON or CBOR document: what package
// json or cbor makes of one.
type treeDecoder struct{}

func (d treeDecoder) structure(tree any, s *schema.Shape, v reflect.Value, path string, depth int) error {
	object, ok := tree.(map[string]any)
	if !ok {
		return serialization("Expected an object%s", at(path))
	}
	if depth > maxDepth {
		return serialization("The document is nested too deeply")
	}
	for name, value := range object {
		m := s.Member(name)
		if m == nil || value == nil {
			continue // unknown members are ignored, as AWS does
		}
		if m.Location != schema.Body && m.Location != schema.Payload {
			continue
		}
		if err := d.value(value, m, v.Field(m.Index), path+"."+m.Name, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (d treeDecoder) value(tree any, m *schema.Member, v reflect.Value, path string, depth int) error {
	s := m.Shape
	switch s.Kind {
	case schema.Structure:
		return d.structure(tree, s, target(v), path, depth)
	case schema.List:
		list, ok := tree.([]any)
		if !ok {
			return serialization("Expected a list%s", at(path))
		}
		out := reflect.MakeSlice(v.Type(), len(list), len(list))
		for i, e := range list {
			if e == nil {
				continue
			}
			if err := d.value(e, s.Elem, out.Index(i), path, depth+1); err != nil {
				return err
			}
		}
		v.Set(out)
		return nil
	case schema.Map:
		object, ok := tree.(map[string]any)
		if !ok {
			return serialization("Expected a map%s", at(path))
		}
		out := reflect.MakeMapWithSize(v.Type(), len(object))
		for key, e := range object {
			value := reflect.New(v.Type().Elem()).Elem()
			if e != nil {
				if err := d.value(e, s.Elem, value, path, depth+1); err != nil {
					return err
				}
			}
			out.SetMapIndex(reflect.ValueOf(key), value)
		}
		v.Set(out)
		return nil
	}
	return d.scalar(tree, m, v, path)
}

func (d treeDecoder) scalar(tree any, m *schema.Member, v reflect.Value, path string) error {
	switch m.Shape.Kind {
	case schema.String:
		s, ok := tree.(string)
		if !ok {
			return serialization("Expected a string%s", at(path))
		}
		target(v).SetString(s)
		return nil
	case schema.Boolean:
		b, ok := tree.(bool)
		if !ok {
			return serialization("Expected a boolean%s", at(path))
		}
		target(v).SetBool(b)
		return nil
	case schema.Blob:
		if b, ok := tree.([]byte); ok {
			v.SetBytes(b)
			return nil
		}
		s, ok := tree.(string)
		if !ok {
			return serialization("Expected base64 data%s", at(path))
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return serialization("Not valid base64%s", at(path))
		}
		v.SetBytes(b)
		return nil
	case schema.Integer, schema.Long:
		n, ok := integer(tree)
		if !ok || target(v).OverflowInt(n) {
			return serialization("Expected an integer%s", at(path))
		}
		target(v).SetInt(n)
		return nil
	case schema.Double:
		f, ok := number(tree)
		if !ok {
			return serialization("Expected a number%s", at(path))
		}
		target(v).SetFloat(f)
		return nil
	case schema.Timestamp:
		return d.timestamp(tree, m, v, path)
	}
	return serialization("Unexpected value%s", at(path))
}

func (d treeDecoder) timestamp(tree any, m *schema.Member, v reflect.Value, path string) error {
	if t, ok := tree.(time.Time); ok {
		target(v).Set(reflect.ValueOf(t.UTC()))
		return nil
	}
	var t time.Time
	var err error
	if s, ok := tree.(string); ok {
		format := timestampFormat(m, iso8601)
		if t, err = parseTime(s, format); err != nil {
			t, err = parseTime(s, unix)
		}
	} else if f, ok := number(tree); ok {
		t, err = fromSeconds(f)
	} else {
		return serialization("Expected a timestamp%s", at(path))
	}
	if err != nil {
		return serialization("Expected a timestamp%s", at(path))
	}
	target(v).Set(reflect.ValueOf(t))
	return nil
}

func integer(tree any) (int64, bool) {
	switch n := tree.(type) {
	case json.Number:
		if i, err := n.Int64(); err == nil {
			return i, true
		}
		f, err := n.Float64()
		return int64(f), err == nil && f == float64(int64(f))
	case int64:
		return n, true
	case uint64:
		return int64(n), n <= 1<<63-1
	case float64:
		return int64(n), n == float64(int64(n))
	}
	return 0, false
}

func number(tree any) (float64, bool) {
	switch n := tree.(type) {
	case json.Number:
		f, err := n.Float64()
		return f, err == nil
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case float64:
		return n, true
	case float32:
		return float64(n), true
	case string: // JSON has no other form of these
		switch n {
		case "NaN", "Infinity", "-Infinity":
			f, err := strconv.ParseFloat(n, 64)
			return f, err == nil
		}
	}
	return 0, false
}

func at(path string) string {
	if len(path) < 2 {
		return ""
	}
	return " at " + path[1:]
}

// appendJSON appends the members of a structure that are in the body.
func appendJSON(b []byte, s *schema.Shape, v reflect.Value) []byte {
	b = append(b, '{')
	first := true
	for i := range s.Members {
		m := &s.Members[i]
		if m.Location != schema.Body && m.Location != schema.Payload || m.Shape.Kind == schema.Events || m.EventHeader {
			continue
		}
		f, ok := present(v.Field(m.Index))
		if !ok {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, m.WireName())
		b = append(b, ':')
		b = appendValue(b, m, f)
	}
	return append(b, '}')
}

// appendValue appends a value that is present.
func appendValue(b []byte, m *schema.Member, v reflect.Value) []byte {
	s := m.Shape
	switch s.Kind {
	case schema.Structure:
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return append(b, "null"...)
			}
			v = v.Elem()
		}
		return appendJSON(b, s, v)
	case schema.List:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, s.Elem, v.Index(i))
		}
		return append(b, ']')
	case schema.Map:
		b = append(b, '{')
		for i, key := range sortedKeys(v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, key)
			b = append(b, ':')
			b = appendValue(b, s.Elem, v.MapIndex(reflect.ValueOf(key)))
		}
		return append(b, '}')
	case schema.Timestamp:
		t := v.Interface().(time.Time)
		if format := timestampFormat(m, unix); format != unix {
			return appendString(b, formatTime(t, format))
		}
		return append(b, formatFloat(seconds(t))...)
	case schema.Integer, schema.Long:
		return strconv.AppendInt(b, v.Int(), 10)
	case schema.Boolean:
		return strconv.AppendBool(b, v.Bool())
	case schema.Double:
		s := formatFloat(v.Float())
		if s[len(s)-1] > '9' { // NaN, Infinity
			return appendString(b, s)
		}
		return append(b, s...)
	case schema.Blob:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"')
	}
	return appendString(b, v.String())
}

func sortedKeys(m reflect.Value) []string {
	keys := make([]string, 0, m.Len())
	for _, k := range m.MapKeys() {
		keys = append(keys, k.String())
	}
	slices.Sort(keys)
	return keys
}

// appendString appends a JSON string.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r) // what is not UTF-8 becomes U+FFFD
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}
