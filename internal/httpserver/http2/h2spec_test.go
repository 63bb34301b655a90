package http2

import (
	"net"
	"net/http"
	"os/exec"
	"testing"
	"time"
)

// h2spec holds servers to the RFCs of HTTP/2 and HPACK, by some 150 tests.
func TestH2spec(t *testing.T) {
	host, port, err := net.SplitHostPort(start(t, &Server{Handler: http.HandlerFunc(hello), HeaderTimeout: 10 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "tool", "h2spec", "--tls", "--insecure", "--strict", "--timeout", "5", "--host", host, "--port", port).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
