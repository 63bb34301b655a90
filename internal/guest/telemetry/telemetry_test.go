package telemetry

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// hang is when a test gives up.
const hang = 30 * time.Second

// received is an event as a subscriber gets it.
type received struct {
	Time, Type string
	Record     json.RawMessage
}

// listener is a subscriber that keeps what it is sent.
type listener struct {
	mu      sync.Mutex
	batches [][]received
	refuse  int // as many requests are answered with 500 first
	heads   []string
}

func (l *listener) add(batch []received) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = append(l.batches, batch)
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	refuse := l.refuse > 0
	if refuse {
		l.refuse--
	}
	l.heads = append(l.heads, r.Method+" "+r.URL.String()+" "+r.Header.Get("Content-Type"))
	l.mu.Unlock()
	if refuse {
		http.Error(w, "not now", 500)
		return
	}
	var batch []received
	if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	l.add(batch)
}

// events returns what has come, in one line each.
func (l *listener) events() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		for _, e := range b {
			all = append(all, e.Type+" "+string(e.Record))
		}
	}
	return all
}

// wait waits until n events have come.
func (l *listener) wait(t *testing.T, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(hang); ; time.Sleep(time.Millisecond) {
		got := l.events()
		if len(got) >= n {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events have come, not %d: %q", len(got), n, got)
		}
	}
}

// httpListener returns a listener and a subscription to it of all streams.
func httpListener(t *testing.T) (*listener, Subscription) {
	t.Helper()
	l := new(listener)
	srv := httptest.NewServer(l)
	t.Cleanup(srv.Close)
	return l, to("HTTP", srv.Listener.Addr())
}

func to(protocol string, addr net.Addr) Subscription {
	return Subscription{
		API: Telemetry, SchemaVersion: "2022-07-01", Types: []string{Platform, Function, Extension},
		Buffering:   Buffering{MaxItems: 1000, MaxBytes: 262144, Timeout: 25 * time.Millisecond},
		Destination: Destination{Protocol: protocol, Method: "POST", Host: "sandbox", Port: addr.(*net.TCPAddr).Port, Path: "/p"},
	}
}

func newHub(t *testing.T) *Hub {
	h := NewHub(dial)
	t.Cleanup(h.Close)
	return h
}

func subscribe(t *testing.T, h *Hub, sub Subscription) {
	t.Helper()
	if fresh, err := h.Subscribe("x", sub); err != nil || !fresh {
		t.Fatal(fresh, err)
	}
}

func line(s string) Event { return Line(Function, time.UnixMilli(1), []byte(s), false, nil) }

func TestSubscribersGetWhatHappenedBeforeThemInInit(t *testing.T) {
	l, sub := httpListener(t)
	h := newHub(t)
	h.Publish(Event{Time: time.UnixMilli(1597926692123), Type: "platform.initStart", Record: []byte(`{"a":1}`)})
	h.Publish(line("early"))
	subscribe(t, h, sub)
	h.CloseSubscriptions()
	h.Publish(line("late"))
	got := l.wait(t, 3)
	if want := `[platform.initStart {"a":1} function "early\n" function "late\n"]`; fmt.Sprint(got) != want {
		t.Errorf("got %s", got)
	}
	if l.batches[0][0].Time != "2020-08-20T12:31:32.123Z" || l.heads[0] != "POST /p application/json" {
		t.Errorf("time %s, request %s", l.batches[0][0].Time, l.heads[0])
	}
	if _, err := h.Subscribe("y", sub); err != ErrClosed {
		t.Errorf("after Init: %v", err)
	}
}

func TestNothingIsKeptWhereNobodySubscribed(t *testing.T) {
	h := newHub(t)
	if !h.Wanted() {
		t.Error("not wanted in Init")
	}
	h.CloseSubscriptions()
	h.Publish(line("x"))
	if h.Wanted() || len(h.history) > 0 {
		t.Error("wanted after Init")
	}
}

