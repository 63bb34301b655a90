package acceptance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// probe is a deployed function that tries what no function may.
type probe struct {
	t      *testing.T
	client *lambda.Client
	name   string
}

// try lets the probe try something and decodes what came of it.
func (p probe) try(answer any, do string, seconds int, args ...string) {
	p.t.Helper()
	event, err := json.Marshal(map[string]any{"Do": do, "Args": args, "Seconds": seconds})
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := p.client.Invoke(context.Background(), &lambda.InvokeInput{FunctionName: &p.name, Payload: event})
	if err != nil {
		p.t.Fatal(err)
	}
	if out.FunctionError != nil {
		p.t.Fatalf("%s: %s: %s", do, *out.FunctionError, out.Payload)
	}
	if answer == nil {
		return
	}
	if err := json.Unmarshal(out.Payload, answer); err != nil {
		p.t.Fatalf("%s: %s: %v", do, out.Payload, err)
	}
}

// none fails for everything that the probe could do.
func (p probe) none(what, do string, seconds int, args ...string) {
	p.t.Helper()
	var could []string
	p.try(&could, do, seconds, args...)
	for _, c := range could {
		p.t.Errorf("the function could %s: %s", what, c)
	}
}

// hostListener listens on all addresses of this host and records who comes.
func hostListener(t *testing.T) (port string, visitors func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var mu sync.Mutex
	var came []string
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			came = append(came, c.RemoteAddr().String()+" on "+c.LocalAddr().String())
			mu.Unlock()
			c.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(came)
	}
}

// hostAddresses returns the addresses of this host.
func hostAddresses(t *testing.T) (hosts []string) {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			t.Fatal(err)
		}
		if !prefix.Addr().IsLinkLocalUnicast() {
			hosts = append(hosts, prefix.Addr().String())
		}
	}
	return hosts
}

func TestFunctionsReachTheEndpointButNoHost(t *testing.T) {
	t.Parallel()
	s := startWith(t, "--listen", "0.0.0.0:0") // the host's port of the endpoint, on every address
	p := probe{t, deployProgram(t, s, "probe", "probe", 1769), "probe"}

	var open []string
	p.try(&open, "dial", 20, "lapwing.internal:4566", "bucket.lapwing.internal:4566", "169.254.100.1:53")
	if len(open) != 3 {
		t.Fatalf("the function reaches only %v of what is there for it", open)
	}

	port, visitors := hostListener(t)
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	var forbidden []string
	for _, host := range append(hostAddresses(t), "localhost", "169.254.169.254", "169.254.170.2") {
		for _, port := range []string{port, u.Port(), "22", "80"} {
			forbidden = append(forbidden, net.JoinHostPort(host, port))
		}
	}
	for port := range 1024 {
		if port != 53 {
			forbidden = append(forbidden, fmt.Sprintf("169.254.100.1:%d", port))
		}
	}
	forbidden = append(forbidden, "169.254.100.1:"+u.Port(), "169.254.100.1:"+port, "169.254.100.1:4222", "169.254.100.1:8222")
	p.none("connect to", "dial", 1, forbidden...)
	for _, who := range visitors() {
		t.Errorf("a listener of the host was reached: %s", who)
	}
	// The listener does listen.
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestFunctionsDoNotReachEachOther(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := deployProgram(t, s, "victim", "probe", 1769)
	deployProgram(t, s, "attacker", "probe", 1769)
	victim, attacker := probe{t, c, "victim"}, probe{t, c, "attacker"}
	var addresses, own []string
	victim.try(&addresses, "addresses", 0)
	attacker.try(&own, "addresses", 0) // it is warm when the victim listens
	g := newGate(t, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.Invoke(context.Background(), &lambda.InvokeInput{FunctionName: aws.String("victim"), Payload: fmt.Appendf(nil, `{"Do":"listen","Args":[":8080",%q]}`, g.URL)})
	}()
	defer func() { g.open(); <-done }()
	logged(t, s, "victim", "waiting", 1)

	sandboxes := netip.MustParsePrefix("100.64.0.0/10")
	var targets []string
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a)
		if err != nil {
			t.Fatal(err)
		}
		if prefix.Addr().IsLoopback() || !prefix.Addr().Is4() {
			continue
		}
		if slices.Contains(own, a) {
			t.Errorf("both have address %s", a)
		}
		// The victim's address, its neighbours and their gateways.
		near := prefix.Addr()
		for range 4 {
			near = near.Prev()
		}
		for range 9 {
			if !sandboxes.Contains(near) {
				near = near.Next()
				continue // an address of the internet
			}
			for _, port := range []string{"8080", "9001", "22", "53", "4566"} {
				targets = append(targets, net.JoinHostPort(near.String(), port))
			}
			near = near.Next()
		}
	}
	if len(targets) == 0 {
		t.Fatalf("the victim has only these addresses: %v", addresses)
	}
	attacker.none("connect to", "dial", 2, targets...)
	select {
	case <-done:
		t.Error("the victim stopped listening before the attacker was done: the test has shown nothing")
	default:
	}
}

