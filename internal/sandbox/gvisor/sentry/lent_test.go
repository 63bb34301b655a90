package sentry

import (
	"reflect"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/mm"
)

func TestPlatformMappingIsLaidOutAsInGVisor(t *testing.T) {
	set, ok := reflect.TypeFor[mm.MemoryManager]().FieldByName("pmas")
	if !ok {
		t.Fatal("a MemoryManager has no pmas")
	}
	root, ok := set.Type.FieldByName("root")
	if !ok {
		t.Fatal("a set of mappings has no root")
	}
	values, ok := root.Type.FieldByName("values")
	if !ok {
		t.Fatal("a node has no values")
	}
	theirs, ours := values.Type.Elem(), reflect.TypeFor[platformMapping]()
	if theirs.NumField() != ours.NumField() || theirs.Size() != ours.Size() {
		t.Fatalf("gVisor's has %d fields and %d bytes, ours %d and %d", theirs.NumField(), theirs.Size(), ours.NumField(), ours.Size())
	}
	for i := range ours.NumField() {
		a, b := theirs.Field(i), ours.Field(i)
		if a.Name != b.Name || a.Type != b.Type || a.Offset != b.Offset {
			t.Errorf("field %d is %s %v at %d in gVisor, ours %s %v at %d", i, a.Name, a.Type, a.Offset, b.Name, b.Type, b.Offset)
		}
	}
	for _, name := range []string{"nrSegments", "keys", "children", "hasChildren"} {
		if _, ok := root.Type.FieldByName(name); !ok {
			t.Errorf("a node has no %s", name)
		}
	}
}
