package http1

import (
	"strings"
	"testing"
	"testing/synctest"
)

const (
	post  = "POST /post HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
	large = "POST /large HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
	ask   = "GET /ask HTTP/1.1\r\nHost: h\r\n\r\n"
)

// exchanger answers /post with 202, /large with 413, and /ask when told to.
func exchanger(told chan struct{}) *Server {
	return NewServer(func(r *Request) Response {
		switch r.Path {
		case "/post":
			var b [8]byte
			if n, _ := r.Body.Read(b[:]); string(b[:n]) != "abc" || !r.HasNext() {
				return Response{Status: 500}
			}
			return Response{Status: 202}
		case "/large":
			return Response{Status: 413}
		}
		if !r.Wait(told) {
			return Response{}
		}
		return Response{Status: 200, Body: []byte("event")}
	}, nil)
}

// waits is a Waiter for which it was worth it, or not.
type waits bool

func (w waits) Wait(ready chan struct{}) bool {
	<-ready
	return bool(w)
}

func (waits) Wake() {}

func TestExchangeAnswersTheLastRequestAndRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		requests string
		waits    bool
		statuses string
	}{
		"the last request":                           {ask, true, "200"},
		"one that was taken goes without an answer":  {post + ask, true, "200"},
		"one that was refused does not":              {large + ask, true, "413 200"},
		"who does not wait longer":                   {ask, false, ""},
		"what was taken stays so":                    {post + ask, false, ""},
		"a refusal is told to who waits no longer":   {large + ask, false, "413"},
		"a request that is no such thing":            {"ask\r\n\r\n" + ask, true, "400"},
		"half a request":                             {"GET /ask HT", true, ""},
		"half a body":                                {strings.TrimSuffix(large, "bc"), true, ""},
		"nothing":                                    {"", true, ""},
		"nothing comes after the end of connections": {"GET /ask HTTP/1.0\r\n\r\n" + ask, true, "200"},
	} {
		t.Run(name, func(t *testing.T) {
			told := make(chan struct{}, 1)
			told <- struct{}{}
			answers := exchanger(told).Exchange(nil, []byte(c.requests), waits(c.waits))
			var statuses []string
			for line := range strings.Lines(string(answers)) {
				if rest, ok := strings.CutPrefix(line, "HTTP/1.1 "); ok {
					statuses = append(statuses, rest[:3])
				}
			}
			if got := strings.Join(statuses, " "); got != c.statuses {
				t.Errorf("answers %q, want statuses %q", answers, c.statuses)
			}
		})
	}
}

func TestExchangeWaitsAsItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan struct{}, 1)
		done := make(chan []byte)
		s := exchanger(told)
		go func() {
			done <- s.Exchange(nil, []byte(post+ask), waits(true))
		}()
		synctest.Wait()
		select {
		case b := <-done:
			t.Fatalf("answered %q before there was anything", b)
		default:
		}
		told <- struct{}{}
		if b := <-done; !strings.HasSuffix(string(b), "\r\n\r\nevent") {
			t.Errorf("answered %q", b)
		}
	})
}
