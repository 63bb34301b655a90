package worker

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lapwing.dev/lapwing/internal/guest/host"
	"lapwing.dev/lapwing/internal/guest/proto"
	"lapwing.dev/lapwing/internal/invoke"
)

// streamed returns the response of a streamed invocation without a caller.
func streamed(ctx context.Context) *response {
	return &response{ctx: ctx, req: &invoke.Request{Streaming: true, RequestID: requestID}, call: new(invoke.Call)}
}

func TestStreamedResponseIsPacedAfterItsFirst6MB(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name  string
		sizes []int         // of the writes
		pause time.Duration // after the first of them
		want  time.Duration // that the writes take together
	}{
		{name: "6 MB at once", sizes: []int{6 * mb}, want: 0},
		{name: "one byte more", sizes: []int{6*mb + 1}, want: time.Second / (2 * mb)},
		{name: "2 MB more", sizes: []int{6 * mb, 2 * mb}, want: time.Second},
		{name: "the largest response", sizes: []int{100 * mb, 100 * mb}, want: 97 * time.Second},
		{name: "no faster after a rest", sizes: []int{6 * mb, 8 * mb}, pause: time.Minute, want: time.Second},
		{name: "a function that is slow itself", sizes: []int{6 * mb, mb}, pause: time.Second, want: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := streamed(t.Context())
				var took time.Duration
				for i, size := range c.sizes {
					began := time.Now()
					if n, err := r.Write(make([]byte, size)); n != size || err != nil {
						t.Fatal(n, err)
					}
					took += time.Since(began)
					if i == 0 {
						time.Sleep(c.pause)
					}
				}
				if d := took - c.want; d < -time.Millisecond || d > time.Millisecond {
					t.Errorf("took %v, want %v", took, c.want)
				}
			})
		})
	}
}

func TestPacingEndsWithTheInvocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, errTimeout)
		defer cancel()
		began := time.Now()
		if _, err := streamed(ctx).Write(make([]byte, 100<<20)); !errors.Is(err, errTimeout) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestBufferedResponseIsNotPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := &response{ctx: t.Context(), req: &invoke.Request{}, call: new(invoke.Call)}
		for range 10 {
			if _, err := r.Write(make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 || r.held.Len() != 10<<20 {
			t.Errorf("%d bytes in %v", r.held.Len(), took)
		}
	})
}

// starts starts environments without a sandbox, which respond as told.
type starts func(*response)

func (f starts) Start(context.Context, invoke.Spec) (invoke.Environment, error) {
	return responding(f), nil
}

type responding func(*response)

func (f responding) Invoke(ctx context.Context, req *invoke.Request, call *invoke.Call) invoke.Ending {
	f(&response{ctx: ctx, req: req, call: call})
	return invoke.Ending{Run: func() bool { return true }}
}

func (f responding) CPUTime() time.Duration { return 0 }

func (f responding) Alive() bool { return true }

func (f responding) Close() {}

// caller records what reaches it.
type caller struct {
	bytes.Buffer
	contentType string
	begun       int
}

func (c *caller) Begin(contentType string) { c.contentType, c.begun = contentType, c.begun+1 }

func TestWhatTheCallerOfAStreamGets(t *testing.T) {
	tooLarge := &host.RuntimeError{Type: "Function.ResponseSizeTooLarge"}
	trailer := &host.RuntimeError{Type: "errorString", Body: []byte(`{"errorMessage":"m","errorType":"errorString"}`)}
	for _, c := range []struct {
		name      string
		respond   func(*response)
		body      string
		begun     int
		function  string // FunctionError
		errorType string
		details   string
	}{
		{
			name: "a response", begun: 1, body: "ab",
			respond: func(r *response) {
				r.Start(proto.ResponseStart{ContentType: "text/x"})
				r.Write([]byte("a"))
				r.Write([]byte("b"))
				r.End(nil)
			},
		},
		{
			name: "an error in mid-stream", begun: 1, body: "a", errorType: "errorString", details: string(trailer.Body),
			respond: func(r *response) {
				r.Start(proto.ResponseStart{ContentType: "text/x"})
				r.Write([]byte("a"))
				r.End(trailer)
			},
		},
		{
			name: "one byte too many", begun: 1, body: "a", errorType: tooLarge.Type,
			details: `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (209715200 bytes)."}`,
			respond: func(r *response) {
				r.Start(proto.ResponseStart{ContentType: "text/x"})
				r.Write([]byte("a"))
				r.End(tooLarge)
			},
		},
		{
			name: "a response of no bytes", begun: 1,
			respond: func(r *response) {
				r.Start(proto.ResponseStart{ContentType: "text/x"})
				r.End(nil)
			},
		},
		{
			name: "an error instead of the first byte", body: string(trailer.Body), function: "Unhandled",
			respond: func(r *response) {
				r.Start(proto.ResponseStart{ContentType: "text/x"})
				r.End(trailer)
			},
		},
		{
			name: "an error before the first byte", body: string(trailer.Body), function: "Unhandled",
			respond: func(r *response) { r.End(trailer) },
		},
		{
			name: "a timeout in mid-stream", begun: 1, body: "a", errorType: "Sandbox.Timedout",
			details: `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: ` + requestID + ` Error: Task timed out after 3.00 seconds"}`,
			respond: func(r *response) {
				r.Start(proto.ResponseStart{ContentType: "text/x"})
				r.Write([]byte("a"))
				r.fail(timeoutFailure(3 * time.Second))
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := invoke.New(invoke.Options{Starter: starts(c.respond)})
			defer d.Close(t.Context())
			var got caller
			v := &bench{dir: t.TempDir()}
			res, err := d.Invoke(t.Context(), &invoke.Request{Version: v.custom(t, nil), RequestID: requestID, Streaming: true}, &got)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != c.body || got.begun != c.begun || (c.begun > 0 && got.contentType != "text/x") {
				t.Errorf("caller got %q, begun %d times as %q", got.String(), got.begun, got.contentType)
			}
			if res.FunctionError != c.function || res.ErrorType != c.errorType || strings.TrimSpace(res.ErrorDetails) != c.details {
				t.Errorf("result %+v", res)
			}
		})
	}
}
