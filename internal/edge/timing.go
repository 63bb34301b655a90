package edge

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/edge/tier"
)

// layers are the names of caches ("Server-Timing header").
var layers = map[tier.Level]string{tier.Edge: "EDGE", tier.Regional: "REC", tier.Shield: "Origin Shield"}

// timing adds the Server-Timing header, to as many answers as the response headers
// policy says, and to those of viewers who ask for it ("Server-Timing header").
func (x *exchange) timing(a *answer, h http.Header) {
	share := x.plan.ServerTiming()
	if share < 0 || a.bare {
		return
	}
	if !strings.EqualFold(x.r.Header.Get("Pragma"), "server-timing") && rand.Float64()*100 >= share {
		return
	}
	cache := "cdn-cache-miss"
	switch a.result {
	case resultHit:
		cache = "cdn-cache-hit"
	case resultRefresh:
		cache = "cdn-cache-refresh"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s,cdn-pop;desc=%q,cdn-rid;desc=%q", cache, x.s.options.Location, x.id)
	if a.result == resultHit {
		fmt.Fprintf(&b, ",cdn-hit-layer;desc=%q", layers[a.layer])
	}
	if a.firstByte > 0 {
		b.WriteString(",cdn-upstream-fbl;dur=" + milliseconds(a.firstByte))
	}
	b.WriteString(",cdn-downstream-fbl;dur=" + milliseconds(time.Since(x.began)))
	h["Server-Timing"] = append(h["Server-Timing"][:len(h["Server-Timing"]):len(h["Server-Timing"])], b.String())
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