func TestRepeatedSubscriptionReplacesTheFormer(t *testing.T) {
	l, sub := httpListener(t)
	h := newHub(t)
	subscribe(t, h, sub)
	sub.Types = []string{Extension}
	if fresh, err := h.Subscribe("x", sub); fresh || err != nil {
		t.Fatal(fresh, err)
	}
	h.Publish(line("no"))
	h.Publish(Line(Extension, time.Now(), []byte("yes"), false, nil))
	if got := l.wait(t, 1); len(got) != 1 || got[0] != `extension "yes\n"` {
		t.Errorf("got %q", got)
	}
	sub.API, sub.SchemaVersion = Logs, "2020-08-15"
	if _, err := h.Subscribe("x", sub); err == nil || err.Error() != "extension is already subscribed using the Telemetry API" {
		t.Errorf("by the other API: %v", err)
	}
}

func TestSubscriptionsAreLimited(t *testing.T) {
	_, sub := httpListener(t)
	h := newHub(t)
	for i := range maxSubscriptions {
		if _, err := h.Subscribe(fmt.Sprint(i), sub); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Subscribe("more", sub); err == nil {
		t.Error("one more was accepted")
	}
}

func TestTCPSubscriberGetsLines(t *testing.T) {
	srv, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	l := new(listener)
	go func() {
		for first := true; ; first = false {
			conn, err := srv.Accept()
			if err != nil {
				return
			}
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				var e received
				if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
					t.Error(err)
				}
				l.add([]received{e})
				if first {
					break // the subscriber starts anew: another connection is made
				}
			}
			conn.Close()
		}
	}()
	h := newHub(t)
	subscribe(t, h, to("TCP", srv.Addr()))
	h.Publish(line("one"))
	l.wait(t, 1)
	// What was written to a connection that has just ended is lost, as the
	// documentation warns: go on until some arrives.
	for deadline := time.Now().Add(hang); len(l.events()) < 2; time.Sleep(10 * time.Millisecond) {
		h.Publish(line("more"))
		if time.Now().After(deadline) {
			t.Fatal("nothing came after the connection had ended")
		}
	}
	if got := l.events(); got[0] != `function "one\n"` || got[1] != `function "more\n"` {
		t.Errorf("got %q", got)
	}
}

func TestDeliveryIsRepeatedUntilItSucceeds(t *testing.T) {
	l, sub := httpListener(t)
	l.refuse = 2
	h := newHub(t)
	subscribe(t, h, sub)
	h.Publish(line("once"))
	if got := l.wait(t, 1); len(got) != 1 || len(l.heads) != 3 {
		t.Errorf("got %q in %d requests", got, len(l.heads))
	}
}

func TestFullBatchesDoNotWaitForTheTimeout(t *testing.T) {
	l, sub := httpListener(t)
	sub.Buffering.Timeout = 30 * time.Minute
	h := newHub(t)
	subscribe(t, h, sub)
	for range sub.Buffering.MaxItems {
		h.Publish(line("x"))
	}
	l.wait(t, sub.Buffering.MaxItems)
	big := strings.Repeat("x", sub.Buffering.MaxBytes)
	h.Publish(line(big))
	l.wait(t, sub.Buffering.MaxItems+1)
}

func TestFlushDeliversAtOnce(t *testing.T) {
	l, sub := httpListener(t)
	sub.Buffering.Timeout = 30 * time.Minute
	h := newHub(t)
	subscribe(t, h, sub)
	h.Publish(line("before"))
	h.Flush(hang)
	if got := l.events(); len(got) != 1 {
		t.Errorf("after Flush: %q", got)
	}
	h.Publish(line("after"))
	l.wait(t, 2)
}

