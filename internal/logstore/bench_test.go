package logstore

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func benchLine(r *rand.Rand, i int) string {
	return fmt.Sprintf("2026-11-24T02:00:00.%03dZ %08x-%04x INFO handled request path=/orders/%d status=%d took=%dms user=%x",
		i%1000, r.Uint32(), i&0xffff, r.IntN(5000), 200+r.IntN(3)*100, r.IntN(900), r.Uint64())
}

// BenchmarkAppend is what logging adds to an invocation: START, one line, END
// and REPORT.
func BenchmarkAppend(b *testing.B) {
	s := openStore(b, b.TempDir(), Options{Logger: slog.New(slog.DiscardHandler)})
	lines := events(time.Now(), "START RequestId: 8a6c2e0e-0d5f-4b3c-9c77-0f2f6e8c9d10 Version: $LATEST", "hello",
		"END RequestId: 8a6c2e0e-0d5f-4b3c-9c77-0f2f6e8c9d10",
		"REPORT RequestId: 8a6c2e0e-0d5f-4b3c-9c77-0f2f6e8c9d10\tDuration: 1.21 ms\tBilled Duration: 2 ms\tMemory Size: 128 MB\tMax Memory Used: 64 MB")
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Append("/aws/lambda/f", "2026/11/24/[$LATEST]0123456789abcdef0123456789abcdef", lines); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut is PutLogEvents of one event, durable, alone and side by side.
func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := openStore(b, b.TempDir(), Options{Logger: slog.New(slog.DiscardHandler)})
			if err := s.CreateGroup("g", nil); err != nil {
				b.Fatal(err)
			}
			if err := s.CreateStream("g", "s"); err != nil {
				b.Fatal(err)
			}
			lines := events(time.Now(), "hello")
			b.SetParallelism((writers + 1) / 2)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if err := s.Put(b.Context(), "g", "s", lines); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkScan is FilterLogEvents with a word that is nowhere.
func BenchmarkScan(b *testing.B) {
	s := openStore(b, b.TempDir(), Options{Logger: slog.New(slog.DiscardHandler)})
	r := rand.New(rand.NewPCG(1, 2))
	const lines = 100_000
	var bytes int64
	start := time.Now().Add(-time.Hour)
	for i := range lines {
		m := benchLine(r, i)
		bytes += int64(len(m))
		if err := s.Append("g", fmt.Sprint("s", i%50), events(start.Add(time.Duration(i)*time.Millisecond), m)); err != nil {
			b.Fatal(err)
		}
	}
	s.maintainOnce(b.Context())
	b.SetBytes(bytes)
	for b.Loop() {
		for _, err := range s.Read(b.Context(), "g", ReadOptions{Match: func(m string) bool { return strings.Contains(m, "nowhere") }}) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(lines*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}
