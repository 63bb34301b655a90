package cffunction

import "sync"

// prepared is how many machines of a flavour wait for a run. A machine takes
// longer to make than most functions run.
const prepared = 16

// machines makes machines ahead, of the flavours that are in use.
type machines struct {
	mu     sync.Mutex
	ready  map[flavour][]*machine
	wake   chan struct{} // holds a token while a flavour may lack machines
	closed chan struct{}
	done   chan struct{}
}

func newMachines() *machines {
	p := &machines{ready: map[flavour][]*machine{}, wake: make(chan struct{}, 1), closed: make(chan struct{}), done: make(chan struct{})}
	go p.fill()
	return p
}

// take returns a machine that nobody else has or had.
func (p *machines) take(f flavour) *machine {
	p.mu.Lock()
	list := p.ready[f]
	var m *machine
	if n := len(list); n > 0 {
		m, list = list[n-1], list[:n-1]
	}
	p.ready[f] = list
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	if m == nil {
		m = newMachine(f)
	}
	return m
}

// fill keeps as many ready as there are to be.
func (p *machines) fill() {
	defer close(p.done)
	for {
		select {
		case <-p.closed:
			return
		case <-p.wake:
		}
		for f, lacks := p.lacking(); lacks; f, lacks = p.lacking() {
			m := newMachine(f)
			p.mu.Lock()
			p.ready[f] = append(p.ready[f], m)
			p.mu.Unlock()
			select {
			case <-p.closed:
				return
			default:
			}
		}
	}
}

func (p *machines) lacking() (flavour, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for f, list := range p.ready {
		if len(list) < prepared {
			return f, true
		}
	}
	return flavour{}, false
}

func (p *machines) close() {
	close(p.closed)
	<-p.done
}
