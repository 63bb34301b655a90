package edge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// sockets is an origin that takes WebSockets, and hands the test its ends of them.
type sockets chan net.Conn

// ServeHTTP implements http.Handler.
func (s sockets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-Websocket-Key") != "k" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "websocket")
	w.WriteHeader(http.StatusSwitchingProtocols)
	c, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		s <- c
	}
}

// open opens a WebSocket at a location; it returns both ends.
func (s sockets) open(t *testing.T, l *location) (near io.ReadWriteCloser, far net.Conn) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", l.front.URL+"/chat", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Key": {"k"}}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	if answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("X-Cache") != "Miss from cloudfront" {
		t.Fatalf("%d %v", answer.StatusCode, answer.Header)
	}
	far = <-s
	t.Cleanup(func() { _ = far.Close() })
	return answer.Body.(io.ReadWriteCloser), far
}

// says checks that what one end writes is what the other reads.
func says(t *testing.T, from io.Writer, to io.Reader, line string) {
	t.Helper()
	if _, err := io.WriteString(from, line+"\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReaderSize(to, 16).ReadString('\n'); err != nil || got != line+"\n" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestWebSocketsPassUntilEitherSideEndsThem(t *testing.T) {
	origin := make(sockets, 1)
	l := newLocation(t, origin)
	for name, viewer := range map[string]bool{"the viewer": true, "the origin": false} {
		near, far := origin.open(t, l)
		says(t, near, far, "hello")
		says(t, far, near, "hello, too")
		ends, other := io.ReadWriteCloser(far), near
		if viewer {
			ends, other = near, far
		}
		if err := ends.Close(); err != nil {
			t.Error(err)
		}
		if b, err := io.ReadAll(other); err != nil || len(b) > 0 {
			t.Errorf("%s has ended it: %q, %v", name, b, err)
		}
	}
}

// What is dynamic goes straight to the origin, past regional edge caches and shields.
func TestWebSocketsGoStraightToTheOriginFromEveryLocation(t *testing.T) {
	origin := make(sockets, 1)
	n := newNetwork(t, origin, two(), shielded("us-east-1"))
	for name, l := range n.at {
		near, far := origin.open(t, l)
		says(t, near, far, "from "+name)
		says(t, far, near, "to "+name)
	}
	if asked := n.whoWasAsked(); len(asked) > 0 {
		t.Errorf("other locations were asked: %v", asked)
	}
}

func TestWebSocketsEndWhenNothingPasses(t *testing.T) {
	for name, stuck := range map[string]bool{"nobody says anything": false, "the origin takes nothing": true} {
		t.Run(name, func(t *testing.T) {
			origin := make(sockets, 1)
			l := newLocation(t, origin)
			l.server.silence = 100 * time.Millisecond
			near, far := origin.open(t, l)
			if stuck {
				block := make([]byte, 64<<10)
				for { // until it is ended: what is on the way fills up
					if _, err := near.Write(block); err != nil {
						return
					}
				}
			}
			for end, c := range map[string]io.Reader{"viewer": near, "origin": far} {
				if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
					t.Errorf("the %s reads %q, %v", end, b, err)
				}
			}
		})
	}
}
