package edge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/compress"
	"lapwing.dev/lapwing/internal/edge/freshness"
	"lapwing.dev/lapwing/internal/edge/origin"
	"lapwing.dev/lapwing/internal/edge/tier"
)

// Short names for what an object may be used for.
const (
	fresh = freshness.Fresh
	stale = freshness.Stale
)

// The results of requests that the cache or an origin answered.
const (
	resultHit     = "Hit"
	resultMiss    = "Miss"
	resultRefresh = "RefreshHit"
)

// The notes of stored objects.
const (
	noteFailure = "failure" // of an origin: its detail
	noteLength  = "length"  // of the body that a HEAD was not sent
)

// lead is a fetch, as the viewer sees it who caused it.
type lead struct {
	// These are set before the fill has an object.
	result    string
	layer     tier.Level // of the cache that had a hit
	firstByte time.Duration
	fields    http.Header // of the answer, that are for this viewer only
	// own has the answer where it turned out to be for this viewer only.
	own chan ownAnswer

	mu   sync.Mutex
	gone bool // there is no viewer, or he has left: nobody takes own
}

// viewer tells whether a viewer waits, which is told before the fetch begins.
func (l *lead) viewer() bool { return l.own != nil }

// give hands over what is for the viewer only, and gives it up where he is gone.
func (l *lead) give(a ownAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		a.drop()
		return
	}
	l.own <- a // which has room for one
}

// leave is for a viewer who does not take own.
func (l *lead) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	select {
	case a := <-l.own:
		a.drop()
	default:
	}
}

type ownAnswer struct {
	*fetched
	cancel func()
}

// drop gives the answer up.
func (a ownAnswer) drop() {
	a.close()
	a.cancel()
}

// filler fetches the object of a key, for all who wait for it.
type filler struct {
	s     *Server
	j     *job
	f     *cache.Fill
	key   cache.Key
	whole cache.Key // where key is that of a part
	part  string
	path  string        // by which invalidations name the object
	stale *cache.Object // what is there already; nil: nothing
	lead  *lead
	// unlink lets the request to the origin go on when the fill has ended.
	unlink func() bool
}

// lead fetches the object on behalf of a viewer, and goes on for the others when
// the viewer leaves.
func (x *exchange) lead(key cache.Key, part string, f *cache.Fill) *lead {
	l := &lead{result: resultMiss, own: make(chan ownAnswer, 1)}
	x.fill(key, part, f, l)
	return l
}

// refresh fetches a stale object, or part, anew in the background, unless that is
// under way.
func (x *exchange) refresh(key cache.Key, part string) {
	if f := x.s.cache.Lead(key, int(x.depth())); f != nil {
		x.fill(key, part, f, &lead{gone: true})
	}
}

func (x *exchange) fill(key cache.Key, part string, f *cache.Fill, l *lead) {
	w := &filler{s: x.s, j: x.job(), f: f, key: key, part: part, lead: l, path: x.invalidationPath()}
	w.j.level = tier.Level(f.Depth())
	w.j.dropConditions()
	if part != headOnly && w.j.method == http.MethodHead {
		w.j.method = http.MethodGet // the object that is refreshed has a body
	}
	if w.ranged() {
		w.j.header["Range"] = []string{part}
		w.whole = x.key("")
	}
	if o, ok := x.s.cache.Get(key); ok {
		w.stale = o
	}
	if now := time.Now(); l.viewer() && w.stale != nil && w.stale.Head.Lifetime.State(now) == fresh {
		// The fill before this one has ended since the viewer missed.
		l.result = resultHit
		f.Resolve(w.stale)
		w.stale.Release()
		return
	}
	x.s.fetches.Go(w.run)
}

// ranged tells whether a range of the object is fetched.
func (w *filler) ranged() bool { return w.part != "" && w.part != headOnly }

// invalidationPath is the path by which an invalidation names the object: with the
// query where that is part of the key.
func (x *exchange) invalidationPath() string {
	if q := x.plan.KeyedQuery(x.request.Query); q != "" {
		return x.request.Path + "?" + q
	}
	return x.request.Path
}

