package host

import (
	"io"
	"slices"
	"testing"

	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

func step(name string) []byte {
	return proto.AppendFrame(nil, proto.TypeStep, proto.Step{Name: name})
}

// stepped starts a runtime that sends frames, with a record of its steps.
func stepped(t *testing.T, sent ...[]byte) (*timeline.Line, error) {
	t.Helper()
	c, g, r := unread(t)
	line := new(timeline.Line)
	started := make(chan error, 1)
	go func() {
		_, err := c.Start(timeline.With(t.Context(), line), proto.Start{})
		started <- err
	}()
	f, err := r.Read()
	var s proto.Start
	if err != nil || f.Decode(&s) != nil || !s.Steps {
		t.Fatalf("the guest was told %s, %v: not asked for steps", f.Payload, err)
	}
	go io.Copy(io.Discard, g)
	if _, err := g.Write(frames(sent...)); err != nil {
		t.Fatal(err)
	}
	return line, <-started
}

func TestStepsOfInitAreRecorded(t *testing.T) {
	line, err := stepped(t, hello, step(proto.StepProcess), step(proto.StepBoot), initDone)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	steps := line.Steps()
	for i, s := range steps {
		names = append(names, s.Name)
		if i > 0 && !s.Began.Equal(steps[i-1].Began.Add(steps[i-1].Took)) {
			t.Errorf("%s does not begin where %s ends", s.Name, steps[i-1].Name)
		}
	}
	if want := []string{"init/runtime process", "init/runtime boot", "init/handler load"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestStepsOutOfPlaceEndTheConnection(t *testing.T) {
	for name, sent := range map[string][][]byte{
		"twice":        {hello, step(proto.StepBoot), step(proto.StepBoot)},
		"out of order": {hello, step(proto.StepBoot), step(proto.StepProcess)},
		"unknown":      {hello, step("x")},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := stepped(t, sent...); err == nil {
				t.Error("the runtime was started all the same")
			}
		})
	}
}
