package telemetry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxBody is the largest body of a subscription request.
const MaxBody = 64 * 1024

// reservedPort is the port of the Runtime API, where nobody else can listen.
const reservedPort = 9001

// Subscription is a valid subscription.
type Subscription struct {
	API           API
	SchemaVersion string
	Types         []string // of platform, function, extension
	Buffering     Buffering
	Destination   Destination
}

// Buffering is how much, and for how long, events wait to be delivered together.
type Buffering struct {
	MaxItems int
	MaxBytes int
	Timeout  time.Duration
}

// Destination is where events go: a port of the sandbox itself.
type Destination struct {
	Protocol string // HTTP or TCP
	Method   string // of HTTP: POST or PUT
	Host     string // as the extension wrote it
	Port     int
	Path     string // of HTTP, with its query
}

// schemas are the schema versions of each API.
var schemas = map[API][]string{
	Telemetry: {"2022-07-01", "2022-12-13", "2025-01-29"},
	Logs:      {"2020-08-15", "2021-03-18"},
}

// objects tells whether log lines of the JSON format are delivered as objects,
// as they are since the second schema of the Telemetry API.
func (s *Subscription) objects() bool {
	return s.API == Telemetry && s.SchemaVersion != "2022-07-01"
}

// logsEvents are the platform events of the Logs API (Lambda developer guide,
// "Lambda Logs API").
var logsEvents = []string{
	"platform.start", "platform.end", "platform.report", "platform.fault",
	"platform.extension", "platform.logsSubscription", "platform.logsDropped",
}

// wants tells whether the event is for this subscription.
func (s *Subscription) wants(e *Event) bool {
	stream := e.stream()
	switch {
	case !slices.Contains(s.Types, stream):
		return false
	case stream != Platform:
		return true
	case s.API == Logs:
		return slices.Contains(logsEvents, e.Type) || e.Type == "platform.runtimeDone" && s.SchemaVersion == "2021-03-18"
	}
	return e.Type != "platform.end" && e.Type != "platform.fault" && e.Type != "platform.logsSubscription"
}

// request is a subscription as it comes.
type request struct {
	SchemaVersion string   `json:"schemaVersion"`
	Types         []string `json:"types"`
	Buffering     struct {
		MaxItems  *int64 `json:"maxItems"`
		MaxBytes  *int64 `json:"maxBytes"`
		TimeoutMs *int64 `json:"timeoutMs"`
	} `json:"buffering"`
	Destination *struct {
		Protocol string `json:"protocol"`
		URI      string `json:"URI"`
		Port     int    `json:"port"` // of TCP, in place of a URI
		Method   string `json:"method"`
		Encoding string `json:"encoding"`
	} `json:"destination"`
}

// Parse reads the body of a subscription request. The error, in words for the
// extension, tells all that is wrong with it.
func Parse(api API, body []byte) (Subscription, error) {
	var r request
	if err := json.Unmarshal(body, &r); err != nil {
		return Subscription{}, fmt.Errorf("request body is not valid JSON: %w", err)
	}
	s := Subscription{API: api}
	var wrong problems
	s.SchemaVersion = r.schema(api, &wrong)
	s.Destination = r.destination(&wrong)
	s.Types = r.types(&wrong)
	s.Buffering = Buffering{
		MaxItems: int(wrong.within("maxItems", r.Buffering.MaxItems, 10000, 1000, 10000)),
		MaxBytes: int(wrong.within("maxBytes", r.Buffering.MaxBytes, 262144, 262144, 1048576)),
		Timeout:  time.Duration(wrong.within("timeoutMs", r.Buffering.TimeoutMs, 1000, 25, 30000)) * time.Millisecond,
	}
	if len(wrong) > 0 {
		return Subscription{}, errors.New(strings.Join(wrong, "; "))
	}
	return s, nil
}

// problems are what is wrong with a request.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// within returns a setting of the buffer, or its default.
func (p *problems) within(name string, v *int64, def, low, high int64) int64 {
	if v == nil {
		return def
	}
	if *v < low || *v > high {
		p.add("buffering %s should be between %d and %d", name, low, high)
	}
	return *v
}

func (r *request) schema(api API, wrong *problems) string {
	if r.SchemaVersion == "" && api == Logs {
		return schemas[Logs][0]
	}
	switch {
	case r.SchemaVersion == "":
		wrong.add("schemaVersion is not provided")
	case !slices.Contains(schemas[api], r.SchemaVersion):
		wrong.add("schemaVersion should be one of %s", strings.Join(schemas[api], ", "))
	}
	return r.SchemaVersion
}

func (r *request) types(wrong *problems) []string {
	if len(r.Types) == 0 {
		wrong.add("types should not be empty")
	}
	var types []string
	for _, t := range r.Types {
		switch {
		case t != Platform && t != Function && t != Extension:
			wrong.add("types should be platform, function or extension")
			return nil
		case !slices.Contains(types, t):
			types = append(types, t)
		}
	}
	return types
}

func (r *request) destination(wrong *problems) Destination {
	if r.Destination == nil {
		wrong.add("destination is not provided")
		return Destination{}
	}
	d := Destination{Protocol: r.Destination.Protocol, Port: r.Destination.Port, Host: "sandbox.localdomain"}
	switch {
	case d.Protocol != "HTTP" && d.Protocol != "TCP":
		wrong.add("destination protocol should be HTTP or TCP")
		return d
	case d.Protocol == "HTTP" || r.Destination.URI != "":
		d.uri(r.Destination.URI, wrong)
	case d.Port == 0:
		wrong.add("destination port is not provided")
	}
	if d.Protocol == "HTTP" {
		d.Method = "POST"
		switch m := r.Destination.Method; m {
		case "":
		case "POST", "PUT":
			d.Method = m
		default:
			wrong.add("destination method should be POST or PUT")
		}
	}
	if e := r.Destination.Encoding; e != "" && e != "JSON" {
		wrong.add("destination encoding should be JSON")
	}
	switch {
	case d.Port == reservedPort:
		wrong.add("URI port %d is reserved", reservedPort)
	case d.Port < 0 || d.Port > 65535:
		wrong.add("URI port is not valid")
	}
	return d
}

// uri takes the host, the port and the path from a URI.
func (d *Destination) uri(s string, wrong *problems) {
	if s == "" {
		wrong.add("URI is not provided")
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		wrong.add("URI is not valid")
		return
	}
	if want := strings.ToLower(d.Protocol); u.Scheme != want {
		wrong.add("URI scheme should be %s", want)
	}
	// "Lambda sends telemetry only to destinations that are inside the
	// execution environment."
	if h := u.Hostname(); h != "sandbox.localdomain" && h != "sandbox" {
		wrong.add("URI host should be sandbox.localdomain")
	}
	if u.Port() == "" {
		wrong.add("URI port is not provided")
	} else if d.Port, err = strconv.Atoi(u.Port()); err != nil || d.Port == 0 {
		wrong.add("URI port is not valid")
	}
	d.Host, d.Path = u.Hostname(), u.RequestURI()
}
