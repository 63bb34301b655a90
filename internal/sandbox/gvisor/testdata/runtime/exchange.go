package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"
)

// exchangeFile is guest.ExchangeFile.
const exchangeFile = 0x6c617077

const next = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: h\r\n\r\n"

// exchangers echoes events in n threads, and sends itself signals. The event "sleep"
// is for ever, "exit" is the end.
func exchangers(n int) {
	odd()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR1)
	for range n {
		go func() {
			for requests := next; ; requests = echo(exchange(requests)) + next {
			}
		}()
	}
	for {
		time.Sleep(2 * time.Millisecond)
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	}
}

// exchange makes an exchange until there is an event.
func exchange(requests string) (id, event string) {
	buf := make([]byte, 64<<10)
	for {
		n, err := syscall.Pread(exchangeFile, buf, int64(copy(buf, requests)))
		if err != nil {
			panic(err)
		}
		requests = next
		for r := bufio.NewReader(bytes.NewReader(buf[:n])); ; {
			answer, err := http.ReadResponse(r, nil)
			if err != nil {
				break
			}
			body, err := io.ReadAll(answer.Body)
			if err != nil {
				panic(err)
			}
			if answer.StatusCode == 200 {
				return answer.Header.Get("Lambda-Runtime-Aws-Request-Id"), string(body)
			}
		}
	}
}

// echo returns the request that answers an event.
func echo(id, event string) string {
	switch event {
	case "sleep":
		select {}
	case "exit":
		os.Exit(0)
	}
	return fmt.Sprintf("POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", id, len(event), event)
}

// odd makes exchanges that cannot be.
func odd() {
	buf := make([]byte, 4096)
	for _, path := range []string{"2018-06-01/runtime/restore/next", "2020-01-01/extension/event/next", "2018-06-01/ping"} {
		length := copy(buf, "GET /"+path+" HTTP/1.1\r\nHost: h\r\nLambda-Extension-Identifier: x\r\n\r\n")
		n, err := syscall.Pread(exchangeFile, buf, int64(length))
		if err != nil || !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 404 ")) {
			panic(fmt.Sprintf("%s: %s %v", path, buf[:n], err))
		}
	}
	at := uintptr(unsafe.Pointer(&buf[0]))
	for _, args := range [][3]uintptr{ // buffer, its size, length of the requests
		{at, 4096, 0}, {at, 4096, ^uintptr(0)}, {at, 4096, 4097}, {at, 1 << 30, 1}, {8, 4096, 16}, {at, 0, 1}, {^uintptr(0) - 8, 4096, 64},
	} {
		if n, _, errno := syscall.Syscall6(syscall.SYS_PREAD64, exchangeFile, args[0], args[1], args[2], 0, 0); errno == 0 {
			panic(fmt.Sprintf("an exchange of %v returned %d", args, n))
		}
	}
	var vectors [2]syscall.Iovec
	for i := range vectors {
		vectors[i] = syscall.Iovec{Base: &buf[0], Len: 4096}
	}
	if n, _, errno := syscall.Syscall6(syscall.SYS_PREADV, exchangeFile, uintptr(unsafe.Pointer(&vectors[0])), 2, 16, 0, 0); errno == 0 {
		panic(fmt.Sprintf("an exchange with two buffers returned %d", n))
	}
}
