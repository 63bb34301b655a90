package host

import (
	"slices"

	"lapwing.dev/lapwing/internal/guest/proto"
)

const (
	// stepsOfInit is what the names of an Init's steps begin with.
	stepsOfInit = "init/"
	// stepLoad is the last of them: the runtime has asked for its first event.
	stepLoad = "handler load"
)

// guestSteps are the steps of Init that the guest tells the ends of, in their
// order. They are timed as this end sees them: the guest's clock is not to be
// trusted.
var guestSteps = []string{proto.StepExtensions, proto.StepProcess, proto.StepBoot, proto.StepBlank}

// handleStep acts on a frame that tells the end of a step of Init: each comes
// once at most, and only where they were asked for.
func (l *life) handleStep(f proto.Frame) error {
	var s proto.Step
	if err := f.Decode(&s); err != nil {
		return err
	}
	i := slices.Index(guestSteps, s.Name)
	if l.steps == nil || i < l.told || l.initOver() {
		return violation("a step of Init out of place")
	}
	l.told = i + 1
	l.steps.End(s.Name)
	return nil
}