func TestAnUnconfiguredSDKActsAsTheFunctionsRole(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := probe{t, deployProgram(t, s, "probe", "probe", 1769), "probe"}
	var got map[string]string
	p.try(&got, "aws", 0, "made-inside")
	if want := "arn:aws:sts::" + s.Account() + ":assumed-role/r/probe"; got["arn"] != want || got["object"] != "content" {
		t.Errorf("got %v, want the caller %s and the object back", got, want)
	}
}

func TestFunctionsSeeNoFilesButTheirOwn(t *testing.T) {
	t.Parallel()
	s := start(t)
	const canary = "lapwing-canary-5b1f"
	hostFile := filepath.Join(t.TempDir(), canary)
	for _, path := range []string{hostFile, filepath.Join(s.Data, canary), filepath.Join(os.TempDir(), canary)} {
		if err := os.WriteFile(path, []byte(canary), 0o666); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(path) })
	}
	c := deployProgram(t, s, "probe", "probe", 1769)
	deployFiles(t, s, "other", 256, map[string]string{"bootstrap*": "#!/bin/sh\nexit 1\n", canary: canary})
	p := probe{t, c, "probe"}
	p.none("see the host's or another function's", "find", 0, canary)
	p.none("see the data directory in", "find", 0, s.Data)
	p.none("read", "read", 0, "/etc/shadow", "/root", "/home", "/etc/ssh", "/boot", "/lib/modules", "/var/log", "/var/lib", "/var/run/docker.sock",
		"/proc/1/environ", "/proc/kcore", "/dev/mem", "/proc/kallsyms", s.Data, hostFile)
	var could []string
	dirs := []string{"/", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/home", "/lib", "/mnt", "/opt", "/proc", "/root", "/run", "/srv", "/sys",
		"/usr", "/usr/bin", "/usr/lib", "/usr/local", "/var", "/var/lang", "/var/run", "/var/runtime", "/var/task", "/var/tmp", "/tmp"}
	p.try(&could, "write", 0, dirs...)
	if !slices.Equal(could, []string{"/tmp"}) {
		t.Errorf("the function can write in %v, want /tmp alone", could)
	}
	p.none("do", "privileges", 0)
	var full struct {
		MiB   int
		Error string
	}
	p.try(&full, "fill", 0)
	if full.MiB < 480 || full.MiB > 512 || !strings.Contains(full.Error, "no space left on device") {
		t.Errorf("/tmp took %d MiB, then %q; want about 512", full.MiB, full.Error)
	}
}

func TestForkBombAndMemoryHogLeaveTheNeighbourAlone(t *testing.T) {
	s := start(t)
	c := deploy(t, s, "neighbour")
	deployProgram(t, s, "bomb", "probe", 1769)
	deployProgram(t, s, "hog", "probe", 256)
	ask := func() string {
		t.Helper()
		out, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("neighbour"), Payload: []byte(`{}`)})
		if err != nil || out.FunctionError != nil {
			t.Fatalf("the neighbour: %v %+v\n%s", err, out, s.Log())
		}
		return string(out.Payload)
	}
	environment := ask()
	for _, attack := range []struct{ name, event, fails string }{
		{"bomb", `{"Do":"forkbomb","Seconds":100}`, ""},
		{"hog", `{"Do":"memoryhog"}`, "Runtime."},
	} {
		done := make(chan string, 1)
		go func() {
			out, err := c.Invoke(context.Background(), &lambda.InvokeInput{FunctionName: &attack.name, Payload: []byte(attack.event)})
			if err != nil {
				done <- err.Error()
				return
			}
			done <- aws.ToString(out.FunctionError) + string(out.Payload)
		}()
		var result string
		for result == "" {
			ask()
			select {
			case result = <-done:
			case <-time.After(50 * time.Millisecond):
			}
		}
		t.Logf("%s: %s", attack.name, result)
		if attack.fails != "" && !strings.Contains(result, `"errorType":"`+attack.fails) {
			t.Errorf("%s ended with %s", attack.name, result)
		}
		// Another environment may have joined it, but it is there still.
		for n := 1; ask() != environment; n++ {
			if n == 50 {
				t.Errorf("%s: the neighbour's environment is gone", attack.name)
				break
			}
		}
		// Its next invocation works, in the same environment or in a new one.
		out, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &attack.name, Payload: []byte(`{}`)})
		if err != nil || out.FunctionError != nil {
			t.Errorf("%s afterwards: %v %s", attack.name, err, out.Payload)
		}
	}
}
