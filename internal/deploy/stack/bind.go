package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"lapwing.dev/lapwing/internal/deploy/template"
)

// bind puts properties of a template into the input of an AWS call: a mapping
// into the fields of the same names, and scalars into what the field wants, since
// templates have 128 and "128" alike. What is still pending leaves its field
// empty. A name that has no field is an error.
func bind(v any, into any) error { return bindValue(v, reflect.ValueOf(into).Elem()) }

func bindValue(v any, dst reflect.Value) error {
	if _, pending := v.(template.Pending); pending || v == nil {
		return nil
	}
	switch dst.Kind() {
	case reflect.Pointer:
		if dst.IsNil() {
			dst.Set(reflect.New(dst.Type().Elem()))
		}
		return bindValue(v, dst.Elem())
	case reflect.Struct:
		if list, ok := v.([]any); ok && counted(dst.Type()) {
			v = map[string]any{"Items": list, "Quantity": int64(len(list))}
		}
		m, ok := v.(map[string]any)
		if !ok {
			return errors.New("must be a mapping")
		}
		for name, one := range m {
			field, ok := dst.Type().FieldByName(name)
			if !ok || !field.IsExported() {
				return fmt.Errorf("has no %s", name)
			}
			if err := bindValue(one, dst.FieldByIndex(field.Index)); err != nil {
				return within(name, err)
			}
		}
		return nil
	case reflect.Map:
		m, ok := v.(map[string]any)
		if !ok {
			return errors.New("must be a mapping")
		}
		dst.Set(reflect.MakeMapWithSize(dst.Type(), len(m)))
		for name, one := range m {
			item := reflect.New(dst.Type().Elem()).Elem()
			if err := bindValue(one, item); err != nil {
				return within(name, err)
			}
			dst.SetMapIndex(reflect.ValueOf(name), item)
		}
		return nil
	case reflect.Slice:
		list, ok := v.([]any)
		if !ok {
			return errors.New("must be a list")
		}
		dst.Set(reflect.MakeSlice(dst.Type(), len(list), len(list)))
		for i, one := range list {
			if err := bindValue(one, dst.Index(i)); err != nil {
				return within(strconv.Itoa(i), err)
			}
		}
		return nil
	}
	return bindScalar(v, dst)
}

// counted tells whether a type is CloudFront's form of a list, which has its
// length beside it.
func counted(t reflect.Type) bool {
	_, items := t.FieldByName("Items")
	_, quantity := t.FieldByName("Quantity")
	return items && quantity
}

// within says where in a property an error is.
func within(name string, err error) error { return fmt.Errorf("%s %w", name, err) }

func bindScalar(v any, dst reflect.Value) error {
	s, ok := text(v)
	if !ok {
		return errors.New("must be a single value")
	}
	switch dst.Kind() {
	case reflect.String:
		dst.SetString(s)
	case reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, dst.Type().Bits())
		if err != nil {
			return errors.New("must be a whole number")
		}
		dst.SetInt(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return errors.New("must be a number")
		}
		dst.SetFloat(f)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("must be true or false")
		}
		dst.SetBool(b)
	default:
		return fmt.Errorf("cannot be given (%s)", dst.Type())
	}
	return nil
}

// text is a scalar as a text.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case template.Secret:
		return string(v), true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

// document is a policy document as IAM takes it. A template may give it as a
// mapping or as JSON text.
func document(v any) (string, error) {
	if s, ok := v.(string); ok {
		return s, nil
	}
	b, err := json.Marshal(reveal(v))
	return string(b), err
}

// reveal returns a value with its secrets as texts, for the service that they are
// meant for.
func reveal(v any) any {
	switch v := v.(type) {
	case template.Secret:
		return string(v)
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, one := range v {
			m[k] = reveal(one)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, one := range v {
			list[i] = reveal(one)
		}
		return list
	}
	return v
}

// tagMap reads tags, which templates have as a list of Key and Value; nil if there
// are none.
func tagMap(v any) (map[string]string, error) {
	var list []struct{ Key, Value string }
	if err := bind(v, &list); err != nil {
		return nil, within("Tags", err)
	}
	if len(list) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(list))
	for _, t := range list {
		m[t.Key] = t.Value
	}
	return m, nil
}

// hasPending tells whether anything in v is not known yet.
func hasPending(v any) bool {
	switch v := v.(type) {
	case template.Pending:
		return true
	case map[string]any:
		for _, one := range v {
			if hasPending(one) {
				return true
			}
		}
	case []any:
		for _, one := range v {
			if hasPending(one) {
				return true
			}
		}
	}
	return false
}
