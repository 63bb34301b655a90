package loops

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// peer answers lines in capital letters while it is in its loop, and as they came when
// it has left.
type peer struct{ ended chan error }

func (p *peer) Serve(s *Socket, in []byte) (int, Then) {
	used := 0
	for line := range bytes.Lines(in) {
		if bytes.HasPrefix(line, []byte("leave")) {
			return used, Leave
		}
		used += len(line)
		if err := s.Write(bytes.ToUpper(line), nil); err != nil {
			return used, End
		}
		if bytes.HasPrefix(line, []byte("end")) {
			return used, End
		}
	}
	return used, Stay
}

func (p *peer) Leave(nc net.Conn, read []byte, unsent [2][]byte) {
	defer nc.Close()
	nc.Write(read)
	io.Copy(nc, nc)
	p.ended <- nil
}

func (p *peer) Ended(err error) { p.ended <- err }

// pair returns a connection of a client, and a socket of a peer that is not started.
func pair(t *testing.T, g *Group) (*peer, net.Conn, *Socket) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(20 * time.Second))
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := Descriptor(accepted)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{make(chan error, 1)}
	return p, client, g.Socket(fd, p)
}

func open(t *testing.T) *Group {
	t.Helper()
	g, err := New(Limits{Idle: time.Minute, Write: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// converse sends lines and returns all that comes until the end.
func converse(t *testing.T, c net.Conn, send string) string {
	t.Helper()
	io.WriteString(c, send)
	c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("%q, then %v", b, err)
	}
	return string(b)
}

func TestSocketsAreServedUntilTheyEndOrLeave(t *testing.T) {
	g := open(t)
	for send, want := range map[string]string{
		"a\nb\n":        "A\nB\n",
		"a\nend\n":      "A\nEND\n",
		"a\nleave\nb\n": "A\nleave\nb\n",
	} {
		p, c, s := pair(t, g)
		s.Start()
		if got := converse(t, c, send); got != want {
			t.Errorf("%q is answered by %q, want %q", send, got, want)
		}
		if err := <-p.ended; err != nil {
			t.Error(err)
		}
	}
}

func TestSocketsThatAreToEndEnd(t *testing.T) {
	for name, end := range map[string]func(*Group, *Socket){
		"Drain":                  func(_ *Group, s *Socket) { s.Start(); s.Drain() },
		"Drain before the start": func(_ *Group, s *Socket) { s.Drain(); s.Start() },
		"Abort":                  func(_ *Group, s *Socket) { s.Start(); s.Abort(); s.Abort() },
		"Abort before the start": func(_ *Group, s *Socket) { s.Abort(); s.Start() },
		"Close":                  func(g *Group, s *Socket) { s.Start(); g.Close() },
		"Close before the start": func(g *Group, s *Socket) { g.Close(); s.Start(); s.Drain() },
	} {
		g := open(t)
		p, c, s := pair(t, g)
		end(g, s)
		if err := <-p.ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}
