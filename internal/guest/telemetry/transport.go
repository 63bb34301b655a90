package telemetry

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// loopback is where sandbox.localdomain is, in every sandbox.
const loopback = "127.0.0.1"

// maxAnswer bounds what is read of a listener's answer.
const maxAnswer = 64 * 1024

// transport sends batches to one destination. It speaks HTTP itself, one
// request a connection: net/http would be much of a sandbox program, which every
// cold start waits for.
type transport struct {
	destination Destination
	dial        Dial
	conn        net.Conn // of TCP, between batches
}

func (t *transport) close() {
	if t.conn != nil {
		t.conn.Close()
	}
}

// send sends one batch. An error means that it may not have arrived.
func (t *transport) send(ctx context.Context, batch []byte) error {
	conn := t.conn
	t.conn = nil
	if conn == nil {
		var err error
		conn, err = t.dial(ctx, net.JoinHostPort(loopback, strconv.Itoa(t.destination.Port)))
		if err != nil {
			return fmt.Errorf("telemetry: %w", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if t.destination.Protocol == "HTTP" {
		defer conn.Close()
		return t.post(conn, batch)
	}
	if _, err := conn.Write(batch); err != nil {
		conn.Close()
		return fmt.Errorf("telemetry: %w", err)
	}
	t.conn = conn
	return nil
}

// post makes one HTTP request on conn.
func (t *transport) post(conn net.Conn, batch []byte) error {
	d := &t.destination
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: lapwing\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
		d.Method, d.Path, d.Host, d.Port, len(batch))
	if _, err := (&net.Buffers{[]byte(head), batch}).WriteTo(conn); err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	answer := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	line, err := answer.ReadString('\n')
	if err != nil {
		return fmt.Errorf("telemetry: no answer: %w", err)
	}
	proto, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	status, _, _ := strings.Cut(rest, " ")
	if !strings.HasPrefix(proto, "HTTP/1.") || len(status) != 3 || status[0] != '2' {
		return fmt.Errorf("telemetry: answer %.40q", line)
	}
	// To its end: a connection that is closed before is reset, and the listener
	// might lose what it has not read yet.
	_, _ = io.Copy(io.Discard, answer)
	return nil
}
