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
	status := fmt.Sprintf("/proc/%d/status", b.server.PID)
	rss, err := field(status, "VmRSS:")
	if err != nil {
		return err
	}
	program, err := field(status, "RssFile:")
	if err != nil {
		return err
	}
	fmt.Println("memory of the idle server")
	goal("RSS, MiB", float64(rss)/1024, "%.0f", "at most 60", rss <= 60<<10)
	fmt.Printf("  %-46s %d\n\n", "of which pages of the program's file", program/1024)
	return nil
}

// memoryOfEnvironments prints what the idle environments use that the runs
// before have left: the proportional set size of each sandbox's processes, the
// function among them.
func (b *bench) memoryOfEnvironments(context.Context) error {
	time.Sleep(time.Second)
	children, err := processes()
	if err != nil {
		return err
	}
	total, sandboxes := 0, children[b.server.PID]
	for _, pid := range sandboxes {
		total += proportional(pid, children)
	}
	fmt.Println("memory of idle environments")
	if len(sandboxes) == 0 {
		fmt.Println("  none is left")
		return nil
	}
	fmt.Printf("  %d environments, %.1f MiB each (proportional set size, with the function)\n", len(sandboxes), float64(total)/1024/float64(len(sandboxes)))
	return nil
}

// processes returns the children of every process.
func processes() (map[int][]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if parent, err := field(dir+"/status", "PPid:"); err == nil { // it may have ended
			children[parent] = append(children[parent], pid)
		}
	}
	return children, nil
}

// proportional returns the proportional set size of a process and all below it,
// in KiB.
func proportional(pid int, children map[int][]int) int {
	sum, err := field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
	if err != nil {
		sum = 0 // it has ended, or is a zombie
	}
	for _, child := range children[pid] {
		sum += proportional(child, children)
	}
	return sum
}

// field returns the number in a line of a file in /proc.
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
