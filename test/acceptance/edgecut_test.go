package acceptance_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/test/harness"
)

// edgeNet is a network namespace for an edge location, with two links to the
// host's: one to the core, which can be cut, and one to viewers.
type edgeNet struct {
	t      *testing.T
	name   string
	subnet int

	core, viewers          string // the host's addresses on the two links
	coreThere, viewerThere string // the location's
	calls                  chan func()
}

// newEdgeNet makes the namespace, on a thread of its own that stays in it.
func newEdgeNet(t *testing.T) *edgeNet {
	t.Helper()
	n := &edgeNet{t: t, name: fmt.Sprintf("lwe%d", os.Getpid()%100000), subnet: os.Getpid() % 250, calls: make(chan func())}
	n.core, n.coreThere = fmt.Sprintf("10.231.%d.1", n.subnet), fmt.Sprintf("10.231.%d.2", n.subnet)
	n.viewers, n.viewerThere = fmt.Sprintf("10.231.%d.5", n.subnet), fmt.Sprintf("10.231.%d.6", n.subnet)
	var ns int
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		entered <- err
		for f := range n.calls {
			f()
		}
	}()
	if err := <-entered; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(n.calls)
		unix.Close(ns)
		for _, link := range []string{n.name + "c", n.name + "v"} {
			if l, err := netlink.LinkByName(link); err == nil {
				_ = netlink.LinkDel(l) // it may have gone with the namespace
			}
		}
	})
	n.link(n.name+"c", "core0", n.core, n.coreThere, ns)
	n.link(n.name+"v", "view0", n.viewers, n.viewerThere, ns)
	n.inside(func() error {
		lo, err := netlink.LinkByName("lo")
		return errors.Join(err, netlink.LinkSetUp(lo))
	})
	return n
}

func (n *edgeNet) inside(f func() error) {
	n.t.Helper()
	done := make(chan error)
	n.calls <- func() { done <- f() }
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
}

func (n *edgeNet) link(here, there, hereIP, thereIP string, ns int) {
	n.t.Helper()
	up := func(name, ip string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(ip + "/30")
		return errors.Join(err, netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: here}, PeerName: there, PeerNamespace: netlink.NsFd(ns)}
	if err := errors.Join(netlink.LinkAdd(veth), up(here, hereIP)); err != nil {
		n.t.Fatal(err)
	}
	n.inside(func() error { return up(there, thereIP) })
}

