package registry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/credentials"
	"lapwing.dev/lapwing/internal/state"
)

const account = "123456789012"

// openRegistry opens a registry in a directory.
func openRegistry(t testing.TB, dir string) (*Registry, func()) {
	t.Helper()
	store, err := state.Open(t.Context(), state.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), Options{Store: store, Dir: filepath.Join(dir, "uploads"), AccountID: account, Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	end := func() {
		if closed {
			return
		}
		closed = true
		r.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return r, end
}

// client pushes and pulls as container tools do.
type client struct {
	t    *testing.T
	r    *Registry
	host string
}

func authenticate(token string) (aws.Identity, error) {
	switch token {
	case "good":
		return aws.Identity{AccountID: account}, nil
	case "old":
		return aws.Identity{}, credentials.ErrExpired
	}
	return aws.Identity{}, credentials.ErrInvalidToken
}

// newClient returns a client of a new registry with these repositories.
func newClient(t *testing.T, repositories ...string) *client {
	t.Helper()
	r, _ := openRegistry(t, t.TempDir())
	server := httptest.NewServer(r.Handler(HandlerOptions{Authenticate: authenticate}))
	t.Cleanup(server.Close)
	for _, n := range repositories {
		create(t, r, n)
	}
	return &client{t, r, strings.TrimPrefix(server.URL, "http://")}
}

func create(t testing.TB, r *Registry, n string) Repository {
	t.Helper()
	repo, err := r.CreateRepository(t.Context(), Repository{Name: n, Mutability: Mutable})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func (c *client) ref(s string) name.Reference {
	c.t.Helper()
	ref, err := name.ParseReference(c.host + "/" + s)
	if err != nil {
		c.t.Fatal(err)
	}
	return ref
}

func (c *client) options(token string) []remote.Option {
	return []remote.Option{
		remote.WithContext(c.t.Context()), remote.WithAuth(&authn.Basic{Username: "AWS", Password: token}),
		remote.WithRetryStatusCodes(), remote.WithRetryPredicate(func(error) bool { return false }),
	}
}

func (c *client) auth() []remote.Option { return c.options("good") }

// do sends a request as it is and returns the answer, whose body is closed.
func (c *client) do(method, path, body string, header ...string) *http.Response {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, "http://"+c.host+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.SetBasicAuth("AWS", "good")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	res.Body.Close()
	return res
}

// refused checks a client's error for a code and words.
func refused(t *testing.T, err error, status int, code, words string) {
	t.Helper()
	e, ok := errors.AsType[*transport.Error](err)
	if !ok {
		t.Errorf("error is %v, want %s", err, code)
		return
	}
	if e.StatusCode != status || len(e.Errors) != 1 || string(e.Errors[0].Code) != code || !strings.Contains(e.Errors[0].Message, words) {
		t.Errorf("status %d, %+v; want %d, %s with %q", e.StatusCode, e.Errors, status, code, words)
	}
}
