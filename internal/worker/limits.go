package worker

import "time"

// oomGrace is how long the end of a sandbox is waited for whose connection has
// ended, to tell why it did. It ends by itself, or the wait is in vain.
const oomGrace = 5 * time.Second

// cpuMillis returns the CPU share of a memory size in thousandths of a vCPU:
// 1,769 MB are one vCPU (Lambda developer guide, "Configure function memory").
func cpuMillis(memoryMB int) int { return max(memoryMB*1000/1769, 50) }

// bandwidth returns the network bandwidth of a memory size in bytes a second,
// each way. AWS says only that larger functions have more; the most that was
// measured is 75 MB/s (600 Mbit/s), which here comes with the first whole vCPU,
// and less of it with a part of one.
func bandwidth(memoryMB int) int64 { return int64(min(memoryMB, 1769)) * 75_000_000 / 1769 }

// cpus returns the number of processors that a function of a memory size sees:
// at least two, up to six at 10,240 MB.
func cpus(memoryMB int) int {
	for i, upTo := range []int{3008, 5307, 7076, 8845} {
		if memoryMB <= upTo {
			return i + 2
		}
	}
	return 6
}
