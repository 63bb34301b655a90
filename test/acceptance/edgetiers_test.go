package acceptance_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"lapwing.dev/lapwing/test/harness"
)

// freePorts returns the first of two ports, one after the other, that nobody has.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := a.Addr().(*net.TCPAddr).Port
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		a.Close()
		if err == nil {
			b.Close()
			return port
		}
	}
	t.Fatal("there are no two ports side by side")
	return 0
}

// neighbour is an edge location on the core's own machine.
type neighbour struct {
	url string
	cmd *exec.Cmd
}

// newNeighbour starts a location, and has it stopped at the test's end.
func newNeighbour(t *testing.T, s *harness.Server, data, join, name, region string, args ...string) *neighbour {
	t.Helper()
	token, err := s.Run("edge", "token", name)
	if err != nil {
		t.Fatal(err)
	}
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(data + ".log")
	if err != nil {
		t.Fatal(err)
	}
	port := freePorts(t)
	e := &neighbour{url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	e.cmd = exec.Command(filepath.Join(root, "bin", "lapwing"), append([]string{
		"up", "--roles", "edge", "--data", data, "--listen", fmt.Sprintf("127.0.0.1:%d", port), "--node-listen", fmt.Sprintf("127.0.0.1:%d", port+1),
		"--join", join, "--join-token", strings.TrimSpace(string(token)), "--location-region", region,
	}, args...)...)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := errors.Join(e.cmd.Start(), log.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = e.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = e.cmd.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(data + ".log") // for the message only
			t.Logf("%s:\n%s", name, b[max(0, len(b)-4096):])
		}
	})
	waitFor(t, name+" to be healthy", func() bool {
		resp, err := http.Get(e.url + "/_lapwing/health")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
	return e
}

// served is what a viewer got.
type served struct {
	status           int
	body, cache, pop string
}

// view asks an edge location for a path of a distribution.
func view(base, host, path string, header ...string) (served, error) {
	r, err := http.NewRequest(http.MethodGet, base+path, nil)
	if err != nil {
		return served{}, err
	}
	r.Host = host
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := viewerClient.Do(r)
	if err != nil {
		return served{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return served{resp.StatusCode, string(b), resp.Header.Get("X-Cache"), resp.Header.Get("X-Amz-Cf-Pop")}, err
}

// shieldTest is a core that is the shield of its Region, and two locations elsewhere.
type shieldTest struct {
	*cutTest
	bases    []string // of the three
	requests atomic.Int64
	version  atomic.Int64
}

// all asks all locations for a path at once.
func (c *shieldTest) all(path string) []served {
	c.t.Helper()
	got := make([]served, len(c.bases))
	var wg sync.WaitGroup
	for i, base := range c.bases {
		wg.Go(func() {
			var err error
			if got[i], err = view(base, c.host, path); err != nil {
				c.t.Error(err)
			}
		})
	}
	wg.Wait()
	return got
}

// shield gives the distribution's origin a shield.
func (c *shieldTest) change(change func(*cftypes.DistributionConfig)) {
	c.t.Helper()
	got, err := c.cf.GetDistributionConfig(c.t.Context(), &cloudfront.GetDistributionConfigInput{Id: &c.id})
	if err != nil {
		c.t.Fatal(err)
	}
	change(got.DistributionConfig)
	if _, err := c.cf.UpdateDistribution(c.t.Context(), &cloudfront.UpdateDistributionInput{Id: &c.id, IfMatch: got.ETag, DistributionConfig: got.DistributionConfig}); err != nil {
		c.t.Fatal(err)
	}
}

func newShieldTest(t *testing.T) (*shieldTest, []*neighbour) {
	c := &shieldTest{cutTest: &cutTest{t: t}}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		time.Sleep(300 * time.Millisecond) // so that all come before the first has its answer
		w.Header().Set("Cache-Control", "max-age=3600")
		fmt.Fprint(w, r.URL.Path, " ", c.version.Load())
	}))
	t.Cleanup(origin.Close)
	c.port = origin.Listener.Addr().(*net.TCPAddr).Port
	dir := t.TempDir()
	for _, data := range []string{"core", "FRA56-P1", "LHR61-P1"} {
		if err := harness.AddRuntimes(filepath.Join(dir, data), string(types.RuntimePython311)); err != nil {
			t.Fatal(err)
		}
	}
	join := fmt.Sprintf("127.0.0.1:%d", freePorts(t))
	s, err := harness.Start(filepath.Join(dir, "core"), "--edge-join", join, "--regional", "--location", "IAD89-P1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, s.Log())
		}
	})
	c.s, c.cf = s, cloudfront.NewFromConfig(s.Config())
	c.bases = []string{s.URL()}
	var others []*neighbour
	for name, region := range map[string]string{"FRA56-P1": "eu-central-1", "LHR61-P1": "eu-west-2"} {
		e := newNeighbour(t, s, filepath.Join(dir, name), join, name, region, "--edge-location-header")
		others, c.bases = append(others, e), append(c.bases, e.url)
	}
	c.function(edgeFunction)
	c.viewerFunction("one")
	c.distribution()
	c.change(func(d *cftypes.DistributionConfig) {
		d.Origins.Items[0].OriginShield = &cftypes.OriginShield{Enabled: aws.Bool(true), OriginShieldRegion: aws.String("us-east-1")}
	})
	waitFor(t, "Deployed", c.deployed)
	return c, others
}

