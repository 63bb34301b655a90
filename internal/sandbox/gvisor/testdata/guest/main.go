// Command guest is process 1 of the sandboxes of this package's tests. It obeys
// commands that come as JSON lines over the host connection.
package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

type command struct {
	Op   string
	Path string
	N    int
}

type reply struct {
	Text  string
	N     int64
	Error string
}

var (
	held   [][]byte // allocated
	kept   []net.Conn
	rounds atomic.Int64

	letGo [2]int    // a pipe that somebody reads from, holding registers
	holds chan bool // whether they were the same afterwards
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "sleep" {
		time.Sleep(time.Hour)
	}
	if len(os.Args) > 1 { // see "as"
		var c command
		if err := json.Unmarshal([]byte(os.Args[1]), &c); err != nil {
			panic(err)
		}
		r, err := do(c)
		if err != nil {
			r.Error = err.Error()
		}
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			panic(err)
		}
		return
	}
	conn := os.NewFile(3, "host")
	in := bufio.NewReaderSize(conn, 64*1024)
	out := json.NewEncoder(conn)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			os.Exit(0)
		}
		if err != nil {
			panic(err)
		}
		var c command
		if err := json.Unmarshal(line, &c); err != nil {
			panic(err)
		}
		if c.Op == "echo" { // from here on every N bytes come back
			buf := make([]byte, c.N)
			for {
				if _, err := io.ReadFull(in, buf); err != nil {
					os.Exit(0)
				}
				if _, err := conn.Write(buf); err != nil {
					os.Exit(0)
				}
			}
		}
		r, err := do(c)
		if err != nil {
			r.Error = err.Error()
		}
		if err := out.Encode(r); err != nil {
			panic(err)
		}
	}
}

