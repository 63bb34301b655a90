// Package proto is the protocol of the host connection: the one stream between
// the worker and the guest in a sandbox. It carries the start of the
// runtime, invocations, responses and logs as frames:
//
//	type u8 | flags u8 (0) | reserved u16 (0) | length u32 | payload
//
// in big endian. Control frames carry a JSON payload; frames with a body carry
// "meta length u32 | JSON meta | body". What is in each invocation is not JSON but
// compact. At most one invocation is under way, so
// nothing needs a stream id. The guest may send at most Window bytes of
// response data of one invocation that the host has not granted back by
// TypeWindow: a slow reader of a response then never holds up logs and control.
//
// The host trusts nothing that comes from the guest: each frame is bounded by
// MaxFrame, and a violation of the protocol ends the sandbox.
package proto

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Version is the protocol's version, sent in Hello. The two ends come from one
// binary, so a difference is a fault.
const Version = 6

const (
	// MaxPayload is the largest event or buffered response: 6 MiB + 100 bytes.
	MaxPayload = 6*1024*1024 + 100
	// MaxStream is the largest streamed response.
	MaxStream = 200 * 1024 * 1024
	// MaxFrame is the largest frame payload.
	MaxFrame = MaxPayload + 128*1024
	// MaxChunk is the largest body of one TypeResponseData frame.
	MaxChunk = 64 * 1024
	// MaxLogLine is the largest message of one log frame; longer lines are split.
	MaxLogLine = 256 * 1024
	// Window is the response data that may be under way unacknowledged.
	Window = 1024 * 1024
	// MaxEvent is the largest platform event, and the largest frame that tells
	// of an extension or a subscription.
	MaxEvent = 16 * 1024

	headerLen = 8
)

// Type says what a frame is.
type Type uint8

// Frames from host to guest.
const (
	TypeStart    Type = 1 // JSON Start: start the runtime
	TypeInvoke   Type = 2 // compact meta Invocation, body event
	TypeWindow   Type = 3 // JSON WindowUpdate
	TypeShutdown Type = 4 // JSON Shutdown
	TypeReset    Type = 5 // JSON Reset
	TypeEvent    Type = 6 // meta Event, body its record: for the subscribers of telemetry
	TypeRestore  Type = 7 // JSON Restore: the answer to TypeSnapshotReady
)

// Frames from guest to host.
const (
	TypeHello         Type = 64 // JSON Hello: the guest is up
	TypeInitDone      Type = 65 // JSON InitDone: the runtime asked for its first event
	TypeInitError     Type = 66 // meta ErrorMeta, body as the runtime posted it
	TypeResponseStart Type = 67 // compact ResponseStart
	TypeResponseData  Type = 68 // raw bytes, at most MaxChunk
	TypeResponseEnd   Type = 69 // compact ResponseEnd
	TypeResponseError Type = 70 // meta ErrorMeta, body as the runtime posted it
	TypeInvokeDone    Type = 71 // compact InvokeDone: the runtime asked for the next event
	TypeRuntimeExit   Type = 72 // JSON RuntimeExit
	TypeLog           Type = 73 // compact meta Log, body one message without its newline
	TypeResetDone     Type = 74 // empty: the answer to TypeReset
	TypeRuntimeDone   Type = 75 // compact InvokeDone: as InitDone and InvokeDone, but extensions are not ready yet
	TypeExtension     Type = 76 // JSON Extension: at the end of Init, one for each
	TypeSubscription  Type = 77 // JSON Subscription: an extension has subscribed to telemetry
	TypeSnapshotReady Type = 78 // JSON SnapshotReady: the runtime waits to be restored
	TypeStep          Type = 79 // JSON Step: a step of Init is over, where Start asks for them
)