// cut takes the link to the core down, or up again.
func (n *edgeNet) cut(down bool) {
	n.t.Helper()
	l, err := netlink.LinkByName(n.name + "c")
	if err == nil && down {
		err = netlink.LinkSetDown(l)
	} else if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// edgeLocation is a lapwing with the role edge in the namespace.
type edgeLocation struct {
	net  *edgeNet
	data string
	args []string
	cmd  *exec.Cmd
	done chan struct{}
}

func (e *edgeLocation) start() {
	t := e.net.t
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(e.data+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e.cmd = exec.Command(filepath.Join(root, "bin", "lapwing"), append([]string{"up", "--roles", "edge", "--data", e.data, "--listen", "0.0.0.0:80"}, e.args...)...)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.net.inside(e.cmd.Start) // a process is in the namespace of the thread that starts it
	done := make(chan struct{})
	e.done = done
	go func() {
		_ = e.cmd.Wait() // the test kills it
		close(done)
	}()
	waitFor(t, "the edge location to be healthy", func() bool {
		select {
		case <-done:
			t.Fatalf("the edge location ended:\n%s", e.log())
		default:
		}
		resp, err := http.Get("http://" + e.net.viewerThere + "/_lapwing/health")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

func (e *edgeLocation) end(s os.Signal) {
	if err := e.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		e.net.t.Error(err)
	}
	<-e.done
}

func (e *edgeLocation) log() string {
	b, _ := os.ReadFile(e.data + ".log") // for messages only
	return string(b[max(0, len(b)-8192):])
}

// get asks the location for a path of a distribution.
func (e *edgeLocation) get(host, path string) (status int, body, cache string, err error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+e.net.viewerThere+path, nil)
	if err != nil {
		return 0, "", "", err
	}
	req.Host = host
	resp, err := viewerClient.Do(req)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header.Get("X-Cache"), err
}

var viewerClient = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

const edgeFunction = `
def handler(event, context):
    return {"status": "200", "statusDescription": "OK", "headers": {}, "body": "from the function"}
`

const viewerFunction = `function handler(event) { return {statusCode: 200, body: 'MARK'}; }`

// Cut off from the core, an edge location serves what it has and runs its
// functions, without one failure; it does so too after a kill in the dark. What
// the core published meanwhile is there soon after the cut.
func TestEdgeLocationServesOnWhileTheCoreCannotBeReached(t *testing.T) {
	cut := 12 * time.Second
	if os.Getenv("LAPWING_LOAD") == "full" { // make load
		cut = time.Minute
	}
	n := newEdgeNet(t)
	var originListener net.Listener // beside the location: the cut is from the core
	n.inside(func() (err error) {
		originListener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	origin := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		fmt.Fprint(w, "object ", r.URL.Path)
	})}
	go origin.Serve(originListener) //nolint:errcheck // ends with the test
	t.Cleanup(func() { origin.Close() })

	join := fmt.Sprintf("%s:%d", n.core, 7422)
	dir := t.TempDir()
	for _, data := range []string{"core", "edge"} {
		if err := harness.AddRuntimes(filepath.Join(dir, data), string(types.RuntimePython311)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := harness.Start(filepath.Join(dir, "core"), "--edge-join", join)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, s.Log())
		}
	})
	token, err := s.Run("edge", "token", "FRA56-P1")
	if err != nil {
		t.Fatal(err)
	}
	e := &edgeLocation{net: n, data: filepath.Join(dir, "edge"), args: []string{
		"--join", join, "--join-token", strings.TrimSpace(string(token)), "--location-region", "eu-central-1", "--origin-allow", "127.0.0.0/8",
	}}
	e.start()
	t.Cleanup(func() { e.end(syscall.SIGTERM) })
	c := &cutTest{t: t, s: s, cf: cloudfront.NewFromConfig(s.Config()), port: originListener.Addr().(*net.TCPAddr).Port}
	c.function(edgeFunction)
	c.viewerFunction("one")
	c.distribution()

	want := func(path, body, cache string) func() bool {
		return func() bool {
			status, b, x, err := e.get(c.host, path)
			return err == nil && status == http.StatusOK && b == body && (cache == "" || x == cache)
		}
	}
	waitFor(t, "a hit", want("/a", "object /a", "Hit from cloudfront"))
	waitFor(t, "the Lambda@Edge function", want("/lambda", "from the function", ""))
	waitFor(t, "the viewer function", want("/js", "one", ""))

	var l viewerLoad
	stop := l.run(e, c.host, map[string]string{"/a": "object /a", "/lambda": "from the function"})
	time.Sleep(time.Second)
	n.cut(true)
	time.Sleep(cut / 2)
	version := c.viewerFunction("two")
	if c.deployed() {
		t.Error("a distribution is Deployed that the location cannot have got")
	}
	time.Sleep(cut / 2)
	if want("/js", "two", "")() {
		t.Error("the cut does not cut")
	}
	n.cut(false)
	began := time.Now()
	waitFor(t, "the new version", want("/js", "two", ""))
	took := time.Since(began)
	stop()
	t.Logf("%d hits and function runs, %d failed; version %s was there %v after a cut of %v", l.done.Load(), l.failed.Load(), version, took.Round(10*time.Millisecond), cut)
	if l.failed.Load() > 0 {
		t.Errorf("%d of %d requests failed, e.g. %v\n%s", l.failed.Load(), l.done.Load(), l.example.Load(), e.log())
	}
	if took > 5*time.Second {
		t.Errorf("the new version took %v", took)
	}
	waitFor(t, "Deployed", c.deployed)

	// Killed, and started again where the core cannot be reached.
	n.cut(true)
	e.end(syscall.SIGKILL)
	e.start()
	waitFor(t, "a hit from the disk", want("/a", "object /a", "Hit from cloudfront"))
	waitFor(t, "the Lambda@Edge function in the dark", want("/lambda", "from the function", ""))
	waitFor(t, "the viewer function in the dark", want("/js", "two", ""))
	n.cut(false)

	// The core is killed, and is back.
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if !want("/js", "two", "")() {
		t.Error("without the core, the viewer function does not run")
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	c.cf = cloudfront.NewFromConfig(s.Config())
	c.viewerFunction("three")
	began = time.Now()
	waitFor(t, "what a core published that was killed", want("/js", "three", ""))
	t.Logf("after a restart of the core, a version took %v", time.Since(began).Round(10*time.Millisecond))
	waitFor(t, "the location to be current", func() bool {
		out, err := s.Run("edge", "list", "--json")
		var all []struct{ Name, State string }
		return err == nil && json.Unmarshal(out, &all) == nil && len(all) == 1 && all[0].State == "current"
	})
}

// viewerLoad asks for paths, and counts answers that are not what they should be.
type viewerLoad struct {
	done, failed atomic.Int64
	example      atomic.Value
}

func (l *viewerLoad) run(e *edgeLocation, host string, paths map[string]string) (stop func()) {
	var wg sync.WaitGroup
	end := make(chan struct{})
	for path, want := range paths {
		for range 2 {
			wg.Go(func() {
				for {
					select {
					case <-end:
						return
					case <-time.After(5 * time.Millisecond): // it shares the machine
					}
					status, body, cache, err := e.get(host, path)
					l.done.Add(1)
					if err != nil || status != http.StatusOK || body != want {
						l.failed.Add(1)
						l.example.Store(fmt.Sprint(path, " ", status, " ", cache, " ", err, " ", body))
					}
				}
			})
		}
	}
	return func() { close(end); wg.Wait() }
}

// cutTest makes what the test publishes.
type cutTest struct {
	t    *testing.T
	s    *harness.Server
	cf   *cloudfront.Client
	port int

	lambda, js string // ARNs
	host, id   string
}

func (c *cutTest) function(code string) {
	c.t.Helper()
	ctx := c.t.Context()
	role, err := iam.NewFromConfig(c.s.Config()).CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("edge"), AssumeRolePolicyDocument: aws.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":["lambda.amazonaws.com","edgelambda.amazonaws.com"]},"Action":"sts:AssumeRole"}]}`)})
	if err != nil {
		c.t.Fatal(err)
	}
	deployFiles(c.t, c.s, "atedge", 128, map[string]string{"index.py": code}, func(in *lambda.CreateFunctionInput) {
		in.Runtime, in.Handler, in.Role, in.Timeout = types.RuntimePython311, aws.String("index.handler"), role.Role.Arn, aws.Int32(5)
	})
	v, err := lambda.NewFromConfig(c.s.Config()).PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: aws.String("atedge")})
	if err != nil {
		c.t.Fatal(err)
	}
	c.lambda = *v.FunctionArn
}

