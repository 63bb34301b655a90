package invoke

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"
)

// attended invokes in the caller's goroutine, and returns what is left to do then,
// where the caller is to do that.
func attended(ctx context.Context, d *Dispatcher, req Request) (body string, rest func(), err error) {
	var b bytes.Buffer
	req.RequestID, req.After = "r", func(f func()) { rest = f }
	_, err = d.Invoke(ctx, &req, &b)
	return b.String(), rest, err
}

func TestCallersThatCanWaitEndTheirInvocationsAfterTheAnswer(t *testing.T) {
	s := &fakeStarter{runTime: time.Millisecond}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v := version("f")
		gone, leave := context.WithCancel(t.Context())
		leave()
		body, rest, err := attended(gone, d, Request{Version: v}) // ctx does not count
		if err != nil || body != "env 1" || rest == nil {
			t.Fatalf("%q, %v, rest: %t", body, err, rest != nil)
		}
		if n := d.InUse(v.FunctionARN()); n != 1 {
			t.Errorf("%d in use before the end", n)
		}
		rest()
		if n := d.InUse(v.FunctionARN()); n != 0 {
			t.Errorf("%d in use after it", n)
		}
		if body, err := invoke(d, v); err != nil || body != "env 1" {
			t.Errorf("the next invocation: %q, %v", body, err)
		}
	})
}

func TestAnEnvironmentThatOthersWaitForIsGivenBackBeforeTheAnswer(t *testing.T) {
	s := &fakeStarter{startTime: time.Second}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v := version("f")
		next := make(chan string, 1)
		s.work = func(*fakeEnv, *Request) {
			s.work = nil
			go func() {
				body, err := invoke(d, v)
				next <- fmt.Sprint(body, " ", err)
			}()
			time.Sleep(time.Millisecond) // it waits for another environment
		}
		body, rest, err := attended(t.Context(), d, Request{Version: v})
		if err != nil || body != "env 1" || rest != nil {
			t.Fatalf("%q, %v, rest: %t", body, err, rest != nil)
		}
		if got := <-next; got != "env 1 <nil>" {
			t.Errorf("who waited got %s", got)
		}
	})
}

func TestCallersDoNotWaitForARuntimeThatHasAnswered(t *testing.T) {
	s := &fakeStarter{runTime: time.Millisecond, tail: time.Minute}
	scenario(t, s, Options{}, func(t *testing.T, d *Dispatcher) {
		v := version("f")
		began := time.Now()
		body, rest, err := attended(t.Context(), d, Request{Version: v})
		if took := time.Since(began); err != nil || body != "env 1" || rest != nil || took >= time.Minute {
			t.Errorf("%q, %v, rest: %t, after %v", body, err, rest != nil, took)
		}
		if n := d.InUse(v.FunctionARN()); n != 1 {
			t.Errorf("%d in use while the runtime is not done", n)
		}
		time.Sleep(2 * time.Minute)
		if n := d.InUse(v.FunctionARN()); n != 0 {
			t.Errorf("%d in use when it is", n)
		}
	})
}

// silent is an environment that does what its Invoke says.
type silent struct {
	Environment
	invoke func(*Call) Ending
}

func (e silent) Invoke(_ context.Context, _ *Request, c *Call) Ending { return e.invoke(c) }
func (silent) Alive() bool                                            { return true }
func (silent) CPUTime() time.Duration                                 { return 0 }
func (silent) Close()                                                 {}

func TestWhatOthersMayWaitForIsDoneBeforeTheAnswer(t *testing.T) {
	ended := 0
	end := func() bool { ended++; return true }
	large := make([]byte, smallAnswer+1)
	for name, tt := range map[string]struct {
		invoke func(*Call) Ending
		ended  int
		fails  bool
	}{
		"a large answer": {func(c *Call) Ending { c.Finish(&Result{}, large); return Ending{Run: end} }, 1, false},
		"the log": {func(c *Call) Ending {
			return Ending{Run: func() bool { c.Finish(&Result{}, nil); return end() }}
		}, 1, false},
		"a panic":               {func(*Call) Ending { panic("as asked") }, 0, true},
		"a panic in the ending": {func(*Call) Ending { return Ending{Run: func() bool { panic("as asked") }} }, 0, true},
		"no answer":             {func(*Call) Ending { return Ending{Run: end} }, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			ended = 0
			d := New(Options{Starter: starterFunc(func(context.Context, Spec) (Environment, error) { return silent{invoke: tt.invoke}, nil })})
			defer d.Close(t.Context())
			v := version("f")
			_, rest, err := attended(t.Context(), d, Request{Version: v})
			if rest != nil || ended != tt.ended || (err != nil) != tt.fails {
				t.Errorf("rest: %t, ended %d times, %v", rest != nil, ended, err)
			}
			if n := d.InUse(v.FunctionARN()); n != 0 {
				t.Errorf("%d in use", n)
			}
		})
	}
}
