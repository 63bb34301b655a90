package guest

import (
	"net"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// stepOver tells the host, where it wants to know, that a step of Init is over.
// g.mu is held.
func (g *guest) stepOver(name string) {
	if g.steps.Load() && !g.initOver && !g.dead && !g.ending {
		g.link.send(proto.TypeStep, proto.Step{Name: name})
	}
}

// connected acts on a new connection to the Runtime API: the runtime's first, by
// which it has booted, is of interest.
func (g *guest) connected() {
	if !g.steps.Load() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.runtime != nil && !g.restoring.blank { // else it is an extension's
		g.stepOver(proto.StepBoot)
		g.steps.Store(false) // it was the last
	}
}

// noticed is a listener that tells of each connection.
type noticed struct {
	net.Listener
	notice func()
}

// Accept implements net.Listener.
func (n noticed) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	if err == nil {
		n.notice()
	}
	return conn, err
}