// viewerFunction publishes a CloudFront Function that answers with mark.
func (c *cutTest) viewerFunction(mark string) string {
	c.t.Helper()
	ctx, name := c.t.Context(), aws.String("viewer")
	code := []byte(strings.Replace(viewerFunction, "MARK", mark, 1))
	config := &cftypes.FunctionConfig{Comment: &mark, Runtime: cftypes.FunctionRuntimeCloudfrontJs20}
	var etag *string
	if d, err := c.cf.DescribeFunction(ctx, &cloudfront.DescribeFunctionInput{Name: name}); err == nil {
		u, err := c.cf.UpdateFunction(ctx, &cloudfront.UpdateFunctionInput{Name: name, IfMatch: d.ETag, FunctionCode: code, FunctionConfig: config})
		if err != nil {
			c.t.Fatal(err)
		}
		etag = u.ETag
	} else {
		f, err := c.cf.CreateFunction(ctx, &cloudfront.CreateFunctionInput{Name: name, FunctionCode: code, FunctionConfig: config})
		if err != nil {
			c.t.Fatal(err)
		}
		etag, c.js = f.ETag, *f.FunctionSummary.FunctionMetadata.FunctionARN
	}
	if _, err := c.cf.PublishFunction(ctx, &cloudfront.PublishFunctionInput{Name: name, IfMatch: etag}); err != nil {
		c.t.Fatal(err)
	}
	if c.id != "" { // and a change of the distribution, for its status
		c.comment(mark)
	}
	return *etag
}

