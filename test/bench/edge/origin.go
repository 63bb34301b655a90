package main

import (
	"bytes"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// slowness is how long the origin takes for an answer in a storm.
const slowness = 500 * time.Millisecond

// origin is what all servers are in front of.
type origin struct {
	port     int
	server   *http.Server
	requests atomic.Int64
	plays    sync.Map // of rules, by id
}

func startOrigin() (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{port: l.Addr().(*net.TCPAddr).Port}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: time.Minute}
	go func() { _ = o.server.Serve(l) }()
	return o, nil
}

// close ends the origin, unless it is somebody else's.
func (o *origin) close() {
	if o.server != nil {
		_ = o.server.Close()
	}
}

// ServeHTTP answers /size/N/… with N bytes for an hour, /slow/… with 1 KB after a
// while, and /never/… likewise with what must not be stored.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.requests.Add(1)
	_, path, _ := strings.Cut(r.URL.Path, "/")
	kind, rest, _ := strings.Cut(path, "/")
	if kind == "rule" {
		if p, ok := o.plays.Load(rest); ok {
			p.(*play).serve(w, r)
			return
		}
	}
	h := w.Header()
	h.Set("Cache-Control", "max-age=3600")
	h.Set("Content-Type", "text/plain")
	size := 1024
	switch kind {
	case "size":
		n, _, _ := strings.Cut(rest, "/")
		if v, err := strconv.Atoi(n); err == nil {
			size = v
		}
	case "slow":
		time.Sleep(slowness)
	case "never":
		h.Set("Cache-Control", "no-store")
		time.Sleep(slowness)
	}
	h.Set("Content-Length", strconv.Itoa(size))
	_, _ = w.Write(bytes.Repeat([]byte("x"), size))
}
