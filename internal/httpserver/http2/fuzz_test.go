package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// script is a connection that has something to read, and keeps what is written.
type script struct {
	net.Conn
	in io.Reader

	mu  sync.Mutex
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error) { return s.in.Read(p) }

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *script) Close() error                     { return nil }
func (s *script) RemoteAddr() net.Addr             { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// frames makes bytes that a client may send.
func frames(f func(*xhttp2.Framer)) []byte {
	var b bytes.Buffer
	fr := xhttp2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	_ = fr.WriteSettings()
	f(fr)
	return b.Bytes()
}

// Whatever comes, the connection ends with its reader, panics nowhere, and what it
// has answered are frames and field blocks that another implementation reads.
func FuzzConnection(f *testing.F) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, field := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: "/"}, {Name: "x", Value: "y"}} {
		_ = e.WriteField(field)
	}
	f.Add(frames(func(fr *xhttp2.Framer) {
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, PadLength: 3, Priority: xhttp2.PriorityParam{Weight: 3}})
		_ = fr.WriteDataPadded(1, false, []byte("abc"), make([]byte, 5))
		_ = fr.WriteWindowUpdate(1, 10)
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0, 1, 'a', 1, 'b'}, EndHeaders: true, EndStream: true})
		_ = fr.WritePing(false, [8]byte{1})
	}))
	f.Add(frames(func(fr *xhttp2.Framer) {
		_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82, 0x87}})
		_ = fr.WriteContinuation(1, true, []byte{0x84})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x82, 0x84, 0x87}, EndHeaders: true, EndStream: true})
		_ = fr.WriteRSTStream(3, 8)
		_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 20})
		_ = fr.WriteGoAway(0, 0, nil)
	}))
	f.Fuzz(func(t *testing.T, in []byte) {
		conn := &script{in: io.MultiReader(bytes.NewReader([]byte(preface)), bytes.NewReader(in))}
		s := &Server{Logger: slog.New(slog.DiscardHandler), Fast: fastFor("x"), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil && r.ContentLength >= 0 && int64(len(body)) != r.ContentLength {
				t.Errorf("%d bytes of %d", len(body), r.ContentLength)
			}
			_, _ = w.Write(body)
			w.Header().Set(http.TrailerPrefix+"X", "y")
		})}
		s.ServeConn(context.Background(), conn)
		fr := xhttp2.NewFramer(nil, &conn.out)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for {
			if _, err := fr.ReadFrame(); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// fastFor answers requests with a field of that name.
type fastFor string

func (f fastFor) ServeHit(h *Head, r *Reply) bool {
	for _, field := range h.Fields {
		if field.Name == string(f) {
			return fast("hit").ServeHit(h, r)
		}
	}
	return false
}
