package runtimes

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A registry that stops in the middle of a file must not hold Add for ever.
func TestADownloadThatStallsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		go func() {
			io.ReadFull(there, make([]byte, 1)) // the request begins
			go io.Copy(io.Discard, there)
			io.WriteString(there, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
			time.Sleep(stallTimeout - time.Second)
			io.WriteString(there, "more") // late, but not too late
		}()
		f := newFetcher(nil)
		f.client.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return here, nil }}
		began := time.Now()
		_, err := f.bytes(t.Context(), "http://registry.invalid/file", nil, 1000)
		if !errors.Is(err, errStalled) {
			t.Errorf("%v, want %v", err, errStalled)
		}
		if took := time.Since(began); took != 2*stallTimeout-time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestWaitingForAnotherAddCanBeCancelled(t *testing.T) {
	r := openTest(t)
	unlock, err := lock(t.Context(), filepath.Join(r.dir, "added", ".lock"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	err = r.Add(ctx, "nodejs22.x", func(p Progress) {
		if strings.HasPrefix(p.Step, "wait for another") {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Add: %v", err)
	}
}
