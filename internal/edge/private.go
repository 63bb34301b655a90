package edge

import (
	"errors"
	"io"
	"net/http"
	"time"

	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/freshness"
)

// keeps tells whether an answer that is not for sharing is stored all the same, to
// be revalidated at each use, as CloudFront does with what has no lifetime but a
// validator. One that sets cookies is its viewer's alone.
func keeps(a *fetched, life freshness.Lifetime) bool {
	return life.Store && life.TTL == 0 && a.status == http.StatusOK && a.result != resultOf(true) && a.body != nil && !a.cut &&
		freshness.ValidatorsOf(a.header).Any() && a.header["Set-Cookie"] == nil && a.header["Vary"] == nil
}

// keep stores an answer while its viewer reads it, by a fill that nobody joins.
func (a *fetched) keep(f *cache.Fill, j *job, path string, life freshness.Lifetime) {
	life.WhileRevalidate, life.IfError = 0, 0 // each use asks the origin
	header, _ := split(a.header.Clone())
	f.Begin(cache.Head{
		Status: a.status, Header: header, Distribution: j.site.d.ID, Path: path, Lifetime: life, Length: a.length,
	})
	a.body = &keeping{ReadCloser: a.body, f: f}
}

// errUnread ends the storing of a body that its viewer has not read to the end.
var errUnread = errors.New("the viewer left before the end")

// keeping is a body that goes into the cache as it is read.
type keeping struct {
	io.ReadCloser
	f     *cache.Fill
	ended bool
}

// Read implements io.Reader.
func (k *keeping) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	if k.ended {
		return n, err
	}
	if n > 0 {
		if _, failed := k.f.Write(p[:n]); failed != nil {
			k.end(failed)
			return n, err
		}
	}
	if err == io.EOF {
		k.ended = true
		_ = k.f.Commit() // what is not stored is asked for again
	} else if err != nil {
		k.end(err)
	}
	return n, err
}

// Close implements io.Closer.
func (k *keeping) Close() error {
	if !k.ended {
		k.end(errUnread)
	}
	return k.ReadCloser.Close()
}

func (k *keeping) end(err error) {
	k.ended = true
	k.f.Abort(err)
}

// private answers with an object that is revalidated at each use, for this viewer
// alone: an answer of the origin to one is none to others. It returns nil where
// there is no such object.
func (x *exchange) private(key cache.Key) (*answer, error) {
	o, ok := x.s.cache.Get(key)
	if !ok {
		return nil, nil
	}
	if l := o.Head.Lifetime; l.TTL > 0 || l.WhileRevalidate > 0 {
		o.Release()
		return nil, nil
	}
	f := x.s.cache.Private(key)
	j := x.job()
	j.dropConditions()
	j.revalidate(o.Head.Header)
	w := &filler{s: x.s, j: j, path: x.invalidationPath()}
	a, err := j.ask(x.r.Context())
	if err != nil {
		o.Release()
		f.Abort(err)
		return nil, err
	}
	if a.status == http.StatusNotModified {
		a.close()
		f.Abort(errUnread)
		h := *o.Head
		h.Header = freshness.Refresh(h.Header, a.header)
		a.status, a.header = h.Status, h.Header
		switch h.Lifetime = w.lifetime(a); {
		case h.Lifetime.Collapses(): // from now on it is for all
			h.Header, _ = split(h.Header.Clone())
			shared := f.Refresh(o, h)
			o.Release()
			o = shared
		case !h.Lifetime.Store:
			x.s.cache.Remove(key) // this is its last use
		}
		hit := hit(o, time.Now(), resultRefresh)
		hit.header = a.header
		hit.firstByte = a.received.Sub(a.requested)
		return hit, nil
	}
	o.Release()
	if life := w.lifetime(a); keeps(a, life) {
		a.keep(f, j, w.path, life)
		return a.answer(), nil
	}
	// It is of another kind now: the next request finds out.
	x.s.cache.Remove(key)
	f.Abort(errUnread)
	return a.answer(), nil
}
