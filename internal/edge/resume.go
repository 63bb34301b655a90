package edge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2"

	"lapwing.dev/lapwing/internal/edge/tier"
)

// resumed is the body of an answer that another location gave. Where that location
// is lost in the middle, the origin is asked for the rest, so that a viewer gets no
// less than without it.
type resumed struct {
	io.ReadCloser
	ctx  context.Context
	j    *job
	etag string // by which the rest is of the same object; empty: nothing is resumed
	off  int64
}

// resume has the body of an answer go on without the location that gives it, if it
// can: a whole object that a strong validator tells from others.
func (j *job) resume(ctx context.Context, f *fetched) {
	etag := f.header.Get("Etag")
	if j.method != http.MethodGet || f.status != http.StatusOK || !strings.HasPrefix(etag, `"`) {
		return
	}
	f.body = &resumed{ReadCloser: f.body, ctx: ctx, j: j, etag: etag}
}

// Read implements io.Reader.
func (b *resumed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.off += int64(n)
	if err == nil || err == io.EOF || b.etag == "" || b.ctx.Err() != nil || brokenOffThere(err) {
		return n, err
	}
	if n > 0 {
		return n, nil // the error comes again
	}
	rest := b.rest()
	b.etag = "" // once
	if rest == nil {
		return 0, err
	}
	b.j.s.log.Info("another location was lost while it answered; the origin has the rest", "requestId", b.j.id, "error", err)
	_ = b.ReadCloser.Close() // it is lost
	b.ReadCloser = rest
	return rest.Read(p)
}

// brokenOffThere tells whether the other location ended the answer itself, as it does
// where its origin fails: that will not go better from here.
func brokenOffThere(err error) bool {
	_, ok := errors.AsType[http2.StreamError](err)
	return ok
}

// rest asks the origin for what is missing of the body; nil: it does not have it.
func (b *resumed) rest() io.ReadCloser {
	j := *b.j
	j.level, j.header = tier.Shield, b.j.header.Clone()
	j.dropConditions()
	from := strconv.FormatInt(b.off, 10) + "-"
	j.header["Range"], j.header["If-Range"] = []string{"bytes=" + from}, []string{b.etag}
	f, err := j.ask(b.ctx)
	if err != nil {
		return nil
	}
	if f.status != http.StatusPartialContent || f.header.Get("Etag") != b.etag || !strings.HasPrefix(f.header.Get("Content-Range"), "bytes "+from) {
		f.close()
		return nil
	}
	return f.body
}
