package guest

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"strings"

	"lapwing.dev/lapwing/internal/guest/http1"
	"lapwing.dev/lapwing/internal/guest/proto"
)

const (
	credentialsPath = "/2021-04-23/credentials"
	// unfitHeader, in a call of restore/next by a bootstrap of Lapwing's own,
	// says why the state that the runtime is in must not be cloned.
	unfitHeader = "Lapwing-Unfit"

	initTypeVariable = "AWS_LAMBDA_INITIALIZATION_TYPE"
	snapStart        = "snap-start"
)

// restoring is what a guest knows of a runtime that can be restored, and of the
// credentials that are replaced when it is. guest.mu guards it.
type restoring struct {
	waiter   chan *http1.Response // of restore/next; nil: none waits
	req      *http1.Request       // that waiter waits for
	reason   string               // that the runtime gave against being cloned
	told     bool                 // SnapshotReady was sent
	restored bool                 // Restore was received
	blank    bool                 // waiter is that of a runtime that was started for no function

	credentials *proto.Credentials
	token       string // which those who ask for the credentials must have
}

// begin prepares for a start.
func (r *restoring) begin(s *proto.Start) {
	if r.credentials = s.Credentials; r.credentials != nil {
		r.token = rand.Text()
	}
}

// variables returns what is added to the environment of the function.
func (r *restoring) variables(s *proto.Start) []string {
	var env []string
	switch {
	case s.Blank:
		env = append(env, proto.BlankVariable+"=1")
	case s.Restorable && s.Env[initTypeVariable] != snapStart:
		env = append(env, proto.RestorableVariable+"=1")
	}
	if r.credentials != nil {
		env = append(env,
			"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://"+Address+credentialsPath,
			"AWS_CONTAINER_AUTHORIZATION_TOKEN="+r.token)
	}
	return env
}

// answer answers the call that waits.
func (r *restoring) answer(answer http1.Response) {
	r.waiter <- &answer
	r.waiter, r.blank = nil, false
}

// giveUp gives up the call that waits.
func (r *restoring) giveUp() {
	if r.waiter != nil {
		r.waiter <- nil
		r.waiter, r.blank = nil, false
	}
}

// unfit returns why the environment must not be cloned, or "". Who opted in to
// SnapStart has been told what clones share (Lambda developer guide, "Handling
// uniqueness with Lambda SnapStart"). g.mu is held.
func (g *guest) unfit() string {
	if g.telemetry.Wanted() {
		return "it subscribed to telemetry"
	}
	if g.start.Env[initTypeVariable] == snapStart {
		return ""
	}
	for _, e := range g.extensions {
		if e.external {
			return "its extensions are programs of their own, which would draw the same random numbers in each clone"
		}
	}
	if g.restoring.reason == "" && g.sys.OthersRun() {
		return "its initialisation leaves processes running, which would draw the same random numbers in each clone"
	}
	return g.restoring.reason
}

// handleRestore lets a runtime go on that waits for it.
func (g *guest) handleRestore(f proto.Frame) error {
	r := new(proto.Restore)
	if err := f.Decode(r); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.restoring.told || g.restoring.restored {
		return errors.New("guest: restore out of place")
	}
	g.restoring.restored = true
	if r.Credentials != nil {
		g.restoring.credentials = r.Credentials
	}
	if g.restoring.waiter == nil {
		return nil // it has ended meanwhile, which the host hears of
	}
	g.state = stateRestoring
	g.runtimeInit = false // the host is to hear anew when the runtime is done
	g.restoring.answer(restoreResponse(r))
	return nil
}

// serveRestore routes the part of the Runtime API that is there only where a
// snapshot may be taken, as on Lambda.
func (g *guest) serveRestore(r *http1.Request) http1.Response {
	g.mu.Lock()
	restorable := g.start != nil && g.start.Restorable
	g.mu.Unlock()
	if !restorable {
		return notFound()
	}
	switch strings.TrimPrefix(r.Path, "/2018-06-01/runtime/restore/") {
	case "next":
		return only(r, "GET", g.restoreNext)
	case "error":
		return only(r, "POST", g.restoreError)
	}
	return notFound()
}

// restoreNext is called by a runtime that has initialised: a snapshot can be
// taken of it. It returns in each environment that is made from the snapshot.
func (g *guest) restoreNext(r *http1.Request) http1.Response {
	g.drainLogs()
	waiter, refusal := g.awaitRestore(r)
	if refusal != nil {
		return *refusal
	}
	return goOn(waiter)
}

// goOn answers a call of restore/next when it may go on.
func goOn(waiter <-chan *http1.Response) http1.Response {
	if answer := <-waiter; answer != nil {
		return *answer
	}
	return failure(500, "InternalServerError", "Internal Server Error")
}

func (g *guest) awaitRestore(r *http1.Request) (<-chan *http1.Response, *http1.Response) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var refusal http1.Response
	switch {
	case g.ending:
		refusal = failure(500, "InternalServerError", "Internal Server Error")
		return nil, &refusal
	case g.state != stateStarted || g.initOver:
		refusal = badTransition(g.state, stateReady) // Lambda's words
		return nil, &refusal
	}
	g.state = stateRestoreReady
	if reason := r.Header.Get(unfitHeader); reason != "" {
		g.restoring.reason = reason[:min(len(reason), proto.MaxUnfit)]
		if !proto.ValidUnfit(g.restoring.reason) {
			g.restoring.reason = "its initialisation says so"
		}
	}
	w := make(chan *http1.Response, 1)
	g.restoring.waiter, g.restoring.req = w, r
	g.settle()
	return w, nil
}

// entropyBytes is how many random bytes a restored runtime gets for its own
// generators.
const entropyBytes = 64

// restoreResponse tells a restored runtime what differs. Lambda's own answer is
// empty; AWS's runtime clients look at the status only.
func restoreResponse(restore *proto.Restore) http1.Response {
	return jsonResponse(200, struct {
		Env     map[string]string `json:"env"`
		Entropy []byte            `json:"entropy"` // base64
	}{restore.Env, newEntropy()})
}

func newEntropy() []byte {
	entropy := make([]byte, entropyBytes)
	rand.Read(entropy) // from the kernel, which nothing of is in a snapshot
	return entropy
}

// restoreError takes the error that a restored runtime failed with, such as
// Runtime.AfterRestoreError.
func (g *guest) restoreError(r *http1.Request) http1.Response {
	body, refusal := readError(r)
	if refusal != nil {
		return *refusal
	}
	g.drainLogs()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != stateRestoring {
		return badTransition(g.state, stateRestoreError)
	}
	return g.initFailed(r, stateRestoreError, body)
}

// serveCredentials answers with the credentials of the function's role, where
// they are not in its environment (Lambda developer guide, "Lambda SnapStart":
// container credentials replace the variables).
func (g *guest) serveCredentials(r *http1.Request) http1.Response {
	g.mu.Lock()
	c, token := g.restoring.credentials, g.restoring.token
	g.mu.Unlock()
	if c == nil || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(token)) != 1 {
		return http1.Response{
			Status: 404,
			Header: http1.Fields{{Name: "Content-Type", Value: "text/plain; charset=utf-8"}},
			Body:   []byte("cannot get credentials for the provided token\n"),
		}
	}
	return jsonResponse(200, c)
}
