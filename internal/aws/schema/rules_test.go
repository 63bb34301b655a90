package schema

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
)

func TestPatternsRememberOnlyWhatMatches(t *testing.T) {
	s := &Shape{Kind: String, Pattern: "[a-z]+[0-9]*"}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for round := range 3 {
				for i := range 200 {
					for value, want := range map[string]bool{fmt.Sprint("a", i): true, fmt.Sprint("A", i): false, fmt.Sprint("a", i, "\n"): false, strings.Repeat("a", 300): true, "": false} {
						if got := s.Rules()[0].Keeps(reflect.ValueOf(value)); got != want {
							t.Errorf("round %d: %q: %v", round, value, got)
						}
					}
				}
			}
		})
	}
	wg.Wait()
}