// Start tells the guest which runtime to start. It is sent once, and once more
// after each reset.
type Start struct {
	// Command is the program and its arguments. A program without a slash is
	// looked for in PATH.
	Command []string `json:"command"`
	// Candidates are tried in order when Command is empty (custom runtimes:
	// /var/task/bootstrap, /opt/bootstrap).
	Candidates []string          `json:"candidates,omitempty"`
	Dir        string            `json:"dir"`
	Env        map[string]string `json:"env"`
	UID        int               `json:"uid"`
	GID        int               `json:"gid"`
	MaxFiles   uint64            `json:"maxFiles"` // RLIMIT_NOFILE
	MaxProcs   uint64            `json:"maxProcs"` // RLIMIT_NPROC
	// What POST /extension/register answers.
	FunctionName    string `json:"functionName"`
	FunctionVersion string `json:"functionVersion"`
	Handler         string `json:"handler"`
	AccountID       string `json:"accountId"`
	// FramedLogs gives the runtime a second pipe for messages with a level and
	// of several lines, in the form of the official runtime clients, and names
	// its descriptor in _LAMBDA_TELEMETRY_LOG_FD.
	FramedLogs bool `json:"framedLogs,omitempty"`
	// JSONLogs tells that the function's log format is JSON: subscribers of
	// telemetry then get log lines as objects.
	JSONLogs bool `json:"jsonLogs,omitempty"`
	// Steps asks for TypeStep frames.
	Steps bool `json:"steps,omitempty"`
	// Restorable lets the runtime stop before its first event, in a call of
	// /runtime/restore/next: then a snapshot can be taken. Where the variable
	// AWS_LAMBDA_INITIALIZATION_TYPE does not say snap-start, only a bootstrap
	// of Lapwing's own does, which the guest tells by RestorableVariable.
	Restorable bool `json:"restorable,omitempty"`
	// Credentials, where they are set, are not in Env but served at the URL that
	// the guest adds to the environment.
	Credentials *Credentials `json:"credentials,omitempty"`
	// Blank starts the runtime for no function, together with Restorable: a
	// bootstrap of Lapwing's own boots, which the guest asks it to by
	// BlankVariable, and stops in a call of /runtime/restore/next before it reads
	// what it is to be. A sandbox made from a snapshot of that says hello and is
	// started as any other: the runtime that waits in it takes the place of the one
	// that would be started, and Command is what that was started by.
	Blank bool `json:"blank,omitempty"`
}

// BlankVariable is the variable that tells a bootstrap of Lapwing's own that it is
// started for no function.
const BlankVariable = "_LAPWING_BLANK"

// RestorableVariable is the variable that tells a bootstrap of Lapwing's own to
// stop in a call of /runtime/restore/next. It takes it out of the environment
// before the function's code is loaded.
const RestorableVariable = "_LAPWING_RESTORABLE"

// Credentials are temporary credentials of the function's role, in the form in
// which the container credentials endpoint serves them.
type Credentials struct {
	AccessKeyID     string    `json:"AccessKeyId"`
	SecretAccessKey string    `json:"SecretAccessKey"`
	SessionToken    string    `json:"Token"`
	Expiration      time.Time `json:"Expiration"`
}

// SnapshotReady tells that the runtime waits in a call of /runtime/restore/next,
// extensions have nothing to do, and all that they wrote has been sent.
type SnapshotReady struct {
	// Unfit says why the state that the runtime is in must not be cloned, in a
	// sentence for users; it can go on in place. See ValidUnfit.
	Unfit string `json:"unfit,omitempty"`
}

// MaxUnfit is the greatest length of SnapshotReady.Unfit.
const MaxUnfit = 512

// ValidUnfit tells whether s may be a SnapshotReady.Unfit: printable ASCII, and
// not too long.
func ValidUnfit(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= MaxUnfit
}

// Restore lets a runtime go on that waits to be restored: once it has adopted
// what follows it asks for its first event. It is sent on a new connection, in
// each sandbox made from the snapshot, or on the same one, where none was taken.
type Restore struct {
	// Env holds the variables whose values differ from those of Start.
	Env map[string]string `json:"env,omitempty"`
	// Credentials take the place of those of Start.
	Credentials *Credentials `json:"credentials,omitempty"`
}

