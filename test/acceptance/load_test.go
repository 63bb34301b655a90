package acceptance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"golang.org/x/sys/unix"

	"lapwing.dev/lapwing/internal/sandbox/gvisor"
	"lapwing.dev/lapwing/test/harness"
)

// loadSize is how much TestLoadWithKills does.
type loadSize struct{ environments, invocations, kills int }

func chosenLoad() loadSize {
	if os.Getenv("LAPWING_LOAD") == "full" { // make load
		return loadSize{environments: 200, invocations: 20_000, kills: 200}
	}
	return loadSize{environments: 16, invocations: 600, kills: 12}
}

// Whatever happens to sandboxes meanwhile, every invocation is answered once: by
// the function, which ran once, or with AWS's error for an environment that was
// killed. Nothing of it is left afterwards.
func TestLoadWithKills(t *testing.T) {
	size := chosenLoad()
	s := start(t)
	l := &load{t: t, s: s, client: deployProgram(t, s, "loaded", "nonce", 1769), asked: map[string]bool{}}
	l.warmUp(size.environments)
	l.retire()
	before := l.condition()

	deployProgram(t, s, "loaded", "nonce", 1769)
	l.warmUp(size.environments)
	killed := l.run(size)
	t.Logf("%d invocations, %d of them killed by %d kills", size.invocations, l.failed.Load(), killed)
	if killed < size.kills/2 {
		t.Errorf("only %d processes were found to kill", killed)
	}
	if most := int64(killed); l.failed.Load() > most {
		t.Errorf("%d invocations failed after %d kills", l.failed.Load(), most)
	}
	l.checkLog()
	l.retire()
	l.settled(before)
}

// load drives one function.
type load struct {
	t      *testing.T
	s      *harness.Server
	client *lambda.Client
	failed atomic.Int64

	mu       sync.Mutex
	asked    map[string]bool // nonces, true where the function answered
	requests []string        // ids
}

// killedError is AWS's error document for an environment that was killed.
var killedError = regexp.MustCompile(`^\{"errorType":"Runtime\.ExitError","errorMessage":` +
	`"RequestId: [0-9a-f-]{36} Error: Runtime exited with error: signal: killed"\}$`)

// invoke invokes once and returns which environment answered; empty if it was
// killed.
func (l *load) invoke(nonce string, sleep time.Duration) (environment string) {
	payload := fmt.Sprintf(`{"Nonce":%q,"Sleep":%d}`, nonce, sleep.Milliseconds())
	out, err := l.client.Invoke(context.Background(), &lambda.InvokeInput{FunctionName: aws.String("loaded"), Payload: []byte(payload)})
	if err != nil {
		l.t.Errorf("invocation %s: %v", nonce, err)
		return ""
	}
	id, _ := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
	var a struct{ Nonce, Environment string }
	answered := out.FunctionError == nil
	switch {
	case !answered && killedError.Match(out.Payload):
		l.failed.Add(1)
	case !answered:
		l.t.Errorf("invocation %s: %s", nonce, out.Payload)
	case json.Unmarshal(out.Payload, &a) != nil || a.Nonce != nonce:
		l.t.Errorf("invocation %s was answered with %s", nonce, out.Payload)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[nonce] = answered
	l.requests = append(l.requests, id)
	return a.Environment
}

// warmUp makes n environments be alive at once.
func (l *load) warmUp(n int) {
	l.t.Helper()
	for sleep := 2 * time.Second; ; sleep *= 2 {
		var mu sync.Mutex
		var wg sync.WaitGroup
		environments := map[string]bool{}
		for i := range n {
			wg.Go(func() {
				e := l.invoke(fmt.Sprintf("warm-%s-%d-%d", sleep, i, rand.Uint32()), sleep)
				mu.Lock()
				defer mu.Unlock()
				environments[e] = true
			})
		}
		wg.Wait()
		if len(environments) == n {
			return
		}
		if sleep > time.Minute {
			l.t.Fatalf("%d invocations at once were served by %d environments", n, len(environments))
		}
	}
}

// run makes the invocations, by as many callers as there are environments, and
// kills processes of sandboxes in between. It returns how many.
func (l *load) run(size loadSize) (killed int) {
	var next, done atomic.Int64
	var wg sync.WaitGroup
	for range size.environments {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(size.invocations); n = next.Add(1) {
				l.invoke(fmt.Sprint("load-", n), time.Duration(rand.IntN(20))*time.Millisecond)
				done.Add(1)
			}
		})
	}
	over := make(chan struct{})
	go func() { wg.Wait(); close(over) }()
	every := int64(size.invocations / size.kills)
	for {
		select {
		case <-over:
			return killed
		case <-time.After(time.Millisecond):
			if done.Load() >= every*int64(killed+1) && l.kill() {
				killed++
			}
		}
	}
}

// kill kills one process of one sandbox, of whatever kind. It tells whether it
// did.
func (l *load) kill() bool {
	pid := l.s.PID
	for {
		children := childrenOf(pid)
		if len(children) == 0 || pid != l.s.PID && rand.IntN(3) == 0 {
			break
		}
		pid = children[rand.IntN(len(children))]
	}
	if pid == l.s.PID {
		return false
	}
	// The number may belong to another process by now.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if len(cgroupsOf(fmt.Sprint("/proc/", pid))) == 0 {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// childrenOf returns the children of a process.
func childrenOf(pid int) (children []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		b, _ := os.ReadFile(file) // the thread may have ended
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				children = append(children, n)
			}
		}
	}
	return children
}

