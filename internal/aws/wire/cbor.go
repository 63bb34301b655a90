package wire

import (
	"fmt"
	"reflect"
	"time"

	"github.com/fxamacker/cbor/v2"

	"lapwing.dev/lapwing/internal/aws/schema"
)

var cborDecoder = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		MaxNestedLevels: maxDepth, MaxArrayElements: 1 << 20, MaxMapPairs: 1 << 20,
		DefaultMapType: reflect.TypeFor[map[string]any](),
		TimeTagToAny:   cbor.TimeTagToTime,
		IntDec:         cbor.IntDecConvertNone,
	}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return m
}()

func decodeCBOR(body []byte, s *schema.Shape, v reflect.Value) error {
	if len(body) == 0 {
		return nil
	}
	var tree any
	if err := cborDecoder.Unmarshal(body, &tree); err != nil {
		return serialization("The request body is not valid CBOR: %v", err)
	}
	return treeDecoder{}.structure(tree, s, v, "", 0)
}

func encodeCBOR(s *schema.Shape, v reflect.Value) ([]byte, error) {
	b, err := cbor.Marshal(cborTree(s, v))
	if err != nil {
		return nil, fmt.Errorf("wire: %s: %w", s.Name, err)
	}
	return b, nil
}

func cborTree(s *schema.Shape, v reflect.Value) map[string]any {
	tree := make(map[string]any, len(s.Members))
	for i := range s.Members {
		m := &s.Members[i]
		if f, ok := present(v.Field(m.Index)); ok && m.Shape.Kind != schema.Events {
			tree[m.WireName()] = cborValue(m.Shape, f)
		}
	}
	return tree
}

func cborValue(s *schema.Shape, v reflect.Value) any {
	switch s.Kind {
	case schema.Structure:
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return nil
			}
			v = v.Elem()
		}
		return cborTree(s, v)
	case schema.List:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = cborValue(s.Elem.Shape, v.Index(i))
		}
		return list
	case schema.Map:
		tree := make(map[string]any, v.Len())
		for _, key := range v.MapKeys() {
			tree[key.String()] = cborValue(s.Elem.Shape, v.MapIndex(key))
		}
		return tree
	case schema.Timestamp: // tag 1: epoch seconds
		return cbor.Tag{Number: 1, Content: seconds(v.Interface().(time.Time))}
	case schema.String:
		return v.String()
	}
	return v.Interface()
}
