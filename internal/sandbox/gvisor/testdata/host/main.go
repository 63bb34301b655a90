// Command host stands in for the daemon in this package's tests: it makes
// sandboxes and waits to be killed.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"lapwing.dev/lapwing/internal/sandbox"
	"lapwing.dev/lapwing/internal/sandbox/gvisor"
)

// Usage: host DIR SANDBOX INIT. It makes three sandboxes in DIR, the last one frozen,
// has another prepared, prints a line and waits.
func main() {
	ctx := context.Background()
	d, err := gvisor.New(ctx, gvisor.Options{Dir: os.Args[1], SandboxPath: os.Args[2], InitPath: os.Args[3], Prepared: 1})
	if err != nil {
		log.Fatal(err)
	}
	for i := range 3 {
		s, err := d.Create(ctx, sandbox.Spec{
			ID: fmt.Sprintf("orphan-%d", i), MemoryMB: 128, CPUMillis: 1000, CPUs: 1, TmpMB: 16, MaxProcesses: 64,
		})
		if err != nil {
			log.Fatal(err)
		}
		if i == 2 {
			if err := s.Freeze(); err != nil {
				log.Fatal(err)
			}
		}
	}
	fmt.Println("ready")
	select {}
}