var (
	ranLine    = regexp.MustCompile(`^ran (\S+)\n$`)
	reportLine = regexp.MustCompile(`^REPORT RequestId: (\S+)\t.*\tBilled Duration: (\d+) ms\t`)
)

// checkLog waits until every invocation has its REPORT, and checks that none has
// two, that the usage is what they add up to, and that no event was run twice.
func (l *load) checkLog() {
	l.t.Helper()
	var ran, reports map[string]int
	var billed int64
	for end := time.Now().Add(patience); ; time.Sleep(time.Second) {
		ran, reports, billed = map[string]int{}, map[string]int{}, 0
		l.events(`REPORT`, func(m string) {
			if f := reportLine.FindStringSubmatch(m); f != nil {
				reports[f[1]]++
				ms, err := strconv.ParseInt(f[2], 10, 64)
				if err != nil {
					l.t.Errorf("%s: %v", m, err)
				}
				billed += ms
			}
		})
		// After the REPORT lines, which come after these.
		l.events(`ran`, func(m string) {
			if f := ranLine.FindStringSubmatch(m); f != nil {
				ran[f[1]]++
			}
		})
		if len(reports) >= len(l.requests) || time.Now().After(end) {
			break
		}
	}
	for _, id := range l.requests {
		if reports[id] != 1 {
			l.t.Errorf("request %s has %d REPORT lines", id, reports[id])
		}
	}
	var used struct {
		Total struct {
			Requests int
			BilledMs int64 `json:"billed_ms"`
		}
	}
	if out, err := l.s.Run("usage", "--json"); err != nil || json.Unmarshal(out, &used) != nil {
		l.t.Errorf("usage: %v, %s", err, out)
	}
	if used.Total.Requests != len(l.requests) || used.Total.BilledMs != billed {
		l.t.Errorf("the usage is %+v, after %d invocations of which the REPORT lines bill %d ms", used.Total, len(l.requests), billed)
	}
	for nonce, answered := range l.asked {
		if n := ran[nonce]; n > 1 || answered && n != 1 {
			l.t.Errorf("%s ran %d times and was answered: %v", nonce, n, answered)
		}
	}
}

// events passes all lines of the function's log on that hold a word.
func (l *load) events(word string, each func(message string)) {
	l.t.Helper()
	pages := cloudwatchlogs.NewFilterLogEventsPaginator(cloudwatchlogs.NewFromConfig(l.s.Config()),
		&cloudwatchlogs.FilterLogEventsInput{LogGroupName: aws.String("/aws/lambda/loaded"), FilterPattern: &word})
	for pages.HasMorePages() {
		page, err := pages.NextPage(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		for _, e := range page.Events {
			each(*e.Message)
		}
	}
}

// retire deletes the function and waits until its environments are gone.
func (l *load) retire() {
	l.t.Helper()
	if _, err := l.client.DeleteFunction(l.t.Context(), &lambda.DeleteFunctionInput{FunctionName: aws.String("loaded")}); err != nil {
		l.t.Fatal(err)
	}
	for end := time.Now().Add(patience); len(childrenOf(l.s.PID)) > gvisor.DefaultPrepared; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("processes %v are left of a function that was deleted", childrenOf(l.s.PID))
		}
	}
}

// condition is what a server without functions takes of its host, without
// prepared sandboxes.
type condition struct {
	children, cgroups, mounts, namespaces, files int
}

func (l *load) condition() condition {
	l.t.Helper()
	c := condition{children: max(0, len(childrenOf(l.s.PID))-gvisor.DefaultPrepared)}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", l.s.PID))
	if err != nil {
		l.t.Fatal(err)
	}
	c.mounts = strings.Count(string(mounts), "\n")
	fds := fmt.Sprintf("/proc/%d/fd", l.s.PID)
	entries, err := os.ReadDir(fds)
	if err != nil {
		l.t.Fatal(err)
	}
	namespaces := map[string]bool{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(fds, e.Name()))
		switch {
		case err != nil: // closed since
		case strings.HasPrefix(target, "net:"):
			namespaces[target] = true
		case !strings.HasPrefix(target, "socket:"): // of clients, which keep their connections
			c.files++
		}
	}
	c.namespaces = len(namespaces)
	var paths []string
	b, err := os.ReadFile(filepath.Join(l.s.Data, "run", "sandboxes", "cgroups.json"))
	if err != nil || json.Unmarshal(b, &paths) != nil {
		l.t.Fatalf("where the server's cgroups are: %v", err)
	}
	for _, p := range paths {
		groups, err := filepath.Glob(filepath.Join(p, "s[0-9]*"))
		if err != nil {
			l.t.Fatal(err)
		}
		c.cgroups += max(0, len(groups)-gvisor.DefaultPrepared)
	}
	return c
}

// settled waits until no more is taken of the host than before.
func (l *load) settled(before condition) {
	l.t.Helper()
	const slack = 16 // files of logs and records come and go
	var now condition
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		now = l.condition()
		if now.children <= before.children && now.cgroups <= before.cgroups && now.mounts <= before.mounts &&
			now.namespaces <= before.namespaces && now.files <= before.files+slack {
			return
		}
	}
	l.t.Errorf("the server and its host had %+v before the load, and after it %+v", before, now)
}
