package http1

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// pipelineServer serves a handler on loopback.
func pipelineServer(t *testing.T, h Handler) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go NewServer(h, nil).Serve(l)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

const postThenGet = "POST /response HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nokGET /next HTTP/1.1\r\nHost: x\r\n\r\n"

// afterNext serves /next when it is told to, and /response at once.
func afterNext(told <-chan struct{}, status int) Handler {
	return func(r *Request) Response {
		if r.Path == "/next" {
			<-told
			return Response{Status: 200, Body: []byte(r.Path)}
		}
		return Response{Status: status, Body: []byte(r.Path)}
	}
}

func TestResponseWaitsForThatOfThePipelinedRequest(t *testing.T) {
	told := make(chan struct{})
	c := pipelineServer(t, afterNext(told, 202))
	io.WriteString(c, postThenGet)
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n != 0 {
		t.Fatalf("%d bytes before there is a response to both, %v", n, err)
	}
	c.SetReadDeadline(time.Now().Add(time.Minute))
	close(told)
	b := make([]byte, 1024)
	n, err := c.Read(b)
	if err != nil || bytes.Count(b[:n], []byte("HTTP/1.1")) != 2 {
		t.Errorf("read %q, %v: want both responses", b[:n], err)
	}
}

func TestRefusalDoesNotWaitForThePipelinedRequest(t *testing.T) {
	told := make(chan struct{})
	defer close(told)
	c := pipelineServer(t, afterNext(told, 413))
	io.WriteString(c, postThenGet)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 413 {
		t.Fatalf("%v, %v", resp, err)
	}
}

func TestPipelinedResponsesComeTogetherAndInOrder(t *testing.T) {
	pipelined := make(chan bool, 2)
	c := pipelineServer(t, func(r *Request) Response {
		pipelined <- r.Pipelined
		return Response{Status: 200, Body: []byte(r.Path)}
	})
	br := bufio.NewReader(c)
	for range 50 {
		io.WriteString(c, postThenGet)
		for i, want := range []string{"/response", "/next"} {
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(resp.Body); string(b) != want {
				t.Fatalf("response %q, want %q", b, want)
			}
			if got := <-pipelined; got != (i == 1) {
				t.Fatalf("request %s: pipelined %t", want, got)
			}
		}
	}
}

func TestHeldResponseIsSentWhenTheNextRequestIsRefused(t *testing.T) {
	c := pipelineServer(t, func(r *Request) Response { return Response{Status: 200, Body: []byte(r.Path)} })
	io.WriteString(c, "POST /response HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nokGET /next HTTP/9.9\r\n\r\n")
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("first response %v, %v", resp, err)
	}
	io.Copy(io.Discard, resp.Body)
	if resp, err = http.ReadResponse(br, nil); err != nil || resp.StatusCode < 400 {
		t.Fatalf("second response %v, %v", resp, err)
	}
}
