package worker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/function"
)

// version returns a version with a timeout, of which nothing can be started.
func version(timeout time.Duration) *function.Version {
	return &function.Version{Timeout: timeout}
}

// A function that uses up what it has gets the error that Linux gives for it, at
// Lambda's limit. Another, next to it, notices nothing.
func TestResourcesAreBoundedAndTheNeighbourIsUnharmed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.worker.maxProcesses = 64 // 1,024 take a while to start
	v, neighbour := b.function(t), b.function(t)
	neighbour.Name, neighbour.Logging.Group = "neighbour", "/aws/lambda/neighbour"
	b.expect(t, neighbour, `{"do":"count"}`, "1")
	b.expect(t, neighbour, `{"do":"write","arg":"/tmp/own","n":1048576}`, "null")
	for _, c := range []struct {
		what     string
		min, max int
		end      string
	}{
		{"files", 1000, 1021, "too many open files"},
		{"processes", 2, 64, "resource temporarily unavailable"},
		{"/tmp", 490, 512, "no space left on device"},
	} {
		t.Run(strings.TrimPrefix(c.what, "/"), func(t *testing.T) {
			var wg sync.WaitGroup
			stop := make(chan struct{})
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						b.expect(t, neighbour, `{"do":"cpus"}`, "2")
					}
				}
			})
			got, _ := b.invoke(t, v, `{"do":"fill","arg":"`+c.what+`"}`)
			close(stop)
			wg.Wait()
			var n int
			if _, err := fmt.Sscanf(got, `"%d `, &n); err != nil || n < c.min || n > c.max || !strings.Contains(got, c.end) {
				t.Errorf("got %s, want between %d and %d, then %q", got, c.min, c.max, c.end)
			}
		})
	}
	b.expect(t, v, `{"do":"count"}`, "4") // it has survived all that
	if n := len(b.sandboxes.made()); n != 2 {
		t.Errorf("%d sandboxes for two functions", n)
	}
}

func TestFunctionCanUseTheMemoryThatItHas(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.function(t)
	v.MemoryMB = 128
	const mb = 110 // the program itself needs some
	res := b.expect(t, v, fmt.Sprintf(`{"do":"allocate","n":%d}`, mb), fmt.Sprint(mb<<20))
	t.Logf("%s", res.LogTail)
	b.expect(t, v, `{"do":"count"}`, "2")
}
