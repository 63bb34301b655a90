package edge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/edge/tier"
)

// idleWebSocket is how long a WebSocket connection may be silent ("Using
// WebSockets with CloudFront distributions").
const idleWebSocket = 10 * time.Minute

// isUpgrade tells whether a viewer asks for a WebSocket: over HTTP/1.1 only, as on
// CloudFront.
func isUpgrade(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && hasToken(r.Header["Connection"], "upgrade")
}

func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// upgrade connects a viewer with the origin, once that has agreed, and passes
// bytes until one of them ends or neither says anything.
func (x *exchange) upgrade() {
	j := x.job()
	j.level = tier.Shield // a connection goes straight to the origin
	j.header["Connection"], j.header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	for name, v := range x.request.Header {
		if strings.HasPrefix(name, "Sec-Websocket-") {
			j.header[name] = v
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(x.r.Context()))
	defer cancel()
	stop := context.AfterFunc(x.s.ctx, cancel)
	defer stop()
	f, err := j.ask(ctx)
	if err != nil {
		x.failed(err)
		return
	}
	if f.status != http.StatusSwitchingProtocols {
		x.deliver(f.answer())
		return
	}
	defer f.close()
	far, ok := f.body.(io.ReadWriteCloser)
	if !ok {
		x.failed(errors.New("the origin's connection cannot be written to"))
		return
	}
	x.splice(far, f)
}

// splice hands the viewer's connection over.
func (x *exchange) splice(far io.ReadWriteCloser, f *fetched) {
	near, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		x.failed(err)
		return
	}
	_ = near.SetDeadline(time.Time{}) // what the server had for requests; time is kept below
	x.out.status, x.out.result = http.StatusSwitchingProtocols, resultMiss
	x.out.firstByte = time.Since(x.began)
	head := http.Header{}
	for name, v := range f.header {
		head[name] = v
	}
	head["Connection"], head["Upgrade"] = []string{"upgrade"}, []string{"websocket"}
	x.ownResponseHeaders(f.answer(), head)
	var text strings.Builder
	text.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	if err := head.Write(&text); err != nil {
		return
	}
	text.WriteString("\r\n")
	// The end of either side is that of both: also of a write that the other one does
	// not take.
	end := sync.OnceFunc(func() { _ = near.Close(); _ = far.Close() })
	defer end()
	defer context.AfterFunc(x.s.ctx, end)()
	silent := time.AfterFunc(x.s.silence, end)
	defer silent.Stop()
	if _, err := io.WriteString(near, text.String()); err != nil {
		return
	}
	var sides sync.WaitGroup
	sides.Go(func() { defer end(); _ = x.s.pass(far, buffered, silent, nil) })
	sides.Go(func() { defer end(); _ = x.s.pass(near, far, silent, &x.out.bytes) })
	sides.Wait()
}

// pass copies one direction. What has passed in either one puts the end off.
func (s *Server) pass(to io.Writer, from io.Reader, end *time.Timer, count *int64) error {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
			end.Reset(s.silence)
			if count != nil {
				*count += int64(n)
			}
		}
		if err != nil {
			return err
		}
	}
}