func do(c command) (r reply, err error) {
	switch c.Op {
	case "write": // N MiB into the file at Path
		f, err := os.OpenFile(c.Path, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return r, err
		}
		defer f.Close()
		block := make([]byte, 1<<20)
		for range c.N {
			n, err := f.Write(block)
			r.N += int64(n)
			if err != nil {
				return r, err
			}
		}
	case "read":
		b, err := os.ReadFile(c.Path)
		r.Text = string(b)
		return r, err
	case "list":
		entries, err := os.ReadDir(c.Path)
		for _, e := range entries {
			r.Text += e.Name() + " "
		}
		return r, err
	case "stat":
		st, err := os.Stat(c.Path)
		if err == nil {
			r.Text, r.N = st.Mode().String(), st.Size()
		}
		return r, err
	case "as": // user N, do the command in Path
		cmd := exec.Command("/proc/self/exe", c.Path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(c.N), Gid: uint32(c.N)}}
		cmd.Stderr = os.Stderr
		b, err := cmd.Output()
		if err != nil {
			return r, err
		}
		return r, json.Unmarshal(b, &r)
	case "rename":
		return r, os.Rename(c.Path, c.Path+"-new")
	case "symlink":
		return r, os.Symlink("x", c.Path)
	case "chmod":
		return r, os.Chmod(c.Path, 0o777)
	case "truncate":
		return r, os.Truncate(c.Path, 0)
	case "writable":
		return r, syscall.Access(c.Path, 2)
	case "rmdir":
		return r, syscall.Rmdir(c.Path)
	case "allocate": // N MiB, and keep them
		for range c.N {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			held = append(held, b)
		}
	case "scribble": // N over all that is kept
		for _, b := range held {
			for i := 0; i < len(b); i += 4096 {
				b[i] = byte(c.N)
			}
		}
	case "held": // the sum of what is kept
		for _, b := range held {
			for i := 0; i < len(b); i += 4096 {
				r.N += int64(b[i])
			}
		}
	case "hold": // a pattern in floating point registers, in a system call
		if err := syscall.Pipe(letGo[:]); err != nil {
			return r, err
		}
		holds = make(chan bool, 1)
		go func() {
			var b [1]byte
			holds <- readHolding(letGo[0], &b[0], 0x0123456789abcdef)
		}()
		time.Sleep(100 * time.Millisecond) // it is in the call
	case "let go":
		if _, err := syscall.Write(letGo[1], []byte{1}); err != nil {
			return r, err
		}
		if <-holds {
			r.N = 1
		}
	case "random":
		b := make([]byte, 16)
		if _, err := rand.Read(b); err != nil { // getrandom
			return r, err
		}
		f, err := os.Open("/dev/urandom")
		if err != nil {
			return r, err
		}
		defer f.Close()
		if _, err := io.ReadFull(f, b[:8]); err != nil {
			return r, err
		}
		r.Text = fmt.Sprintf("%x", b)
	case "connect": // Path is network!address; and stay connected
		network, address, _ := strings.Cut(c.Path, "!")
		conn, err := net.DialTimeout(network, address, time.Second)
		if err != nil {
			return r, err
		}
		kept = append(kept, conn)
	case "map": // the file at Path, and use all of it
		f, err := os.Open(c.Path)
		if err != nil {
			return r, err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return r, err
		}
		b, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
		if err != nil {
			return r, err
		}
		for i := 0; i < len(b); i += 4096 {
			r.N += int64(b[i])
		}
	case "spin": // on N processors, from now on
		for range c.N {
			go func() {
				for {
					for range 1000 {
						rounds.Add(1)
					}
				}
			}()
		}
	case "churn": // map and unmap memory, from now on
		go func() {
			for {
				b, err := syscall.Mmap(-1, 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
				if err != nil {
					panic(err)
				}
				b[0], b[1<<19] = 1, 1
				if err := syscall.Munmap(b); err != nil {
					panic(err)
				}
				rounds.Add(1)
			}
		}()
	case "rounds":
		r.N = rounds.Load()
	case "fork": // until it fails, at most N
		for range c.N {
			cmd := exec.Command("/proc/self/exe", "sleep")
			if err := cmd.Start(); err != nil {
				return r, err
			}
			r.N++
		}
	case "dial": // Path is network!address
		network, address, _ := strings.Cut(c.Path, "!")
		conn, err := net.DialTimeout(network, address, time.Second)
		if err != nil {
			return r, err
		}
		conn.Close()
	case "get":
		client := http.Client{Timeout: 30 * time.Second}
		resp, err := client.Get(c.Path)
		if err != nil {
			return r, err
		}
		defer resp.Body.Close()
		r.N, err = io.Copy(io.Discard, resp.Body)
		return r, err
	case "post": // N bytes
		client := http.Client{Timeout: 30 * time.Second}
		resp, err := client.Post(c.Path, "application/octet-stream", bytes.NewReader(make([]byte, c.N)))
		if err != nil {
			return r, err
		}
		return r, resp.Body.Close()
	case "serve": // N bytes at Path
		body := make([]byte, c.N)
		l, err := net.Listen("tcp", c.Path)
		if err != nil {
			return r, err
		}
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
	case "interfaces":
		list, err := net.Interfaces()
		if err != nil {
			return r, err
		}
		for _, i := range list {
			addrs, err := i.Addrs()
			if err != nil {
				return r, err
			}
			r.Text += fmt.Sprintln(i.Name, i.MTU, addrs)
		}
	case "time":
		r.N = time.Now().UnixNano()
	case "cpus":
		r.N = int64(runtime.NumCPU())
	case "hostname":
		r.Text, err = os.Hostname()
	case "remove":
		return r, os.RemoveAll(c.Path)
	case "mkdir":
		return r, os.Mkdir(c.Path, 0o755)
	case "run": // the command line at Path
		args := strings.Fields(c.Path)
		b, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		r.Text = string(b)
		return r, err
	case "exit":
		os.Exit(c.N)
	case "die":
		panic("as told")
	default:
		return r, fmt.Errorf("unknown command %q", c.Op)
	}
	return r, err
}
