package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
)

// HTTP/2 counts 32 bytes for each field beside what it has.
func TestTheLargestHeadersOfViewersAndOriginsPassBetweenNodes(t *testing.T) {
	a, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	asker, err := a.Node(Identity{Edge, "FRA56-P1"})
	if err != nil {
		t.Fatal(err)
	}
	asked, err := a.Node(Identity{Edge, "LHR61-P1"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- asked.Serve(ctx, ServerOptions{Listener: l, Logger: slog.New(slog.DiscardHandler), Handler: http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				// 32 KB, as an origin may send them by HTTP/1.1: "Aaaa:\r\n".
				for i := range 32 << 10 / 7 {
					w.Header()[fmt.Sprintf("A%03x", i)] = []string{""}
				}
				_, _ = fmt.Fprint(w, len(r.Header))
			})})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+l.Addr().String(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 512 {
		r.Header[fmt.Sprintf("A%03x", i)] = []string{strings.Repeat("x", 59)}
	}
	r.Header["Lapwing-Tier"] = []string{strings.Repeat("%2F", 8<<10)} // the path
	transport := asker.TransportTo(asked.Identity)
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK || len(answer.Header) < 32<<10/7 {
		t.Errorf("%s with %d fields", answer.Status, len(answer.Header))
	}
}
