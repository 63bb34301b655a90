package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// memoryOfServer prints what the server uses with nothing deployed.
func (b *bench) memoryOfServer(context.Context) error {
	time.Sleep(3 * time.Second) // let it settle
	rss, err := field(fmt.Sprintf("/proc/%d/status", b.server.PID), "VmRSS:")
	if err != nil {
		return err
	}
	fmt.Println("memory of the idle server")
	goal("RSS, MiB", float64(rss)/1024, "%.0f", "at most 60", rss <= 60<<10)
	fmt.Println()
	return nil
}

// memoryOfEnvironments prints what idle environments use: the proportional
// share of all processes that the server has started.
func (b *bench) memoryOfEnvironments(context.Context) error {
	time.Sleep(time.Second)
	var total, n int
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, p := range processes {
		cmdline, err := os.ReadFile(p + "/cmdline")
		if err != nil || !strings.Contains(string(cmdline), "lapwing") || filepath.Base(p) == fmt.Sprint(b.server.PID) {
			continue
		}
		pss, err := field(p+"/smaps_rollup", "Pss:")
		if err != nil {
			continue // it has ended, or is one of ours that we may not see
		}
		total += pss
		n++
	}
	fmt.Println("memory of idle environments")
	if n == 0 {
		fmt.Println("  no sandbox process found")
		return nil
	}
	fmt.Printf("  %d sandboxes, %.1f MiB each (proportional set size, with the function in them)\n", n, float64(total)/1024/float64(n))
	return nil
}

// field returns the number of KiB in a line of a file in /proc.
func field(path, name string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