// A subscriber that takes connections and never answers.
func TestSubscriberThatHangsLosesEventsAndIsToldOfIt(t *testing.T) {
	srv, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hung := make(chan net.Conn, 1)
	go func() {
		conn, err := srv.Accept()
		if err != nil {
			return
		}
		go io.Copy(io.Discard, conn)
		hung <- conn
	}()
	h := newHub(t)
	sub := to("HTTP", srv.Addr())
	subscribe(t, h, sub)
	h.Publish(line("first"))
	conn := <-hung
	text := strings.Repeat("y", 1024)
	const n = 2000
	for range n { // about four times the buffer
		h.Publish(line(text))
	}
	h.mu.Lock()
	s := h.subs[0]
	h.mu.Unlock()
	s.mu.Lock()
	held := len(s.buf)
	s.mu.Unlock()
	if held > 2*sub.Buffering.MaxBytes {
		t.Errorf("%d bytes are held", held)
	}
	// It recovers: everything that was kept comes, after the word of the rest.
	l := new(listener)
	go http.Serve(srv, l)
	defer srv.Close()
	conn.Close()
	got := l.wait(t, 3)
	var lost, kept int
	for _, e := range got {
		if after, ok := strings.CutPrefix(e, "platform.logsDropped "); ok {
			var d struct {
				Reason                       string
				DroppedRecords, DroppedBytes int
			}
			if err := json.Unmarshal([]byte(after), &d); err != nil {
				t.Fatal(err)
			}
			lost = d.DroppedRecords
			if d.DroppedBytes < 1024*d.DroppedRecords || !strings.HasPrefix(d.Reason, "Consumer seems to have fallen behind") {
				t.Errorf("got %+v", d)
			}
		} else {
			kept++
		}
	}
	if lost == 0 || lost+kept != n+1 || got[0] != `function "first\n"` {
		t.Errorf("%d lost, %d kept, first %q", lost, kept, got[0])
	}
}

func TestCloseDoesNotWaitForASubscriberThatHangs(t *testing.T) {
	srv, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	h := NewHub(dial)
	subscribe(t, h, to("HTTP", srv.Addr())) // in the backlog: never accepted
	h.Publish(line("x"))
	done := make(chan struct{})
	go func() {
		h.Flush(10 * time.Millisecond)
		h.Close()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(hang):
		t.Fatal("it waits")
	}
}

func TestLinesOfTheJSONFormatAreObjectsSinceTheSecondSchema(t *testing.T) {
	wrap := func() []byte { return []byte(`{"message":"w"}`) }
	for _, c := range []struct{ schema, msg, want string }{
		{"2022-07-01", `{"a": 1}`, `"{\"a\": 1}"`},
		{"2022-12-13", `{"a": 1}`, `{"a":1}`},
		{"2022-12-13", "{\n}", `{}`},
		{"2022-12-13", `{"a": `, `{"message":"w"}`},
		{"2025-01-29", `words`, `{"message":"w"}`},
		{"2025-01-29", ``, `{"message":"w"}`},
	} {
		s := &subscriber{sub: Subscription{API: Telemetry, SchemaVersion: c.schema}}
		e := Line(Function, time.UnixMilli(0), []byte(c.msg), true, wrap)
		want := `{"time":"1970-01-01T00:00:00.000Z","type":"function","record":` + c.want + `}`
		if got := string(s.append(nil, &e)); got != want {
			t.Errorf("%s %q: got %s", c.schema, c.msg, got)
		}
	}
}

func TestHistoryIsBoundedAndItsLossIsTold(t *testing.T) {
	l, sub := httpListener(t)
	sub.Buffering.MaxBytes = 1048576
	h := newHub(t)
	for range 400 {
		h.Publish(line(strings.Repeat("z", 1024)))
	}
	subscribe(t, h, sub)
	got := l.wait(t, 200)
	if !strings.HasPrefix(got[0], "platform.logsDropped ") || len(got) > 257 {
		t.Errorf("%d events, the first %q", len(got), got[0])
	}
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}