func (c *cutTest) comment(text string) {
	c.t.Helper()
	got, err := c.cf.GetDistributionConfig(c.t.Context(), &cloudfront.GetDistributionConfigInput{Id: &c.id})
	if err != nil {
		c.t.Fatal(err)
	}
	got.DistributionConfig.Comment = &text
	got.DistributionConfig.DefaultRootObject = aws.String(text)
	if _, err := c.cf.UpdateDistribution(c.t.Context(), &cloudfront.UpdateDistributionInput{Id: &c.id, IfMatch: got.ETag, DistributionConfig: got.DistributionConfig}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cutTest) deployed() bool {
	d, err := c.cf.GetDistribution(c.t.Context(), &cloudfront.GetDistributionInput{Id: &c.id})
	return err == nil && *d.Distribution.Status == "Deployed"
}

func (c *cutTest) distribution() {
	c.t.Helper()
	policy := aws.String("658327ea-f89d-4fab-a63d-7e88639e58f6") // CachingOptimized
	behaviour := func(path string) cftypes.CacheBehavior {
		return cftypes.CacheBehavior{PathPattern: &path, TargetOriginId: aws.String("o"), ViewerProtocolPolicy: cftypes.ViewerProtocolPolicyAllowAll, CachePolicyId: policy}
	}
	atLambda, atJS := behaviour("/lambda"), behaviour("/js")
	atLambda.LambdaFunctionAssociations = &cftypes.LambdaFunctionAssociations{Quantity: aws.Int32(1), Items: []cftypes.LambdaFunctionAssociation{
		{EventType: cftypes.EventTypeViewerRequest, LambdaFunctionARN: &c.lambda},
	}}
	atJS.FunctionAssociations = &cftypes.FunctionAssociations{Quantity: aws.Int32(1), Items: []cftypes.FunctionAssociation{
		{EventType: cftypes.EventTypeViewerRequest, FunctionARN: &c.js},
	}}
	d, err := c.cf.CreateDistribution(c.t.Context(), &cloudfront.CreateDistributionInput{DistributionConfig: &cftypes.DistributionConfig{
		CallerReference: aws.String("cut"), Comment: aws.String(""), Enabled: aws.Bool(true),
		Origins: &cftypes.Origins{Quantity: aws.Int32(1), Items: []cftypes.Origin{{
			Id: aws.String("o"), DomainName: aws.String("localhost"),
			CustomOriginConfig: &cftypes.CustomOriginConfig{HTTPPort: aws.Int32(int32(c.port)), HTTPSPort: aws.Int32(443), OriginProtocolPolicy: cftypes.OriginProtocolPolicyHttpOnly},
		}}},
		DefaultCacheBehavior: &cftypes.DefaultCacheBehavior{TargetOriginId: aws.String("o"), ViewerProtocolPolicy: cftypes.ViewerProtocolPolicyAllowAll, CachePolicyId: policy},
		CacheBehaviors:       &cftypes.CacheBehaviors{Quantity: aws.Int32(2), Items: []cftypes.CacheBehavior{atLambda, atJS}},
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.id, c.host = *d.Distribution.Id, *d.Distribution.DomainName
}
