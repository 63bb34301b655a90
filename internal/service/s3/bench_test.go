package s3

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/s3"
)

// BenchmarkService measures puts against a floor: writing the same bytes to a
// new file and syncing it.
func BenchmarkService(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		body := make([]byte, size)
		b.Run(fmt.Sprintf("floor: write and fsync %d KB", size>>10), func(b *testing.B) {
			dir := b.TempDir()
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if err := writeFile(filepath.Join(dir, fmt.Sprint(i)), body); err != nil {
					b.Fatal(err)
				}
			}
		})
		s := newBucket(b, "")
		b.Run(fmt.Sprintf("PutObject %d KB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				copy(body, fmt.Sprint(i)) // another content each time
				in := putInput(fmt.Sprint(i%1000), "")
				in.Body = io.NopCloser(bytes.NewReader(body))
				if _, err := s.PutObject(b.Context(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("GetObject %d KB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				body, _, _, _, err := s.OpenObject(b.Context(), "bbb", "0", "")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, body); err != nil {
					b.Fatal(err)
				}
				if err := body.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("ListObjectsV2", func(b *testing.B) {
			for b.Loop() {
				if _, err := s.ListObjectsV2(b.Context(), &api.ListObjectsV2Input{Bucket: aws.Ptr("bbb")}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func writeFile(name string, body []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(body); err != nil {
		return err
	}
	return f.Sync()
}
