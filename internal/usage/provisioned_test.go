package usage

import (
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/function"
)

func TestProvisionedConcurrencyIsMeteredWhileItIsKept(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, &memoryLogs{}, Options{})
	v := &function.Version{Name: "f", Version: "1", Architecture: "x86_64", MemoryMB: 1000}
	allocated := func() int64 { return total(t, dir).AllocatedMBMs }
	synctest.Test(t, func(t *testing.T) {
		p := NewProvisioned(j)
		p.Change(v, 1)
		time.Sleep(30 * time.Second)
		p.Change(v, 1)
		time.Sleep(10 * time.Minute)
		p.Change(v, -1)
		time.Sleep(time.Second)
		p.Change(v, -1) // the last: 15 minutes of both are billed
		time.Sleep(time.Hour)
		p.Change(v, 1)
		time.Sleep(90 * time.Second)
		p.Close() // the program ends, not the configuration
	})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	rounding := (15*time.Minute - 631*time.Second).Milliseconds()
	want := 1000 * (30_000 + 2*600_000 + 1_000 + 2*rounding + 90_000)
	if got := allocated(); got != want {
		t.Errorf("%d MB·ms, want %d", got, want)
	}
}
