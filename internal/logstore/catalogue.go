package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/fsync"
)

// The catalogue of a group's streams is a file of frames, each the creation or
// the deletion of a stream.
const (
	catalogueName   = "streams"
	catalogueMagic  = 0x3153574c // "LWS1"
	catalogueHeader = "LAPWSTR\x01"

	recordCreated     = 0
	recordAutoCreated = 1
	recordDeleted     = 2
)

func appendStreamRecord(dst []byte, kind byte, st *stream) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, frameHeader)...)
	dst = append(dst, kind)
	dst = binary.AppendUvarint(dst, uint64(st.id))
	dst = binary.AppendVarint(dst, st.created)
	dst = append(dst, st.name...)
	finishFrame(dst[start:], catalogueMagic)
	return dst
}

func decodeStreamRecord(frame []byte) (kind byte, st stream, err error) {
	body, err := frameBody(frame, catalogueMagic)
	if err != nil {
		return 0, st, err
	}
	r := byteReader{b: body}
	k := r.take(1)
	st.id = uint32(r.uvarint())
	st.created = r.varint()
	if r.failed || k[0] > recordDeleted {
		return 0, st, fmt.Errorf("%w: stream record", errCorrupt)
	}
	st.name = string(r.b)
	st.auto = k[0] == recordAutoCreated
	return k[0], st, nil
}

func creationKind(st *stream) byte {
	if st.auto {
		return recordAutoCreated
	}
	return recordCreated
}

// loadCatalogue reads the catalogue, cuts its torn tail, and writes it anew
// where most of it is about streams that are gone.
func (g *group) loadCatalogue() error {
	path := filepath.Join(g.dir, catalogueName)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	records := 0
	size, err := scanFrames(f, catalogueHeader, catalogueMagic, func(offset int64, frame []byte) error {
		kind, st, err := decodeStreamRecord(frame)
		if err != nil {
			g.store.log.Error("record of a log stream is damaged", "file", path, "offset", offset, "error", err)
			return err
		}
		records++
		g.nextStream = max(g.nextStream, st.id+1)
		if kind == recordDeleted {
			if old := g.byID[st.id]; old != nil {
				delete(g.byID, old.id)
				delete(g.streams, old.name)
			}
			return nil
		}
		g.streams[st.name], g.byID[st.id] = &st, &st
		return nil
	})
	if err == nil {
		err = f.Truncate(size)
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		return fmt.Errorf("logstore: %s: %w", path, err)
	}
	if size == 0 || records > 2*len(g.streams)+100 {
		return g.rewriteCatalogue()
	}
	return nil
}

func (g *group) rewriteCatalogue() error {
	b := []byte(catalogueHeader)
	for _, st := range g.byID {
		b = appendStreamRecord(b, creationKind(st), st)
	}
	if err := writeFileSync(filepath.Join(g.dir, catalogueName), b); err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	return nil
}

