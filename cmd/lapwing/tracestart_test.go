package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/service/lambda"
)

func TestMediansOfStartsKeepPartsBelowTheirWhole(t *testing.T) {
	start := func(scale time.Duration, extra ...lambda.Step) startMap {
		return startMap{Starts: 1, Total: 10 * scale, Steps: append([]lambda.Step{
			{Name: "sandbox", Began: scale, Took: 5 * scale}, {Name: "sandbox/kernel", Began: 2 * scale, Took: 3 * scale},
			{Name: "init", Began: 6 * scale, Took: 2 * scale}, {Name: "init/boot", Began: 6 * scale, Took: scale},
		}, extra...)}
	}
	m := medianStart([]startMap{
		start(time.Millisecond), start(3 * time.Millisecond), start(2*time.Millisecond, lambda.Step{Name: "restore", Began: 0, Took: 7}),
	})
	var names []string
	for _, s := range m.Steps {
		names = append(names, s.Name)
	}
	if want := []string{"restore", "sandbox", "sandbox/kernel", "init", "init/boot"}; !slices.Equal(names, want) {
		t.Errorf("steps %q, want %q", names, want)
	}
	if m.Total != 20*time.Millisecond || m.Starts != 3 || m.Steps[1].Took != 10*time.Millisecond || m.Steps[2].Began != 4*time.Millisecond {
		t.Errorf("medians %+v", m)
	}
	var out strings.Builder
	if err := m.print(&out, "f"); err != nil || !strings.HasPrefix(out.String(), "f: 20.00 ms from request to reply (medians of 3 starts)\n\nSTEP ") || !strings.Contains(out.String(), "\n  kernel ") {
		t.Errorf("printed %v\n%s", err, out.String())
	}
}