// ErrorUnfit is the type of the error that a restored runtime of Lapwing's own
// reports where its state has become unfit for a snapshot (SnapshotReady.Unfit)
// only after it had said that it was ready for one; the message says why.
const ErrorUnfit = "Runtime.Unfit"

// InitDone tells that the runtime is ready for its first event.
type InitDone struct {
	// Subscribed is set where an extension has subscribed to telemetry.
	Subscribed bool `json:"subscribed,omitempty"`
}

// Invocation is the meta of TypeInvoke: the headers of /invocation/next.
type Invocation struct {
	RequestID          string
	DeadlineMs         int64 // Unix epoch, ms
	InvokedFunctionARN string
	TraceID            string
	ClientContext      string // decoded JSON
	CognitoIdentity    string
	TenantID           string
	ContentType        string
	// Streaming is set for InvokeWithResponseStream: the response may have up
	// to MaxStream bytes rather than MaxPayload. Response data are forwarded as
	// they arrive in either mode.
	Streaming bool
}

// MaxResponse returns how many bytes the response may have.
func (inv *Invocation) MaxResponse() int64 {
	if inv.Streaming {
		return MaxStream
	}
	return MaxPayload
}

// WindowUpdate grants Bytes more of response data.
type WindowUpdate struct {
	Bytes int `json:"bytes"`
}

// Reasons of a Shutdown or Reset, which extensions are told.
const (
	ReasonSpindown = "spindown"
	ReasonTimeout  = "timeout"
	ReasonFailure  = "failure"
)

// ShutdownBudget is the longest that a Shutdown phase lasts before everything
// is killed: with an external extension. The guest knows what there is and may
// be done sooner (Lambda developer guide, "Shutdown phase").
const ShutdownBudget = 2 * time.Second

// Shutdown asks the guest to end the runtime and the extensions, in a Shutdown
// phase, and then itself.
type Shutdown struct {
	Reason string `json:"reason"`
}

// Reset asks the guest to end the runtime, the extensions and all that they
// have started, in a Shutdown phase, and to be ready for another Start. Between
// TypeReset and TypeResetDone the guest may still send what belonged to the
// runtime that ends; the host passes its logs on and drops the rest.
type Reset struct {
	Reason string `json:"reason"`
}

// Hello is the guest's first frame.
type Hello struct {
	Version int `json:"version"`
}

// ErrorMeta is the meta of an error that the runtime posted.
type ErrorMeta struct {
	RequestID   string `json:"requestId,omitempty"`
	ErrorType   string `json:"errorType"` // Lambda-Runtime-Function-Error-Type
	ContentType string `json:"contentType,omitempty"`
}

// ResponseStart begins a response.
type ResponseStart struct {
	RequestID   string
	ContentType string
	Streaming   bool // the runtime declared streaming mode
}

// ResponseEnd ends a response. ErrorType is set where the runtime sent error
// trailers, and to Function.ResponseSizeTooLarge or Runtime.TruncatedResponse
// where the guest found the response at fault.
type ResponseEnd struct {
	ErrorType string
	ErrorBody string // decoded JSON
}

// Event is the meta of a platform event of the Telemetry API.
type Event struct {
	TimeUs int64  `json:"t"` // Unix epoch, µs
	Type   string `json:"y"` // platform.start and so on
}

// Extension tells what has become of an extension by the end of Init.
type Extension struct {
	Name     string `json:"name"`
	External bool   `json:"external,omitempty"`
	// State is Ready, or what the extension did not get beyond: Started,
	// Registered, LaunchError, InitError, ExitError or Exited.
	State     string   `json:"state"`
	Events    []string `json:"events"`
	ErrorType string   `json:"errorType,omitempty"`
}

// Subscription tells that an extension has subscribed to telemetry.
type Subscription struct {
	Name  string   `json:"name"`
	API   string   `json:"api"` // Telemetry or Logs
	Types []string `json:"types"`
}

