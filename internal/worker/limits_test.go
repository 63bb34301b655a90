package worker

import "testing"

func TestMemoryBringsProcessorsAndBandwidth(t *testing.T) {
	for _, c := range []struct {
		memoryMB, millis, cpus int
		bandwidth              int64
	}{
		{128, 72, 2, 5_426_794},
		{512, 289, 2, 21_707_179},
		{1769, 1000, 2, 75_000_000},
		{3008, 1700, 2, 75_000_000},
		{3009, 1700, 3, 75_000_000},
		{5307, 3000, 3, 75_000_000},
		{5308, 3000, 4, 75_000_000},
		{7077, 4000, 5, 75_000_000},
		{8846, 5000, 6, 75_000_000},
		{10240, 5788, 6, 75_000_000},
	} {
		if m, n, b := cpuMillis(c.memoryMB), cpus(c.memoryMB), bandwidth(c.memoryMB); m != c.millis || n != c.cpus || b != c.bandwidth {
			t.Errorf("%d MB: %d thousandths of a vCPU, %d CPUs, %d bytes a second; want %+v", c.memoryMB, m, n, b, c)
		}
	}
}