// errPanic ends a fetch that has met a mistake of ours.
var errPanic = errors.New("internal failure")

// run fetches. However it ends, the fill ends with it.
func (w *filler) run() {
	defer func() {
		if p := recover(); p != nil {
			w.s.log.Error("panic while an object was fetched", "requestId", w.j.id, "panic", p, "stack", string(debug.Stack()))
			w.f.Abort(errPanic)
		}
		if w.stale != nil {
			w.stale.Release()
		}
	}()
	// The context is not the fill's own, which ends when an answer is not shared.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(w.f.Context()))
	w.unlink = context.AfterFunc(w.f.Context(), func() { cancel(context.Cause(w.f.Context())) })
	defer w.unlink()
	if w.stale != nil {
		w.j.revalidate(w.stale.Head.Header)
	}
	a, err := w.j.ask(ctx)
	if err != nil {
		w.failed(err)
		cancel(nil)
		return
	}
	w.lead.firstByte = a.received.Sub(a.requested)
	if a.result != "" {
		w.lead.result = a.result
	}
	if a.from != nil {
		w.lead.layer = a.from.Layer
	}
	switch {
	case w.stale != nil && a.status == http.StatusNotModified:
		w.validated(a)
	case w.stale != nil && freshness.Failed(a.status) && w.stale.Head.Lifetime.OnError(time.Now()):
		w.useStale(a.status)
	default:
		life := w.lifetime(a)
		if a.cut || !life.Collapses() {
			// It is for this viewer only, who takes it over.
			w.unlink()
			if w.stale != nil && a.status < http.StatusBadRequest {
				w.s.cache.Remove(w.key) // it was for all, and is so no more
			}
			if w.part == "" && keeps(a, life) {
				a.keep(w.f.Private(), w.j, w.path, life)
			}
			w.lead.give(ownAnswer{a, func() { cancel(nil) }})
			w.f.Unshared()
			return
		}
		if w.ranged() && a.status == http.StatusOK {
			w.switchToWhole(a, life)
		} else {
			w.store(w.f, a, life)
		}
	}
	a.close()
	cancel(nil)
}

// store writes an answer into the cache and to all who wait.
func (w *filler) store(f *cache.Fill, a *fetched, life freshness.Lifetime) {
	w.compress(a)
	h := cache.Head{
		Status: a.status, Distribution: w.j.site.d.ID, Path: w.path, Lifetime: life, Length: a.length,
	}
	if w.part == headOnly {
		h.Length, h.Note = 0, map[string]string{noteLength: strconv.FormatInt(a.length, 10)}
	}
	h.Header, w.lead.fields = split(a.header)
	f.Begin(h)
	if a.body != nil {
		if _, err := copyBuffered(f, a.body); err != nil {
			f.Abort(err)
			return
		}
	}
	if err := f.Commit(); err != nil {
		w.s.log.Debug("an object was not stored", "distribution", w.j.site.d.ID, "path", w.path, "error", err)
	}
}

// compress has a body compressed on its way into the cache, where the behaviour,
// the viewer and the object are of that kind ("Serving compressed files").
func (w *filler) compress(a *fetched) {
	c := w.j.coding
	if c == "" || a.from != nil || a.body == nil || a.length < 0 {
		return
	}
	a.header["Content-Length"] = []string{strconv.FormatInt(a.length, 10)}
	applies := compress.Applies(a.status, a.header)
	delete(a.header, "Content-Length")
	if !applies {
		return
	}
	compress.Header(a.header, c)
	a.length = -1
	if w.part != headOnly {
		a.body = compress.NewReader(c, a.body)
	}
}

// buffers are for copying bodies.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

func copyBuffered(w io.Writer, r io.Reader) (int64, error) {
	b := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(b)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, b[:])
}

