package edge

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/edge/accesslog"
	"lapwing.dev/lapwing/internal/edge/cache"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/geo"
	"lapwing.dev/lapwing/internal/edge/origin"
	"lapwing.dev/lapwing/internal/edge/tier"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

// Options configures a Server. All fields above the blank line are required.
type Options struct {
	Records *distribution.Records
	Origins *origin.Client
	Cache   *cache.Store
	Logger  *slog.Logger
	// Location is the name of this edge location, as X-Amz-Cf-Pop has it, e.g.
	// FRA56-P1.
	Location string

	// Functions runs the functions of behaviours; nil: behaviours that have some
	// answer with an error.
	Functions trigger.Runner
	// Geo tells where viewers are; nil: nobody knows.
	Geo *geo.Database
	// AltSvc is the Alt-Svc header of distributions with HTTP/3, e.g.
	// `h3=":443"; ma=86400`; empty: there is no HTTP/3 here.
	AltSvc string
	// Tiers are the locations that are asked before origins are; nil: none.
	Tiers *tier.Network
	// HandOver lets viewers say which location is to serve them (locationHeader).
	HandOver bool
	// Log takes a record of each request, which it owns; nil: nobody does.
	Log func(*accesslog.Record)
	// Count is told of each hit of which there is no record, with the bytes of answer
	// and request: those answered by ServeFast. It must not block; nil: nobody counts.
	Count func(d *distribution.Distribution, status int, sent, received int64)
}

// Server is an edge location: it serves viewers' requests for distributions. It
// implements http.Handler and, for what is in the cache, http1.Fast.
type Server struct {
	options Options
	log     *slog.Logger
	cache   *cache.Store
	follow  follower

	// What every answer has, made once.
	pop, via, altSvc []string
	viaOrigin        string // "<id>.cloudfront.net (CloudFront)"

	silence time.Duration // how long a WebSocket may be silent

	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	fetches sync.WaitGroup
}

// New returns a Server that serves what the records say by now, and follows them
// until Close.
func New(o Options) *Server {
	sum := sha256.Sum256([]byte(o.Location))
	s := &Server{
		options: o, log: o.Logger, cache: o.Cache, pop: []string{o.Location}, silence: idleWebSocket,
		viaOrigin: hex.EncodeToString(sum[:16]) + ".cloudfront.net (CloudFront)",
	}
	s.via, s.altSvc = []string{"1.1 " + s.viaOrigin}, []string{o.AltSvc}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.follow.s = s
	s.follow.start(s.ctx)
	return s
}

// Close ends what the server does beside the requests of viewers, who must have
// gone: it neither follows the records nor fetches objects any more.
func (s *Server) Close() {
	s.stop()
	s.fetches.Wait()
	s.follow.watches.Wait()
	s.options.Origins.Close()
	if s.options.Tiers != nil {
		s.options.Tiers.Close()
	}
}

// Serves tells whether a host name, as a Host header or TLS has it, is that of a
// distribution that is served here.
func (s *Server) Serves(host string) bool { return s.follow.table.Load().find(host) != nil }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if content, ok := s.follow.answer(r.URL.Path); ok {
		// Whatever host it is: a name may lead here before any distribution has it.
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.WriteString(w, content) // who asked may be gone
		return
	}
	if s.handOver(w, r) {
		return
	}
	x := s.begin(w, r)
	defer x.finish()
	defer func() {
		if p := recover(); p != nil {
			x.recovered(p)
		}
	}()
	x.serve()
}

// recovered deals with a panic: logged once, and an error page for the viewer, or
// a broken connection where the answer had begun.
func (x *exchange) recovered(p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	x.s.log.Error("panic while serving a viewer", "requestId", x.id, "panic", p, "stack", string(debug.Stack()))
	if x.out.status != 0 {
		panic(http.ErrAbortHandler)
	}
	x.send(refused(http.StatusInternalServerError, resultError, textBad).answer(x.id))
}

// newID returns an X-Amz-Cf-Id, which is unguessable enough for what it is: a name.
func newID() string {
	var text [56]byte
	return string(appendID(text[:0]))
}

func appendID(dst []byte) []byte {
	var b [40]byte
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rand.Uint64())
	}
	return base64.URLEncoding.AppendEncode(dst, b[:])
}
