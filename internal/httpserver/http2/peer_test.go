package http2

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a client that sends and reads frames as the test has it.
type peer struct {
	*xhttp2.Framer
	t       testing.TB
	conn    *tls.Conn
	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	seen    []event // that came and were not asked for
}

// dial connects, and exchanges SETTINGS.
func dial(t testing.TB, addr string, settings ...xhttp2.Setting) *peer {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	p := &peer{Framer: xhttp2.NewFramer(conn, conn), t: t, conn: conn, decoder: hpack.NewDecoder(4096, nil)}
	p.encoder = hpack.NewEncoder(&p.block)
	p.AllowIllegalWrites = true
	_, err = io.WriteString(conn, preface)
	p.check(err)
	p.check(p.WriteSettings(settings...))
	p.next("SETTINGS")
	return p
}

func (p *peer) check(err error) {
	if err != nil {
		p.t.Helper()
		p.t.Fatal(err)
	}
}

// encode returns a field block; what a request must have and is not given is added.
func (p *peer) encode(fields ...string) []byte {
	p.block.Reset()
	for i, name := range []string{":method", ":scheme", ":authority", ":path"} {
		if !slices.Contains(fields, name) {
			_ = p.encoder.WriteField(hpack.HeaderField{Name: name, Value: []string{"GET", "https", "h", "/"}[i]})
		}
	}
	return p.encodeOnly(fields...)
}

func (p *peer) encodeOnly(fields ...string) []byte {
	for i := 0; i < len(fields); i += 2 {
		_ = p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return p.block.Bytes()
}

// request sends a request's head.
func (p *peer) request(id uint32, end bool, fields ...string) {
	p.t.Helper()
	p.check(p.try(id, end, fields...))
}

// try is request for a connection that may have ended.
func (p *peer) try(id uint32, end bool, fields ...string) error {
	return p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields...), EndHeaders: true, EndStream: end})
}

// event is a frame that came.
type event struct {
	kind   string
	stream uint32
	text   string
	end    bool
	fields []hpack.HeaderField
	ping   [8]byte
}

func (p *peer) read() (event, error) {
	f, err := p.ReadFrame()
	if err != nil {
		return event{}, err
	}
	h := f.Header()
	e := event{kind: h.Type.String(), stream: h.StreamID, end: h.Type <= xhttp2.FrameHeaders && h.Flags.Has(xhttp2.FlagDataEndStream)}
	switch f := f.(type) {
	case *xhttp2.DataFrame:
		e.text = string(f.Data())
	case *xhttp2.HeadersFrame:
		if !f.HeadersEnded() {
			return e, errors.New("a block in parts")
		}
		e.fields, err = p.decoder.DecodeFull(f.HeaderBlockFragment())
	case *xhttp2.RSTStreamFrame:
		e.text = f.ErrCode.String()
	case *xhttp2.GoAwayFrame:
		e.text = fmt.Sprintf("last %d, %v", f.LastStreamID, f.ErrCode)
	case *xhttp2.WindowUpdateFrame:
		e.text = fmt.Sprint(f.Increment)
	case *xhttp2.PingFrame:
		e.ping = f.Data
	}
	if h.Type == xhttp2.FramePing && h.Flags.Has(xhttp2.FlagPingAck) {
		e.kind = "PONG"
	}
	return e, err
}

// next returns the next frame of a kind. Others wait for their turn.
func (p *peer) next(kind string) event {
	p.t.Helper()
	return p.find(func(e event) bool { return e.kind == kind })
}

func (p *peer) find(wanted func(event) bool) event {
	p.t.Helper()
	if i := slices.IndexFunc(p.seen, wanted); i >= 0 {
		e := p.seen[i]
		p.seen = slices.Delete(p.seen, i, i+1)
		return e
	}
	for {
		e, err := p.read()
		p.check(err)
		if wanted(e) {
			return e
		}
		p.seen = append(p.seen, e)
	}
}

// pong answers a PING.
func (p *peer) pong() {
	p.t.Helper()
	p.check(p.WritePing(true, p.next("PING").ping))
}

// answered is all that came on a stream.
type answered struct {
	status, body, reset string
	trailer             []hpack.HeaderField
	frames              int // of DATA
}

// answer waits for the end of a stream, and for RST_STREAM where the request has no
// end.
func (p *peer) answer(id uint32) (a answered) {
	p.t.Helper()
	for {
		switch e := p.find(func(e event) bool { return e.stream == id && e.kind != "WINDOW_UPDATE" }); e.kind {
		case "HEADERS":
			if a.status != "" {
				a.trailer = e.fields
			} else {
				a.status = e.fields[0].Value
			}
			if e.end {
				return p.maybeReset(id, a)
			}
		case "DATA":
			a.body += e.text
			a.frames++
			if e.end {
				return p.maybeReset(id, a)
			}
		case "RST_STREAM":
			a.reset = e.text
			return a
		}
	}
}

// maybeReset takes the RST_STREAM behind an answer, which comes before the answer to
// a PING.
func (p *peer) maybeReset(id uint32, a answered) answered {
	p.t.Helper()
	if err := p.WritePing(false, [8]byte{'s', 'y', 'n', 'c'}); err != nil {
		return a
	}
	for {
		e, err := p.read()
		switch {
		case err != nil || e.kind == "PONG":
			return a
		case e.stream == id && e.kind == "RST_STREAM":
			a.reset = e.text
		default:
			p.seen = append(p.seen, e)
		}
	}
}

// end waits for the end of the connection.
func (p *peer) end() {
	p.t.Helper()
	for {
		if _, err := p.read(); err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				p.t.Error("the connection stays")
			}
			return
		}
	}
}

// refused waits for the GOAWAY that ends the connection.
func (p *peer) refused(code string) {
	p.t.Helper()
	for {
		e, err := p.read()
		switch {
		case err != nil:
			p.t.Errorf("no GOAWAY but %v", err)
			return
		case e.kind == "GOAWAY":
			if want := ", " + code; len(e.text) < len(want) || e.text[len(e.text)-len(want):] != want {
				p.t.Errorf("%s, want %s", e.text, code)
			}
			p.end()
			return
		}
	}
}
