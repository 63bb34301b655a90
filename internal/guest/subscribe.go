package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"lapwing.dev/lapwing/internal/guest/http1"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/guest/telemetry"
)

// subscribe subscribes an extension to telemetry, by either API for it.
func (g *guest) subscribe(r *http1.Request, api telemetry.API) http1.Response {
	g.mu.Lock()
	e, refusal := g.identify(r)
	g.mu.Unlock()
	if refusal != nil {
		return *refusal
	}
	invalid := func(err error) http1.Response {
		return failure(400, string(api)+".ValidationError", "%s", err)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, telemetry.MaxBody+1))
	if err != nil {
		return failure(500, "InternalServerError", "Internal Server Error")
	}
	if len(body) > telemetry.MaxBody {
		return invalid(fmt.Errorf("request body exceeds %d bytes", telemetry.MaxBody))
	}
	sub, err := telemetry.Parse(api, body)
	if err != nil {
		return invalid(err)
	}
	// Under the lock, so that the host hears of it before it hears of Init's end.
	g.mu.Lock()
	defer g.mu.Unlock()
	fresh, err := g.telemetry.Subscribe(e.name, sub)
	switch {
	case errors.Is(err, telemetry.ErrClosed):
		errorType, message := api.Closed()
		return failure(403, errorType, "%s", message)
	case err != nil:
		return invalid(err)
	}
	if fresh {
		g.link.send(proto.TypeSubscription, proto.Subscription{Name: limited(e.name), API: string(api), Types: sub.Types})
	}
	return http1.Response{Status: 200, Header: jsonHeader, Body: []byte(`"OK"`)}
}

// handleEvent takes a platform event for the subscribers.
func (g *guest) handleEvent(f proto.Frame) error {
	var e proto.Event
	record, err := f.Split(&e)
	if err != nil {
		return err
	}
	g.telemetry.Publish(telemetry.Event{
		Time: time.UnixMicro(e.TimeUs), Type: e.Type, Record: bytes.Clone(record),
	})
	return nil
}

// publishLine gives the subscribers a line that a process printed. It is called
// with logPipe.mu held.
func (g *guest) publishLine(l proto.Log, msg []byte) {
	if !g.telemetry.Wanted() {
		return
	}
	t := time.UnixMicro(l.TimeUs)
	if now := time.Now(); t.After(now) || l.TimeUs < 0 {
		t = now // the function can claim any time
	}
	g.telemetry.Publish(telemetry.Line(l.Source, t, msg, g.start.JSONLogs, func() []byte {
		var requestID string
		if id := g.requestID.Load(); id != nil {
			requestID = *id
		}
		return proto.WrapLine(t, l.Level, string(msg), requestID)
	}))
}

// maxName bounds the names that the host is told; the runtime can register an
// extension by any.
const maxName = 256

func limited(name string) string { return name[:min(len(name), maxName)] }