func TestALocationsShieldAsksTheOriginForAll(t *testing.T) {
	c, _ := newShieldTest(t)
	ctx := t.Context()
	got, err := c.cf.GetDistribution(ctx, &cloudfront.GetDistributionInput{Id: &c.id})
	if err != nil {
		t.Fatal(err)
	}
	if o := got.Distribution.DistributionConfig.Origins.Items[0].OriginShield; !*o.Enabled || aws.ToString(o.OriginShieldRegion) != "us-east-1" {
		t.Errorf("read back: %v %v", *o.Enabled, aws.ToString(o.OriginShieldRegion))
	}
	check := func(path, want string, requests int64) {
		t.Helper()
		for _, r := range c.all(path) {
			if r.status != http.StatusOK || r.body != want {
				t.Errorf("%s at %s: %+v", path, r.pop, r)
			}
		}
		if got := c.requests.Load(); got != requests {
			t.Errorf("%s: %d requests to the origin, want %d", path, got, requests)
		}
	}
	check("/a", "/a 0", 1)
	c.version.Store(1)
	check("/a", "/a 0", 1)
	inv, err := c.cf.CreateInvalidation(ctx, &cloudfront.CreateInvalidationInput{DistributionId: &c.id, InvalidationBatch: &cftypes.InvalidationBatch{
		CallerReference: aws.String("1"), Paths: &cftypes.Paths{Quantity: aws.Int32(1), Items: []string{"/*"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the invalidation", func() bool {
		i, err := c.cf.GetInvalidation(ctx, &cloudfront.GetInvalidationInput{DistributionId: &c.id, Id: inv.Invalidation.Id})
		return err == nil && *i.Invalidation.Status == "Completed"
	})
	check("/a", "/a 1", 2)

	// Any location by any other.
	var pops []string
	for _, name := range []string{"IAD89-P1", "FRA56-P1", "LHR61-P1"} {
		r, err := view(c.bases[1], c.host, "/a", "X-Lapwing-Edge-Location", name)
		if err != nil || r.status != http.StatusOK || r.cache != "Hit from cloudfront" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		pops = append(pops, r.pop)
	}
	if !slices.Equal(pops, []string{"IAD89-P1", "FRA56-P1", "LHR61-P1"}) {
		t.Errorf("served by %v", pops)
	}

	// The shield is killed: every location for itself.
	if err := c.s.Kill(); err != nil {
		t.Fatal(err)
	}
	for i, base := range c.bases[1:] {
		if r, err := view(base, c.host, "/b"); err != nil || r.status != http.StatusOK || r.body != "/b 1" || c.requests.Load() != int64(3+i) {
			t.Errorf("without the shield: %+v, %v, %d requests to the origin", r, err, c.requests.Load())
		}
	}
	if err := c.s.Restart(); err != nil {
		t.Fatal(err)
	}
	c.cf = cloudfront.NewFromConfig(c.s.Config())
	c.bases[0] = c.s.URL()
	n := 0
	waitFor(t, "the shield to be asked again", func() bool {
		path, before := fmt.Sprint("/c", n), c.requests.Load()
		n++
		c.all(path)
		return c.requests.Load() == before+1
	})
}

// A version stays while a location that was told to run it has not given it up.
func TestAVersionWithAReplicaElsewhereCannotBeDeleted(t *testing.T) {
	c, others := newShieldTest(t)
	for _, base := range c.bases {
		waitFor(t, "the function at "+base, func() bool {
			r, err := view(base, c.host, "/lambda")
			return err == nil && r.body == "from the function"
		})
	}
	client := lambda.NewFromConfig(c.s.Config())
	remove := func() error {
		_, err := client.DeleteFunction(t.Context(), &lambda.DeleteFunctionInput{FunctionName: aws.String("atedge"), Qualifier: aws.String(c.lambda[strings.LastIndex(c.lambda, ":")+1:])})
		return err
	}
	refused := func(when string) {
		t.Helper()
		var invalid *types.InvalidParameterValueException
		if err := remove(); !errors.As(err, &invalid) || !strings.Contains(invalid.ErrorMessage(), "replicated function") {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("while it is associated")
	stopped := others[0].cmd.Process
	if err := stopped.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c.change(func(d *cftypes.DistributionConfig) {
		for i := range d.CacheBehaviors.Items {
			d.CacheBehaviors.Items[i].LambdaFunctionAssociations = nil
		}
	})
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		refused("while a location has it")
	}
	if err := stopped.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the version to be deleted", func() bool { return remove() == nil })
}
