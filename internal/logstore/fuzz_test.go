package logstore

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzDecodeBlock feeds damaged frames, with checksums made right again, to the
// decoders.
func FuzzDecodeBlock(f *testing.F) {
	c := newCodecs()
	frame, m := appendBlock(nil, []entry{
		{key: Position{5, 9}, ingested: 7, stream: 3, message: "a"},
		{key: Position{6, 2}, ingested: 4, stream: 1, message: "bcd"},
	}, c.fast())
	f.Add(frame[frameHeader:])
	f.Add(appendFooter(nil, []blockMeta{m})[frameHeader:])
	f.Add(appendStreamRecord(nil, recordCreated, &stream{id: 1, name: "s", created: 5})[frameHeader:])
	f.Fuzz(func(t *testing.T, body []byte) {
		frame := append(make([]byte, frameHeader), body...)
		finishFrame(frame, blockMagic)
		if m, entries, err := c.decodeBlock(frame, nil); err == nil && len(entries) != m.count {
			t.Errorf("%d entries, meta says %d", len(entries), m.count)
		}
		finishFrame(frame, footerMagic)
		decodeFooter(frame)
		finishFrame(frame, catalogueMagic)
		decodeStreamRecord(frame)
	})
}

// FuzzOpenLog opens a store whose log is any bytes: it must open, and work.
func FuzzOpenLog(f *testing.F) {
	c := newCodecs()
	frame, _ := appendBlock([]byte(fileHeader), []entry{{key: Position{5, 9}, stream: 0, message: "a"}}, c.fast())
	f.Add(frame, []byte(catalogueHeader))
	f.Add(append(frame, frame[len(fileHeader):]...), appendStreamRecord([]byte(catalogueHeader), recordCreated, &stream{name: "s"}))
	f.Fuzz(func(t *testing.T, log, catalogue []byte) {
		dir := t.TempDir()
		g := filepath.Join(dir, groupDir(1))
		if err := os.Mkdir(g, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{
			metaName:                        marshal(groupMeta{Version: metaVersion, Name: "g"}),
			catalogueName:                   append([]byte(catalogueHeader), catalogue...),
			segmentName(1, 1, 0, logSuffix): append([]byte(fileHeader), log...),
			segmentName(2, 3, 1, logSuffix): append([]byte(fileHeader), log...),
		} {
			if err := os.WriteFile(filepath.Join(g, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Append("g", "new", []Event{{Time: time.UnixMilli(1), Message: "m"}}); err != nil {
			t.Fatal(err)
		}
		if len(read(t, s, "g", ReadOptions{Streams: one("new")})) != 1 {
			t.Error("the new event is not there")
		}
	})
}
