package state

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// BenchmarkCollection measures writes against a floor: appending 600 bytes to
// a file and syncing it.
func BenchmarkCollection(b *testing.B) {
	b.Run("floor: append and fsync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "floor"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		buf := make([]byte, 600)
		for b.Loop() {
			if _, err := f.Write(buf); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
	value := record{Tags: map[string]string{"x": string(make([]byte, 90))}} // 600 bytes as JSON
	b.Run("create, 1 writer", func(b *testing.B) {
		c := collect(b, open(b, b.TempDir()))
		for i := 0; b.Loop(); i++ {
			if _, err := c.Create(b.Context(), fmt.Sprint(i), value); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("overwrite, 1 writer", func(b *testing.B) {
		c := collect(b, open(b, b.TempDir()))
		for i := 0; b.Loop(); i++ {
			if _, err := c.Put(b.Context(), fmt.Sprint(i%100), value); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("create, 64 writers", func(b *testing.B) {
		c := collect(b, open(b, b.TempDir()))
		var wg sync.WaitGroup
		for w := range 64 {
			wg.Go(func() {
				for i := range b.N/64 + 1 {
					if _, err := c.Create(b.Context(), fmt.Sprintf("%d/%d", w, i), value); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
	b.Run("get", func(b *testing.B) {
		c := collect(b, open(b, b.TempDir()))
		for i := range 1000 {
			if _, err := c.Put(b.Context(), fmt.Sprint(i), record{}); err != nil {
				b.Fatal(err)
			}
		}
		for b.Loop() {
			c.Get("500")
		}
	})
}