// Steps of Init that the guest tells the end of, in this order. The last one,
// which the handler is loaded in, ends with Init itself.
const (
	StepExtensions = "extensions"      // all external ones have registered; where there are any
	StepProcess    = "runtime process" // it has been started
	StepBoot       = "runtime boot"    // it has connected to the Runtime API
	// StepBlank takes the place of the last two where the runtime had booted before
	// (Start.Blank): it has been told what to be.
	StepBlank = "runtime from a snapshot"
)

// Step tells that a step of Init is over.
type Step struct {
	Name string `json:"name"`
}

// InvokeDone tells that the runtime is ready for the next event. As
// TypeRuntimeDone it has no request id at the end of Init.
type InvokeDone struct {
	RequestID string
}

// RuntimeExit tells that the runtime's process ended, or could not be started.
type RuntimeExit struct {
	// ErrorType is set where the runtime could not be started:
	// Runtime.InvalidEntrypoint or Runtime.InvalidWorkingDir.
	ErrorType string `json:"errorType,omitempty"`
	// Reason is what follows "Runtime exited " in AWS's message: "without
	// providing a reason", "with error: exit status 127", "with error: signal:
	// killed"; or the whole reason where ErrorType is set.
	Reason string `json:"reason"`
	// RequestID is set where an event had been handed to the runtime that it
	// had not finished.
	RequestID string `json:"requestId,omitempty"`
	// Exhausted is set where a process could not be started for lack of memory
	// or processes: the sandbox is at fault, not the function.
	Exhausted bool `json:"exhausted,omitempty"`
}

// Log is the meta of one log message.
type Log struct {
	TimeUs int64  // Unix epoch, µs
	Source string // function or extension
	Level  string // TRACE..FATAL where the runtime told it
	JSON   bool   // the runtime says that the message is JSON
}

// WrapLine returns the JSON form that Lambda gives, in the JSON log format, a
// line that has none.
func WrapLine(t time.Time, level, line, requestID string) []byte {
	b, err := json.Marshal(struct {
		Timestamp string `json:"timestamp"`
		Level     string `json:"level"`
		Message   string `json:"message"`
		RequestID string `json:"requestId,omitempty"`
	}{t.UTC().Format("2006-01-02T15:04:05.000Z"), cmp.Or(level, "INFO"), line, requestID})
	if err != nil {
		panic(err) // strings only
	}
	return b
}

// Frame is one frame as read.
type Frame struct {
	Type Type
	// Payload is valid until the next Read of the same Reader, except that a
	// payload of over 64 KiB is the caller's to keep.
	Payload []byte
}

// Decode unmarshals a payload without a body.
func (f Frame) Decode(v any) error {
	if err := unmarshal(f.Payload, v); err != nil {
		return fmt.Errorf("proto: frame type %d: %w", f.Type, err)
	}
	return nil
}

// Split unmarshals the meta of a payload that has one and returns the body,
// which shares memory with the payload.
func (f Frame) Split(meta any) (body []byte, err error) {
	if len(f.Payload) < 4 {
		return nil, fmt.Errorf("proto: frame type %d: no meta", f.Type)
	}
	n := binary.BigEndian.Uint32(f.Payload)
	if uint64(n) > uint64(len(f.Payload)-4) {
		return nil, fmt.Errorf("proto: frame type %d: meta of %d bytes in a payload of %d", f.Type, n, len(f.Payload))
	}
	if err := unmarshal(f.Payload[4:4+n], meta); err != nil {
		return nil, fmt.Errorf("proto: frame type %d: %w", f.Type, err)
	}
	return f.Payload[4+n:], nil
}

