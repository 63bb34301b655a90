package http1

import (
	"bufio"
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
	go NewServer(h).Serve(l)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

const postThenGet = "POST /response HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nokGET /next HTTP/1.1\r\nHost: x\r\n\r\n"

func TestResponseDoesNotWaitForAPipelinedRequestThatBlocks(t *testing.T) {
	block := make(chan struct{})
	c := pipelineServer(t, func(r *Request) Response {
		if r.Path == "/next" {
			<-block
		}
		return Response{Status: 200, Body: []byte(r.Path)}
	})
	io.WriteString(c, postThenGet)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("no response while the next request blocks: %v", err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "/response" {
		t.Errorf("first response %q", b)
	}
	close(block)
	if resp, err = http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "/next" {
		t.Errorf("second response %q", b)
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
