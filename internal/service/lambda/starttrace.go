package lambda

import (
	"context"
	"encoding/json"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/invoke"
	"lapwing.dev/lapwing/internal/trace/timeline"
)

// A request of Invoke with the header StartHeader, whatever its value, is served
// in an environment that is started for it alone; the answer has a StartTrace, as
// JSON, in a header of the same name. It is Lapwing's own, for `lapwing
// trace-start`, and like any other request signed and authorized.
const StartHeader = "X-Lapwing-Trace-Start"

// StartTrace tells what a start consisted of, until the reply was handed to the
// front door.
type StartTrace struct {
	Arrived time.Time `json:"arrived"` // of the request
	Steps   []Step    `json:"steps"`
}

// Step is one step. Its name begins with those of the steps that it is part of,
// as in sandbox/kernel.
type Step struct {
	Name  string        `json:"name"`
	Began time.Duration `json:"began"` // ns, since the request arrived
	Took  time.Duration `json:"took"`  // ns
}

// traceStart has req served by a new environment where the caller asks for it.
func traceStart(ctx context.Context, req *invoke.Request) {
	r := aws.RequestFrom(ctx)
	if len(r.Header[StartHeader]) == 0 {
		return
	}
	req.Start = new(timeline.Line)
	req.Start.Add("front door", r.Time, time.Now())
}

// tellStart tells the caller what the start that traceStart asked for consisted
// of.
func tellStart(ctx context.Context, req *invoke.Request) error {
	r := aws.RequestFrom(ctx)
	if req.Start == nil || r.Response == nil {
		return nil
	}
	t := StartTrace{Arrived: r.Time}
	for _, s := range req.Start.Steps() {
		t.Steps = append(t.Steps, Step{s.Name, s.Began.Sub(r.Time), s.Took})
	}
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	r.Response.Set(StartHeader, string(b))
	return nil
}
