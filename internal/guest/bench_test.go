package guest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	functions["bare"] = bare
	functions["pong"] = pong
}

// bare echoes with as little work as a runtime can do.
func bare() {
	c, err := net.Dial("tcp", Address)
	if err != nil {
		panic(err)
	}
	r := textproto.NewReader(bufio.NewReader(c))
	read := func() (h textproto.MIMEHeader, body []byte) {
		if _, err := r.ReadLine(); err != nil {
			panic(err)
		}
		if h, err = r.ReadMIMEHeader(); err != nil {
			panic(err)
		}
		n, _ := strconv.Atoi(h.Get("Content-Length"))
		body = make([]byte, n)
		io.ReadFull(r.R, body)
		return h, body
	}
	for {
		io.WriteString(c, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n")
		h, body := read()
		c.Write(fmt.Appendf(nil, "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s",
			h.Get("Lambda-Runtime-Aws-Request-Id"), len(body), body))
		read()
	}
}

// pong is the floor: it sends back what comes on descriptor 1.
func pong() {
	b := make([]byte, 64*1024)
	for {
		n, err := unix.Read(1, b)
		if err != nil || n == 0 {
			os.Exit(0)
		}
		unix.Write(1, b[:n])
	}
}

// BenchmarkInvoke is the round trip of 1 KB through the host connection, the
// guest and a runtime; the floor is a bare round trip between two processes.
func BenchmarkInvoke(b *testing.B) {
	payload := bytes.Repeat([]byte("x"), 1024)
	b.Run("floor", func(b *testing.B) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		theirs := os.NewFile(uintptr(fds[1]), "pong")
		p, err := os.StartProcess("/proc/self/exe", []string{"pong"}, &os.ProcAttr{
			Env: append(os.Environ(), roleEnv+"=pong"), Files: []*os.File{nil, theirs, os.Stderr},
		})
		if err != nil {
			b.Fatal(err)
		}
		theirs.Close()
		ours := os.NewFile(uintptr(fds[0]), "ping")
		conn, err := net.FileConn(ours)
		if err != nil {
			b.Fatal(err)
		}
		ours.Close()
		buf := make([]byte, len(payload))
		for b.Loop() {
			conn.Write(payload)
			if _, err := io.ReadFull(conn, buf); err != nil {
				b.Fatal(err)
			}
		}
		conn.Close()
		p.Wait()
	})
	for _, name := range []string{"bare", "echo"} {
		b.Run(strings.ReplaceAll(name, "echo", "aws-lambda-go"), func(b *testing.B) {
			s := run(b, name)
			if name == "echo" {
				payload = append(append([]byte{'"'}, payload...), '"')
			}
			inv := invocation()
			for b.Loop() {
				r := new(reply)
				if _, err := s.Invoke(context.Background(), inv, payload, r); err != nil || len(r.body) != len(payload) {
					b.Fatal(err, len(r.body))
				}
			}
		})
	}
}
