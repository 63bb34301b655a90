package cloudfront

import (
	"reflect"

	api "lapwing.dev/lapwing/internal/aws/cloudfront"
)

// checkQuantities checks a configuration for the rule that lists have: Quantity
// is the number of Items. v is a pointer to a shape of the API; Items that are
// empty become nil, so that answers do not show them.
func checkQuantities(v any) error { return quantities(reflect.ValueOf(v)) }

func quantities(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return quantities(v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			if err := quantities(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		items, quantity := v.FieldByName("Items"), v.FieldByName("Quantity")
		if items.IsValid() && items.Kind() == reflect.Slice {
			if items.Len() == 0 {
				items.SetZero()
			}
			if quantity.IsValid() && !quantity.IsNil() && quantity.Elem().Int() != int64(items.Len()) {
				return api.NewInconsistentQuantities("The value of Quantity and the size of Items don't match.")
			}
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				if err := quantities(v.Field(i)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
