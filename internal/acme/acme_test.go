package acme

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"
)

func TestAccountsNeedAnAuthorityByHTTPSAndTheOperatorsConsent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "acme", "account.pem")
	for _, o := range []Options{
		{Directory: "http://ca.example.org/directory", KeyFile: file, AgreeToTerms: true},
		{Directory: "ca.example.org", KeyFile: file, AgreeToTerms: true},
		{Directory: "https://ca.example.org/directory", KeyFile: file},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a key was made for an account that cannot be")
	}
}

func TestTheAccountsKeyIsMadeOnceAndItsOwnersAlone(t *testing.T) {
	o := Options{Directory: "https://ca.example.org/directory", KeyFile: filepath.Join(t.TempDir(), "acme", "account.pem"), AgreeToTerms: true}
	if _, err := New(o); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(o.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(o); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(o.KeyFile); err != nil || string(after) != string(before) {
		t.Errorf("another start made another key: %v", err)
	}
	if info, err := os.Stat(o.KeyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(o.KeyFile, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(o); err == nil {
		t.Error("a key that cannot be read is passed over")
	}
}

func TestBindingsAreReadAndKeptFromErrors(t *testing.T) {
	for text, ok := range map[string]bool{"kid-1 c2VjcmV0\n": true, "kid-1\nc2VjcmV0LQ==": true, "kid-1": false, "a b c": false, "kid-1 s!cret": false} {
		file := filepath.Join(t.TempDir(), "binding")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := ReadBinding(file)
		if (err == nil) != ok || ok && (b.ID != "kid-1" || strings.Contains(b.Key, "=")) {
			t.Errorf("%q: %+v, %v", text, b, err)
		}
		if err != nil && strings.Contains(err.Error(), "cret") {
			t.Errorf("the error %q has the key", err)
		}
	}
}

func TestALookFindsTheProbeAndNothingElse(t *testing.T) {
	found := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case WellKnown + "right":
			fmt.Fprint(w, "right")
		case WellKnown + "moved":
			http.Redirect(w, r, WellKnown+"right", http.StatusFound)
		case WellKnown + "longer":
			fmt.Fprint(w, "longer than that")
		case WellKnown + "around":
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		default:
			http.Error(w, "missing", http.StatusNotFound)
		}
	}))
	defer found.Close()
	u, err := url.Parse(found.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{looks: newLooks(Options{HTTPPort: port, Resolver: "127.0.0.1:1"})} // where nobody answers
	for probe, want := range map[string]string{"right": HTTP01, "moved": "", "longer": "", "around": "", "missing": ""} {
		if got := c.Look(t.Context(), "127.0.0.1", probe); got != want {
			t.Errorf("%s: %q, want %q", probe, got, want)
		}
	}
	if got := c.Look(t.Context(), "*.example.org", "right"); got != "" {
		t.Errorf("a name with a star: %q", got)
	}
}

func TestReasonsOfRefusals(t *testing.T) {
	for kind, want := range map[string]Reason{
		acme.ProblemTypeRateLimited: RateLimited, acme.ProblemTypeCAA: CAA, acme.ProblemTypeRejectedIdentifier: Denied, acme.ProblemTypeConnection: Other,
	} {
		plain := fmt.Errorf("acme: %w", acme.Problem{Type: kind})
		within := fmt.Errorf("acme: %w", acme.Problem{Type: "urn:ietf:params:acme:error:compound", Subproblems: []acme.Subproblem{{Problem: acme.Problem{Type: kind}}}})
		pointer := fmt.Errorf("acme: %w", &acme.Problem{Type: kind})
		for _, err := range []error{plain, within, pointer, &over{plain}} {
			if got := ReasonOf(err); got != want {
				t.Errorf("%v: %v, want %v", err, got, want)
			}
		}
	}
	if err := error(&over{acme.Problem{Type: acme.ProblemTypeConnection}}); !errors.Is(err, ErrOver) {
		t.Error("an order that is over is not told as one")
	}
}
