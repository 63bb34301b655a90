package worker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
)

// RuntimeDone implements host.Handler.
func (e *environment) RuntimeDone(d host.RuntimeDone) {
	now := time.Now()
	if d.RequestID == "" {
		e.log.initRuntimeDone(now, nil)
		return
	}
	var f *failure
	if d.Err != nil {
		f = runtimeFailure(d.Err)
	}
	e.log.runtimeDone(now, d.Timing, f)
}

// Extension implements host.Handler.
func (e *environment) Extension(x proto.Extension) {
	if !e.tape.extension(x) {
		e.log.extension(time.Now(), x)
	}
}

// Subscribed implements host.Handler.
func (e *environment) Subscribed(s proto.Subscription) {
	if !e.tape.subscription(s) {
		e.log.subscription(time.Now(), s)
	}
}

// extension tells what has become of an extension by the end of Init: EXTENSION.
func (s *systemLog) extension(t time.Time, x proto.Extension) {
	s.mu.Lock()
	s.extended = s.extended || slices.Contains(x.Events, "INVOKE")
	s.mu.Unlock()
	level := "DEBUG"
	text := fmt.Sprintf("EXTENSION\tName: %s\tState: %s\tEvents: [%s]", x.Name, x.State, strings.Join(x.Events, ","))
	if x.ErrorType != "" {
		level = "WARN"
		text += "\tError Type: " + x.ErrorType
	}
	s.tell(t, level, "platform.extension", func() record {
		r := record{"name": x.Name, "state": x.State, "events": append([]string{}, x.Events...)}
		if x.ErrorType != "" {
			r["errorType"] = x.ErrorType
		}
		return r
	}, text+"\n")
}

// subscription tells that an extension has subscribed to telemetry: TELEMETRY,
// or LOGS by the older API.
func (s *systemLog) subscription(t time.Time, x proto.Subscription) {
	word, kind := "TELEMETRY", "platform.telemetrySubscription"
	if x.API == "Logs" {
		word, kind = "LOGS", "platform.logsSubscription"
	}
	types := make([]string, len(x.Types))
	for i, t := range x.Types {
		types[i] = strings.ToUpper(t[:1]) + t[1:]
	}
	s.tell(t, "DEBUG", kind, func() record {
		return record{"name": x.Name, "state": "Subscribed", "types": x.Types}
	}, fmt.Sprintf("%s\tName: %s\tState: Subscribed\tTypes: [%s]\n", word, x.Name, strings.Join(types, ", ")))
}
