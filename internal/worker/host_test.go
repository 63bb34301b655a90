package worker

import "testing"

func TestHostKnowsOfThreadsThatRun(t *testing.T) {
	var p HostProcessors
	for range 2 {
		if n, err := p.Demand(); err != nil || n < 1 { // this one runs
			t.Errorf("%d threads, %v", n, err)
		}
	}
}
