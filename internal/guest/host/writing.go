package host

import (
	"context"
	"fmt"
	"time"

	"lapwing.dev/lapwing/internal/guest/proto"
)

// write sends one frame, or the events that wait alone where t is 0. If ctx ends
// before all is sent, the connection ends too.
func (c *Conn) write(ctx context.Context, t proto.Type, v any, body []byte) error {
	if !c.wmu.TryLock() {
		c.attend() // who writes waits for the guest, which may wait until it is read
		c.wmu.Lock()
	}
	defer c.wmu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	head := c.events.take(c.wbuf[:0]) // the events that wait go along
	switch t {
	case 0:
	case proto.TypeInvoke:
		head = proto.AppendMeta(head, t, v, len(body))
	default:
		head = proto.AppendFrame(head, t, v)
	}
	if len(body) <= proto.MaxChunk {
		head, body = append(head, body...), nil
	}
	c.wbuf = head
	err := c.transmit(ctx, head, body)
	if err == nil {
		return nil
	}
	// A frame may have been cut short: nothing can follow it.
	c.conn.Close()
	c.attend()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("host: %w", err)
}

// transmit sends head and then body. c.wmu is held.
func (c *Conn) transmit(ctx context.Context, head, body []byte) (err error) {
	if head, err = c.tryWrite(head); err == nil && len(head) == 0 {
		body, err = c.tryWrite(body)
	}
	if err != nil || len(head)+len(body) == 0 {
		return err
	}
	c.attend()
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.conn.SetWriteDeadline(time.Unix(1, 0))
		close(cut)
	})
	for _, rest := range [...][]byte{head, body} {
		if err == nil && len(rest) > 0 {
			_, err = c.conn.Write(rest)
		}
	}
	if !stop() {
		<-cut // it must not cut the next write short
		c.conn.SetWriteDeadline(time.Time{})
	}
	return err
}

// tryWrite sends as much of b as the socket takes at once, and returns the rest.
func (c *Conn) tryWrite(b []byte) (rest []byte, err error) {
	q, ok := c.conn.(interface{ TryWrite([]byte) (int, error) })
	if !ok || len(b) == 0 {
		return b, nil
	}
	n, err := q.TryWrite(b)
	return b[n:], err
}
