package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// garbage is how much memory may be lying about before Go's collector runs, in
// bytes, where it would run earlier: the heap of a server with little in it doubles
// within some hundred invocations.
const garbage = 64 << 20

// collectSeldom has the collector run when the heap has grown by garbage, or has
// doubled, whichever takes longer. GOGC, where it is set, has the last word.
func collectSeldom() {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent := 100
	var watch func()
	watch = func() {
		metrics.Read(live)
		want := collectAt(live[0].Value.Uint64())
		if want > percent+percent/8 || want < percent-percent/8 {
			percent = want
			debug.SetGCPercent(percent)
		}
		// Whatever nothing refers to is finalised after each collection.
		runtime.SetFinalizer(new([64]byte), func(*[64]byte) { watch() })
	}
	watch()
}

// collectAt is what debug.SetGCPercent is to be told with so many bytes alive.
func collectAt(live uint64) int {
	const most = 800
	return int(min(most, max(100, garbage*100/max(live, 1))))
}
