package proto

import (
	"bytes"
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