// Reader reads frames. It has a buffer of its own.
type Reader struct {
	r        io.Reader
	buf      []byte // made by the first read
	from, to int    // what of buf has been read and not returned

	large     []byte // the payload of a frame that does not fit into buf; nil: none is under way
	largeType Type
	got       int // bytes of large
}

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Read reads the next frame. It returns io.EOF at a clean end. After an error of
// the reader below that passes, such as a deadline, Read goes on where it was.
func (r *Reader) Read() (Frame, error) {
	for {
		f, whole, err := r.next()
		if whole || err != nil {
			return f, err
		}
		if n, err := r.fill(); n == 0 && err != nil {
			if err == io.EOF && (r.to > r.from || r.large != nil) {
				err = io.ErrUnexpectedEOF
			}
			return Frame{}, err
		}
	}
}

// Whole tells whether Read returns without reading anything more.
func (r *Reader) Whole() bool {
	if r.large != nil {
		return r.got == len(r.large)
	}
	b := r.buf[r.from:r.to]
	if len(b) < headerLen {
		return false
	}
	n := binary.BigEndian.Uint32(b[4:])
	return n > MaxFrame || len(b)-headerLen >= int(n)
}

// Buffered returns how many bytes have been read of frames that Read is yet to return.
func (r *Reader) Buffered() int { return r.to - r.from + r.got }

// next returns the next frame if it is there.
func (r *Reader) next() (f Frame, whole bool, err error) {
	if r.large == nil {
		b := r.buf[r.from:r.to]
		if len(b) < headerLen {
			return Frame{}, false, nil
		}
		n := binary.BigEndian.Uint32(b[4:])
		switch {
		case n > MaxFrame:
			return Frame{}, false, fmt.Errorf("proto: frame of %d bytes exceeds the limit of %d", n, MaxFrame)
		case n > MaxChunk:
			r.large, r.largeType = make([]byte, n), Type(b[0])
			r.got = copy(r.large, b[headerLen:])
			r.from += headerLen + r.got
		case len(b)-headerLen < int(n):
			return Frame{}, false, nil
		default:
			r.from += headerLen + int(n)
			return Frame{Type: Type(b[0]), Payload: b[headerLen : headerLen+n : headerLen+n]}, true, nil
		}
	}
	if r.got < len(r.large) {
		return Frame{}, false, nil
	}
	f = Frame{Type: r.largeType, Payload: r.large}
	r.large, r.got = nil, 0
	return f, true, nil
}

// fill reads more of the frame that next wants.
func (r *Reader) fill() (n int, err error) {
	if r.large != nil {
		n, err = r.r.Read(r.large[r.got:])
		r.got += n
		return n, err
	}
	if r.buf == nil {
		r.buf = make([]byte, headerLen+MaxChunk)
	}
	r.to = copy(r.buf, r.buf[r.from:r.to])
	r.from = 0
	n, err = r.r.Read(r.buf[r.to:])
	r.to += n
	return n, err
}

// AppendFrame appends a frame without a body to b. It panics if v cannot be
// marshalled, which for the types of this package cannot be.
func AppendFrame(b []byte, t Type, v any) []byte {
	at := len(b)
	b = appendMeta(appendHeader(b, t, 0), v)
	binary.BigEndian.PutUint32(b[at+4:], uint32(len(b)-at-headerLen))
	return b
}

// AppendMeta appends the header and meta of a frame whose body of bodyLen bytes
// the caller writes next.
func AppendMeta(b []byte, t Type, meta any, bodyLen int) []byte {
	at := len(b)
	b = appendMeta(append(appendHeader(b, t, 0), 0, 0, 0, 0), meta)
	n := len(b) - at - headerLen
	binary.BigEndian.PutUint32(b[at+4:], uint32(n+bodyLen))
	binary.BigEndian.PutUint32(b[at+headerLen:], uint32(n-4))
	return b
}

// AppendData appends the header of a frame whose payload of n raw bytes the
// caller writes next.
func AppendData(b []byte, t Type, n int) []byte { return appendHeader(b, t, n) }

func appendHeader(b []byte, t Type, n int) []byte {
	b = append(b, byte(t), 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}
