package cffunction

import (
	"errors"
	"time"

	"github.com/dop251/goja"

	"lapwing.dev/lapwing/internal/edge/keyvalue"
)

// values is the key value store of a function for one run, which sees it as it
// was when it first asked.
type values struct {
	stores *keyvalue.Stores
	id     string // empty: it has none
	view   *keyvalue.View
}

var errNoStore = errors.New("no key value store is associated with the function")

// open returns the store that a function asks for: its own, by its id or by none.
func (v *values) open(id string) (*keyvalue.View, error) {
	switch {
	case v == nil || v.id == "" || v.stores == nil:
		return nil, errNoStore
	case id != "" && id != v.id:
		return nil, errors.New("key value store " + id + " is not associated with the function")
	case v.view == nil:
		var err error
		if v.view, err = v.stores.View(v.id); err != nil {
			return nil, err
		}
	}
	return v.view, nil
}

// kvs is what cf.kvs() in the prelude is made of.
func (n *native) kvs(id string) goja.Value {
	view, err := n.values.open(id)
	if err != nil {
		n.fail("%v", err)
	}
	return n.vm.ToValue(map[string]any{
		"get": func(key string) string {
			value, ok := view.Get(key)
			if !ok {
				n.fail("KeyNotFound: %s", key)
			}
			return value
		},
		"exists": func(key string) bool {
			_, ok := view.Get(key)
			return ok
		},
		"created": iso(view.Head.Created), "updated": iso(view.Head.Modified), "count": view.Head.Count,
	})
}

func iso(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
