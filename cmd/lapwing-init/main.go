// Command lapwing-init is process 1 in every sandbox. It takes its orders from
// the worker over the connection that it inherits as file descriptor 3; see
// internal/guest. It is embedded in lapwing and of no use outside a sandbox.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"

	"lapwing.dev/lapwing/internal/guest"
)

// connFD is the file descriptor of the host connection.
const connFD = 3

// memoryLimit is what the heap is kept to where possible: an event of 6 MiB
// and as much again.
const memoryLimit = 16 << 20

func main() {
	// Everything here waits for something else: a second processor would only
	// add hand-overs between threads, which are slow under gVisor.
	runtime.GOMAXPROCS(1)
	// What this program uses counts as the function's memory: give back what a
	// large event took.
	debug.SetMemoryLimit(memoryLimit)
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lapwing-init:", err)
		os.Exit(1)
	}
}

func run() error {
	f := os.NewFile(connFD, "host")
	if f == nil {
		return fmt.Errorf("file descriptor %d is not open", connFD)
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("host connection: %w", err)
	}
	f.Close()
	return guest.Run(conn)
}