// lifetime is how long an answer may be used. A part may as long as the whole.
func (w *filler) lifetime(a *fetched) freshness.Lifetime {
	if a.from != nil && a.from.Lifetime != nil {
		life := *a.from.Lifetime // as the location that asked the origin found
		life.Received = a.received
		return life
	}
	status := a.status
	if status == http.StatusPartialContent && w.ranged() {
		status = http.StatusOK
	}
	_, authorized := w.j.header["Authorization"]
	return freshness.Of(freshness.Response{
		Status: status, Header: a.header, Requested: a.requested, Received: a.received,
		Authorized: authorized && !w.j.plan.Keys("Authorization"),
	}, w.j.plan.Behaviour.TTL, freshness.ErrorTTL(w.j.site.d.ErrorPages, status))
}

// split takes from an answer's header, which becomes what is stored, the fields that
// its Cache-Control keeps from shared caches: they are for the viewer who caused it.
// The age goes too, which the lifetime has taken in.
func split(h http.Header) (stored, own http.Header) {
	delete(h, "Age")
	for _, name := range freshness.ParseCacheControl(h).Fields {
		if v, ok := h[name]; ok {
			if own == nil {
				own = http.Header{}
			}
			own[name] = v
			delete(h, name)
		}
	}
	return h, own
}

// validated takes a 304: what is there is good for another while.
func (w *filler) validated(a *fetched) {
	h := *w.stale.Head
	h.Header = freshness.Refresh(h.Header, a.header)
	a.status, a.header = h.Status, h.Header
	h.Lifetime = w.lifetime(a)
	h.Header, w.lead.fields = split(a.header)
	w.lead.result = resultRefresh
	if !h.Lifetime.Store {
		// From now on it is not to be stored: this is its last use.
		w.f.Resolve(w.stale)
		w.s.cache.Remove(w.key)
		return
	}
	o := w.f.Refresh(w.stale, h)
	w.f.Resolve(o)
	o.Release()
}

// useStale answers with what is there though it has expired, since the origin has
// failed, and leaves the origin alone for as long as errors are kept.
func (w *filler) useStale(status int) {
	w.stale.Hold(time.Now().Add(freshness.ErrorTTL(w.j.site.d.ErrorPages, status)))
	w.lead.result = resultHit
	w.f.Resolve(w.stale)
}

// failed ends the fill where there is no answer.
func (w *filler) failed(err error) {
	e, ofOrigin := errors.AsType[*origin.Error](err)
	if !ofOrigin {
		w.f.Abort(err)
		return
	}
	if w.stale != nil && w.stale.Head.Lifetime.OnError(time.Now()) {
		w.useStale(e.Status())
		return
	}
	page := w.j.site.pages[e.Status()]
	if page == nil || page.MinTTL <= 0 {
		w.f.Abort(err)
		return
	}
	// With a page of its own the failure is kept, as an origin's answer would be.
	w.f.Begin(cache.Head{
		Status: e.Status(), Header: http.Header{}, Distribution: w.j.site.d.ID, Path: w.path,
		Lifetime: freshness.Lifetime{Store: true, Received: time.Now(), TTL: page.MinTTL},
		Note:     map[string]string{noteFailure: string(e.Detail)},
	})
	if err := w.f.Commit(); err != nil {
		w.s.log.Debug("a failure was not stored", "distribution", w.j.site.d.ID, "path", w.path, "error", err)
	}
}

// switchToWhole stores the whole object, which the origin sent where a part of it
// was asked for, and has those who wait for the part take it from there.
func (w *filler) switchToWhole(a *fetched, life freshness.Lifetime) {
	w.unlink()
	whole := w.s.cache.Lead(w.whole, w.f.Depth())
	w.f.Abort(errWhole)
	if whole != nil { // else somebody fetches it already
		w.store(whole, a, life)
	}
}

// closing is a body with something to do at its end.
type closing struct {
	io.ReadCloser
	closed func()
}

// Close implements io.Closer.
func (c *closing) Close() error {
	err := c.ReadCloser.Close()
	c.closed()
	return err
}
