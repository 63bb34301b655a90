package wire_test

import (
	"encoding/json"
	"fmt"
)

// describe prints a value with its pointers followed.
func describe(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%+v", v)
	}
	return string(b)
}
