package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"lapwing.dev/lapwing/test/harness"
)

// server is something that echoes 1 KB of JSON over HTTP.
type server struct {
	name string
	kind kind
	url  string
	stop func()
	pid  int // of its process, where that is known
	// single tells that it takes one request at a time, so that a load of many
	// is not for it.
	single bool
}

// The bare servers.
const (
	nodeServer = `
const http = require("node:http");
http.createServer((req, res) => {
  const chunks = [];
  req.on("data", (c) => chunks.push(c));
  req.on("end", () => {
    const body = JSON.stringify(JSON.parse(Buffer.concat(chunks)));
    res.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
    res.end(body);
  });
}).listen(0, "127.0.0.1", function () { console.log(this.address().port); });
`
	pythonServer = `
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps(event, separators=(",", ":")).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
server.request_queue_size = 128
print(server.server_port, flush=True)
server.serve_forever()
`
)

// Names of the floors.
const (
	bareNode   = "bare Node.js server"
	barePython = "bare Python server"
	bareGo     = "bare Go server"
)

// floors starts the bare servers.
func (b *bench) floors() (all []server, err error) {
	program, err := b.program("lapwing.dev/lapwing/test/bench/floor")
	if err != nil {
		return nil, err
	}
	commands := []struct {
		name    string
		command []string
	}{{bareNode, []string{b.node, "-e", nodeServer}}, {bareGo, []string{program}}}
	if b.python != "" {
		commands = append(commands, struct {
			name    string
			command []string
		}{barePython, []string{b.python, "-c", pythonServer}})
	}
	for _, c := range commands {
		s, err := startPrinting(c.name, c.command)
		if err != nil {
			stopAll(all)
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func stopAll(all []server) {
	for _, s := range all {
		s.stop()
	}
}

// program builds a Go program of this module and returns its path.
func (b *bench) program(pkg string) (string, error) {
	path := filepath.Join(b.dir, filepath.Base(pkg))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	p, err := harness.Program(pkg)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(p), 0o755)
}

// startPrinting starts a server that prints the port that it listens at.
func startPrinting(name string, command []string) (server, error) {
	cmd := exec.Command(command[0], command[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return server{}, err
	}
	if err := cmd.Start(); err != nil {
		return server{}, err
	}
	stop := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	var port int
	if _, err := fmt.Fscan(out, &port); err != nil {
		stop()
		return server{}, fmt.Errorf("%s did not start: %w", name, err)
	}
	return server{name: name, kind: floorKind, url: fmt.Sprintf("http://127.0.0.1:%d/", port), stop: stop, pid: cmd.Process.Pid}, nil
}

// freePort returns a port that nothing listens at.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// peerPatience is how long a peer may take to start.
const peerPatience = 60 * time.Second

// errPeer is wrapped where a peer is not there.
var errPeer = errors.New("not installed (scripts/setup bench)")

// peers starts the peers that are there, and notes the others as absent.
func (b *bench) peers(ctx context.Context) (all []server) {
	root, err := harness.Root()
	if err != nil {
		b.report.absent("all peers: %v", err)
		return nil
	}
	tools := filepath.Join(root, "bin", "tools", "bench")
	for _, p := range []struct {
		name  string
		start func(ctx context.Context, tools, dir string) (server, error)
	}{
		{"workerd (V8 isolates)", b.startWorkerd},
		{"AWS runtime interface emulator", b.startEmulator},
		{"serverless-offline", b.startServerlessOffline},
	} {
		dir := filepath.Join(b.dir, fmt.Sprintf("peer-%d", len(all)))
		err := os.Mkdir(dir, 0o755)
		var s server
		if err == nil {
			s, err = p.start(ctx, tools, dir)
		}
		if err == nil {
			s.name, s.kind = p.name, peerKind
			if err = b.answers(ctx, s); err != nil {
				s.stop()
			}
		}
		if err != nil {
			b.report.absent("%s: %v", p.name, err)
			continue
		}
		all = append(all, s)
	}
	return all
}

// answers waits until a server that has just been started echoes.
func (b *bench) answers(ctx context.Context, s server) error {
	for end := time.Now().Add(peerPatience); ; time.Sleep(50 * time.Millisecond) {
		_, err := drive(ctx, b.server.Config(), s.url, 1, 0)
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
	}
}

// startPeer runs a peer's command in a directory.
func startPeer(dir string, env []string, command ...string) (stop func(), err error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}

// echoFunction is the function of the peers that run Lambda functions.
const echoFunction = "exports.handler = async (event) => event;"

// startWorkerd starts workerd with a worker in an ES module.
func (b *bench) startWorkerd(_ context.Context, tools, dir string) (server, error) {
	found, err := filepath.Glob(filepath.Join(tools, "node_modules", "@cloudflare", "workerd-linux-*", "bin", "workerd"))
	if err != nil || len(found) == 0 {
		return server{}, errPeer
	}
	port, err := freePort()
	if err != nil {
		return server{}, err
	}
	files := map[string]string{
		"worker.js": "export default { async fetch(request) { return Response.json(await request.json()); } };\n",
		"config.capnp": fmt.Sprintf(`using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .echo)],
  sockets = [(name = "http", address = "127.0.0.1:%d", http = (), service = "main")]
);
const echo :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "worker.js")],
  compatibilityDate = "2025-01-01"
);
`, port),
	}
	if err := writeFiles(dir, files); err != nil {
		return server{}, err
	}
	stop, err := startPeer(dir, nil, found[0], "serve", "config.capnp")
	return server{url: fmt.Sprintf("http://127.0.0.1:%d/", port), stop: stop}, err
}

// startEmulator starts AWS's emulator of the Runtime API, without a container,
// with Node.js and Lapwing's bootstrap, which speaks the Runtime API like any.
// It runs one invocation at a time.
func (b *bench) startEmulator(_ context.Context, tools, dir string) (server, error) {
	emulator := filepath.Join(tools, "aws-lambda-rie")
	if _, err := os.Stat(emulator); err != nil {
		return server{}, errPeer
	}
	root, err := harness.Root()
	if err != nil {
		return server{}, err
	}
	front, err := freePort()
	if err != nil {
		return server{}, err
	}
	back, err := freePort()
	if err != nil {
		return server{}, err
	}
	if err := writeFiles(dir, map[string]string{"index.js": echoFunction}); err != nil {
		return server{}, err
	}
	stop, err := startPeer(dir, []string{"LAMBDA_TASK_ROOT=" + dir, "AWS_LAMBDA_FUNCTION_NAME=function"}, emulator,
		"--runtime-interface-emulator-address", fmt.Sprintf("127.0.0.1:%d", front), "--runtime-api-address", fmt.Sprintf("127.0.0.1:%d", back),
		"--log-level", "error", b.node, filepath.Join(root, "internal", "runtimes", "bootstrap", "node", "main.js"), "index.handler")
	return server{url: fmt.Sprintf("http://127.0.0.1:%d/2015-03-31/functions/function/invocations", front), stop: stop, single: true}, err
}

// startServerlessOffline starts serverless-offline, whose Lambda endpoint is the
// one that its function is invoked at.
func (b *bench) startServerlessOffline(_ context.Context, tools, dir string) (server, error) {
	modules := filepath.Join(tools, "node_modules")
	for _, m := range []string{"serverless", "serverless-offline"} {
		if _, err := os.Stat(filepath.Join(modules, m)); err != nil {
			return server{}, errPeer
		}
	}
	var ports [3]int
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return server{}, err
		}
	}
	if err := writeFiles(dir, map[string]string{
		"index.js":       echoFunction,
		"package.json":   "{}",
		"serverless.yml": "service: bench\nframeworkVersion: '3'\nprovider:\n  name: aws\n  runtime: nodejs20.x\nplugins: [serverless-offline]\nfunctions:\n  echo:\n    handler: index.handler\n    timeout: 30\n",
	}); err != nil {
		return server{}, err
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		return server{}, err
	}
	stop, err := startPeer(dir, []string{"SLS_TELEMETRY_DISABLED=1", "SLS_NOTIFICATIONS_MODE=off", "CI=1"}, b.node,
		filepath.Join(modules, "serverless", "bin", "serverless.js"), "offline", "start", "--host", "127.0.0.1",
		"--httpPort", fmt.Sprint(ports[0]), "--lambdaPort", fmt.Sprint(ports[1]), "--albPort", fmt.Sprint(ports[2]))
	return server{url: fmt.Sprintf("http://127.0.0.1:%d/2015-03-31/functions/bench-dev-echo/invocations", ports[1]), stop: stop}, err
}

func writeFiles(dir string, files map[string]string) error {
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
