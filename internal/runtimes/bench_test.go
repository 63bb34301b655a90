package runtimes

import (
	"fmt"
	"testing"
	"time"
)

var benchFunctions = map[string]string{
	"index.js": "exports.handler = async (e) => e;",
	"index.py": "def handler(e, c):\n    return e\n",
}

// BenchmarkStart measures the time from the start of the process to its first
// request for an event, beside the floor: the bare interpreter doing nothing.
func BenchmarkStart(b *testing.B) {
	for _, id := range []string{"nodejs20.x", "nodejs22.x", "nodejs24.x", "python3.13"} {
		b.Run(id, func(b *testing.B) {
			var floor, cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				floor += bareStart(b, id)
				b.StartTimer()
				p := startRuntime(b, id, "index.handler", benchFunctions)
				p.invoke(`{}`)
				b.StopTimer()
				p.cmd.Process.Kill()
				<-p.exit
				p.exit <- nil
				cpu += p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
				b.StartTimer()
			}
			b.ReportMetric(float64(floor.Microseconds())/1000/float64(b.N), "bare-ms")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "start-ms")
			b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms")
			b.ReportMetric(float64(b.Elapsed())/float64(floor), "x-bare")
		})
	}
}

// bareStart runs the interpreter with an empty program.
func bareStart(b *testing.B, id string) time.Duration {
	in := provide(b, id)
	s, _ := lookup(id)
	args := []string{"-e", "0"}
	if s.language == language(cPython{}) {
		args = []string{"-c", "0"}
	}
	cmd, err := in.native(b.Context(), s, args...)
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// BenchmarkInvoke measures one invocation of 1 KB, from the event being there to
// the result, over the Runtime API of the test.
func BenchmarkInvoke(b *testing.B) {
	for _, id := range []string{"nodejs20.x", "nodejs22.x", "nodejs24.x", "python3.13"} {
		b.Run(id, func(b *testing.B) {
			p := startRuntime(b, id, "index.handler", benchFunctions)
			event := fmt.Sprintf(`{"a":"%01000d"}`, 1)
			p.invoke(event)
			for b.Loop() {
				p.invoke(event)
			}
		})
	}
}

// BenchmarkResolve measures what the start of every environment pays for
// finding its runtime.
func BenchmarkResolve(b *testing.B) {
	provide(b, "nodejs22.x")
	r := sharedRegistry(b)
	for b.Loop() {
		if _, err := r.Resolve("nodejs22.x"); err != nil {
			b.Fatal(err)
		}
	}
}
