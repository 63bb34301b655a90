package proto

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestFramesGoThere(t *testing.T) {
	var b []byte
	start := Start{Command: []string{"/bin/x", "y"}, Dir: "/", Env: map[string]string{"A": "é"}, UID: 993, FramedLogs: true}
	b = AppendFrame(b, TypeStart, start)
	inv := Invocation{RequestID: "r", DeadlineMs: 1, ClientContext: `{"a":"b"}`}
	b = append(AppendMeta(b, TypeInvoke, inv, 5), "event"...)
	large := bytes.Repeat([]byte("x"), MaxChunk+1)
	b = append(AppendData(b, TypeResponseData, len(large)), large...)
	b = AppendData(b, TypeResponseData, 0)

	r := NewReader(bytes.NewReader(b))
	var s Start
	var i Invocation
	f, err := r.Read()
	if err != nil || f.Type != TypeStart || f.Decode(&s) != nil || !reflect.DeepEqual(s, start) {
		t.Fatalf("%+v %v", s, err)
	}
	f, err = r.Read()
	if err != nil || f.Type != TypeInvoke {
		t.Fatal(f.Type, err)
	}
	if body, err := f.Split(&i); err != nil || string(body) != "event" || i != inv {
		t.Fatalf("%q %+v %v", body, i, err)
	}
	kept, err := r.Read()
	if err != nil || !bytes.Equal(kept.Payload, large) {
		t.Fatal(err)
	}
	if f, err = r.Read(); err != nil || len(f.Payload) != 0 {
		t.Fatal(err)
	}
	if !bytes.Equal(kept.Payload, large) {
		t.Error("a large payload was overwritten")
	}
	if _, err = r.Read(); err != io.EOF {
		t.Fatal(err)
	}
}

func TestBadFrames(t *testing.T) {
	for name, in := range map[string]string{
		"too large":      "\x01\x00\x00\x00\xff\xff\xff\xff",
		"cut header":     "\x01\x00\x00",
		"cut payload":    "\x01\x00\x00\x00\x00\x00\x00\x02x",
		"no payload yet": "\x01\x00\x00\x00\x00\x00\x00\x02",
	} {
		if _, err := NewReader(strings.NewReader(in)).Read(); err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, p := range []string{"", "\x00\x00\x00", "\x00\x00\x00\x03{}", "\xff\xff\xff\xff{}", "\x00\x00\x00\x02[]"} {
		if _, err := (Frame{Payload: []byte(p)}).Split(new(Log)); err == nil {
			t.Errorf("%q was split", p)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(AppendFrame(nil, TypeHello, Hello{1}))
	f.Add(append(AppendMeta(nil, TypeLog, Log{TimeUs: 1, Source: "function"}, 2), "hi"...))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		left := len(in)
		for {
			fr, err := r.Read()
			if err != nil {
				if (err == io.EOF) != (left == 0) {
					t.Fatalf("%v with %d bytes left", err, left)
				}
				return
			}
			left -= headerLen + len(fr.Payload)
			var m Log
			if body, err := fr.Split(&m); err == nil && len(body) > len(fr.Payload)-4 {
				t.Fatal("the body exceeds the payload")
			}
		}
	})
}

// dripping gives what it has in pieces, each after an error that passes.
type dripping struct {
	left  []byte
	piece int
	paid  bool
}

var errPasses = errors.New("not now")

func (d *dripping) Read(p []byte) (int, error) {
	if d.paid = !d.paid; d.paid {
		return 0, errPasses
	}
	if len(d.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, d.left[:min(d.piece, len(d.left))])
	d.left = d.left[n:]
	return n, nil
}

func TestReadGoesOnAfterAnErrorThatPasses(t *testing.T) {
	var in []byte
	sizes := []int{0, 1, 4096, MaxChunk, MaxChunk + 1, 3 * MaxChunk, 5, MaxChunk - headerLen, MaxChunk}
	for i, n := range sizes {
		in = append(AppendData(in, Type(i), n), bytes.Repeat([]byte{byte(i)}, n)...)
	}
	for _, piece := range []int{1, 7, 4096, MaxChunk + headerLen, len(in)} {
		d := &dripping{left: in, piece: piece}
		r := NewReader(d)
		read := func() (Frame, error) {
			for {
				whole := r.Whole()
				f, err := r.Read()
				if whole && err != nil {
					t.Fatalf("a frame that was whole: %v", err)
				}
				if err != errPasses {
					return f, err
				}
			}
		}
		for i, n := range sizes {
			f, err := read()
			if err != nil || f.Type != Type(i) || !bytes.Equal(f.Payload, bytes.Repeat([]byte{byte(i)}, n)) {
				t.Fatalf("pieces of %d, frame %d: type %d, %d bytes, %v", piece, i, f.Type, len(f.Payload), err)
			}
		}
		if n := r.Buffered(); n != 0 {
			t.Errorf("pieces of %d: %d bytes are left", piece, n)
		}
		if _, err := read(); err != io.EOF {
			t.Errorf("pieces of %d: %v", piece, err)
		}
	}
}
