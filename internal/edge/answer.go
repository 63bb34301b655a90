package edge

import (
	"io"
	"net/http"
	"time"

	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/tier"
)

// answer is a response on its way to the viewer.
type answer struct {
	status int
	// header is shared with the cache: nobody changes it.
	header http.Header
	// The body is one of these; none of them is no body.
	object *cache.Object
	body   io.ReadCloser
	data   []byte
	length int64 // of the body; -1: not known

	result string // Hit, Miss …: X-Cache and x-edge-result-type
	detail string // more of errors; empty: result
	// layer is that of another location whose cache had a hit; Edge: none had.
	layer tier.Level
	// age is the object's, from the cache; negative: it does not come from there.
	age time.Duration
	// own tells that the edge made the answer itself, and bare that it is the last
	// word: neither functions nor policies touch it.
	own, bare bool
	// trailer returns what comes after the body, once that has been read; nil: none.
	trailer func() http.Header
	// failure is the detail of a stored failure of an origin, which has no body of
	// its own.
	failure string

	// cut tells that the end of the body cannot be told from a broken connection.
	cut bool

	firstByte time.Duration // of the origin's answer; 0: it was not asked
}

// release gives up the answer's body.
func (a *answer) release() {
	if a.object != nil {
		a.object.Release()
	}
	if a.body != nil {
		_ = a.body.Close() // the connection to the origin is dropped if need be
	}
}
