package worker

import (
	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
)

// RuntimeDone implements host.Handler.
func (e *environment) RuntimeDone(host.RuntimeDone) {}

// Extension implements host.Handler.
func (e *environment) Extension(proto.Extension) {}

// Subscribed implements host.Handler.
func (e *environment) Subscribed(proto.Subscription) {}
