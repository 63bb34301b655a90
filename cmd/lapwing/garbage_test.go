package main

import "testing"

func TestTheHeapMayGrowByMuchWhereItIsSmall(t *testing.T) {
	for live, want := range map[uint64]int{0: 800, 8 << 20: 800, 16 << 20: 400, 32 << 20: 200, 64 << 20: 100, 1 << 30: 100} {
		if got := collectAt(live); got != want {
			t.Errorf("%d MiB: %d, want %d", live>>20, got, want)
		}
	}
}
