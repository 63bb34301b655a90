package sentry

import (
	"time"

	"lapwing.dev/lapwing/internal/sandbox/gvisor/wire"
)

// steps are those of the process's start that are over.
type steps []wire.Step

func (s *steps) over(name string) { *s = append(*s, wire.Step{Name: name, Ended: time.Now()}) }
