package http1

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestServersHaveLimitsOfTheirOwn(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(echo), MaxHead: 64 << 10, MaxTarget: 60 << 10, LongHead: http.StatusRequestHeaderFieldsTooLarge})
	for name, tt := range map[string]struct{ target, field, want string }{
		"a long head":       {"/", strings.Repeat("a", MaxHead), "HTTP/1.1 200 "},
		"too long a head":   {"/", strings.Repeat("a", 64<<10), "HTTP/1.1 431 "},
		"a long target":     {"/" + strings.Repeat("a", MaxTarget), "", "HTTP/1.1 200 "},
		"too long a target": {"/" + strings.Repeat("a", 60<<10), "", "HTTP/1.1 414 "},
	} {
		got := exchange(t, addr, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-A: %s\r\n\r\n", tt.target, tt.field))
		if !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %.40q, want %s", name, got, tt.want)
		}
	}
}

func TestHTTP2WithPriorKnowledgeIsHandedOverAsItCame(t *testing.T) {
	const sent = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand more"
	came := make(chan string, 1)
	addr := start(t, &Server{Handler: http.HandlerFunc(echo), PriorKnowledge: func(c net.Conn) {
		defer c.Close()
		b := make([]byte, len(sent))
		n, _ := io.ReadFull(c, b)
		came <- string(b[:n])
	}})
	exchange(t, addr, sent)
	if got := <-came; got != sent {
		t.Errorf("%q was handed over", got)
	}
	// It begins a connection, or is a request like any other.
	if got := exchange(t, addr, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"+sent); !strings.Contains(got, "HTTP/1.1 505 ") {
		t.Errorf("after a request: %q", got)
	}
	if got := exchange(t, start(t, &Server{Handler: http.HandlerFunc(echo)}), sent); !strings.HasPrefix(got, "HTTP/1.1 505 ") {
		t.Errorf("where nobody takes it: %q", got)
	}
}

func TestClientThatSendsMegabytesReadsWhyTheyAreNotWanted(t *testing.T) {
	addr := handle(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "too large")
	})
	head := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n"
	for range 10 {
		c := dial(t, addr)
		// All is sent before anything is read, as simple clients do.
		if _, err := io.WriteString(c, head+strings.Repeat("x", 8<<20)); err != nil {
			t.Fatalf("send: %v", err)
		}
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 413 ") || !strings.HasSuffix(string(b), "too large") {
			t.Fatalf("answer %q, %v", b, err)
		}
	}
}