// record appends to the catalogue; io is held and the group persisted. A failed
// write leaves the catalogue as it was.
func (g *group) record(b []byte, durable bool) error {
	if g.catalogue == nil {
		f, err := os.OpenFile(filepath.Join(g.dir, catalogueName), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		end, err := f.Seek(0, io.SeekEnd)
		if err == nil && end == 0 {
			_, err = f.WriteString(catalogueHeader)
			err = errors.Join(err, fsync.Dir(g.dir))
		}
		if err != nil {
			f.Close()
			return err
		}
		g.catalogue = f
	}
	at, err := g.catalogue.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	_, err = g.catalogue.Write(b)
	if err == nil && durable {
		err = g.catalogue.Sync()
	}
	if err != nil {
		_, seekErr := g.catalogue.Seek(at, io.SeekStart)
		return errors.Join(err, g.catalogue.Truncate(at), seekErr)
	}
	return nil
}

// addStream makes a stream in memory; mu is held.
func (g *group) addStream(name string, now int64, auto bool) *stream {
	st := &stream{id: g.nextStream, name: name, created: now, auto: auto}
	g.nextStream++
	g.streams[name], g.byID[st.id] = st, st
	g.store.nstr.Add(1)
	return st
}

// forget removes a stream from memory; mu is held.
func (g *group) forget(st *stream) {
	delete(g.byID, st.id)
	if g.streams[st.name] == st {
		delete(g.streams, st.name)
	}
	delete(g.dropped, st)
	g.newStreams = slices.DeleteFunc(g.newStreams, func(o *stream) bool { return o == st })
	g.store.nstr.Add(-1)
}

// CreateStream makes a stream in an existing group. It returns when the stream
// is durable.
func (s *Store) CreateStream(group, name string) error {
	g, err := s.group(group)
	if err != nil {
		return err
	}
	g.io.Lock()
	defer g.io.Unlock()
	if err := g.persist(); err != nil {
		return err
	}
	g.mu.Lock()
	if g.streams[name] != nil {
		g.mu.Unlock()
		return ErrStreamExists
	}
	if s.nstr.Load() >= int64(s.opts.MaxStreams) {
		g.mu.Unlock()
		return ErrTooManyStreams
	}
	st := g.addStream(name, s.now(), false)
	g.mu.Unlock()
	if err := g.record(appendStreamRecord(nil, recordCreated, st), true); err != nil {
		g.mu.Lock()
		g.forget(st)
		g.mu.Unlock()
		return fmt.Errorf("logstore: %w", err)
	}
	return nil
}

// DeleteStream removes a stream and its events. It returns when that is
// durable; the space is given back when the segments are next rewritten or
// dropped.
func (s *Store) DeleteStream(group, name string) error {
	g, err := s.group(group)
	if err != nil {
		return err
	}
	g.io.Lock()
	defer g.io.Unlock()
	if err := g.flush(); err != nil {
		return err
	}
	g.mu.RLock()
	st := g.streams[name]
	g.mu.RUnlock()
	if st == nil {
		return ErrStreamNotFound
	}
	if err := g.record(appendStreamRecord(nil, recordDeleted, st), true); err != nil {
		return fmt.Errorf("logstore: %w", err)
	}
	g.mu.Lock()
	g.forget(st)
	segments := g.hold()
	g.mu.Unlock()
	err = g.countDead(st, segments)
	s.kick(s.maintain)
	return err
}

// countDead notes in segments, which are held, what they have of a stream that
// is gone. io is held.
func (g *group) countDead(st *stream, segments []*segment) error {
	var errs []error
	for _, seg := range segments {
		metas, err := seg.index()
		errs = append(errs, err)
		var dead int64
		for i := range metas {
			if j, ok := metas[i].find(st.id); ok {
				dead += metas[i].streams[j].bytes
			}
		}
		g.mu.Lock()
		seg.dead += dead
		g.mu.Unlock()
		g.release(seg)
	}
	return errors.Join(errs...)
}

// Streams returns the streams of a group, sorted by name.
func (s *Store) Streams(group string) ([]Stream, error) {
	g, err := s.group(group)
	if err != nil {
		return nil, err
	}
	g.flushPending()
	g.mu.RLock()
	out := make([]Stream, 0, len(g.streams))
	for _, st := range g.streams {
		out = append(out, st.describe())
	}
	g.mu.RUnlock()
	slices.SortFunc(out, func(a, b Stream) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Stream returns one stream.
func (s *Store) Stream(group, name string) (Stream, error) {
	g, err := s.group(group)
	if err != nil {
		return Stream{}, err
	}
	g.flushPending()
	g.mu.RLock()
	defer g.mu.RUnlock()
	st := g.streams[name]
	if st == nil {
		return Stream{}, ErrStreamNotFound
	}
	return st.describe(), nil
}

func (st *stream) describe() Stream {
	d := Stream{Name: st.name, Created: fromMillis(st.created)}
	if st.stat.bytes > 0 {
		d.FirstEvent = fromMillis(st.stat.first)
		d.LastEvent = fromMillis(st.stat.last)
		d.LastIngestion = fromMillis(st.stat.ingested)
	}
	return d
}
