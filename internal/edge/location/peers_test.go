package location

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/cluster"
	"lapwing.dev/lapwing/internal/edge/tier"
)

// asks makes a request to a node, as another one; it returns the status and the body.
func asks(t *testing.T, as *cluster.Node, to cluster.Identity, address string) (int, string, error) {
	t.Helper()
	transport := as.TransportTo(to)
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+tier.ObjectPath, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestLocationsReachEachOtherAndNobodyElseReachesThem(t *testing.T) {
	c := newCore(t)
	one := startNode(t, t.TempDir(), c.address, c.token("L1"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	two := startNode(t, t.TempDir(), c.address, c.token("L2"), func(o *StartOptions) {
		o.Address, o.Regional = "[::]:"+port, true // everywhere: the core knows where from
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- two.Identity().Serve(ctx, cluster.ServerOptions{
			Listener: l, Logger: slog.New(slog.DiscardHandler),
			Handler: two.Members(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "L2") })),
		})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	eventually(t, "L1 knows of the others", func() bool {
		return slices.Equal(one.Others(), []tier.Place{
			{Name: "IAD89-P1", Region: "us-east-1", Core: true, Regional: true, Address: c.address},
			{Name: "L2", Region: "eu-central-1", Regional: true, Address: l.Addr().String()},
		})
	})
	eventually(t, "the core knows of them", func() bool { return len(c.Others()) == 2 && c.Others()[1].Address == l.Addr().String() })
	core, second := one.Others()[0], one.Others()[1]
	if status, body, err := asks(t, one.Identity(), IdentityOf(second), second.Address); status != 200 || body != "L2" {
		t.Errorf("L2 answers %d %q, %v", status, body, err)
	}
	if status, body, err := asks(t, one.Identity(), IdentityOf(core), core.Address); status != 200 || body != "the core" {
		t.Errorf("the core answers %d %q, %v", status, body, err)
	}
	if _, _, err := asks(t, one.Identity(), IdentityOf(tier.Place{Name: "L3"}), second.Address); err == nil {
		t.Error("L2 passes for another location")
	}

	operator, err := c.authority.Node(cluster.Identity{Role: cluster.Operator, Name: "root"})
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := c.authority.Node(cluster.Identity{Role: cluster.Edge, Name: "L1"}) // with another key
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*cluster.Node{"an operator": operator, "a location that has not joined": unknown} {
		for _, p := range []tier.Place{core, second} {
			if status, _, err := asks(t, n, IdentityOf(p), p.Address); status != http.StatusForbidden {
				t.Errorf("%s at %s: %d, %v", name, p.Name, status, err)
			}
		}
	}
	authority, err := cluster.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := authority.Node(one.Identity().Identity)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, err := asks(t, stranger, IdentityOf(second), second.Address); err == nil {
		t.Errorf("a node of another installation: %d", status)
	}

	if err := c.Remove(t.Context(), "L1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "L1 is refused everywhere", func() bool {
		here, _, _ := asks(t, one.Identity(), IdentityOf(second), second.Address)
		there, _, _ := asks(t, one.Identity(), IdentityOf(core), core.Address)
		return here == http.StatusForbidden && there == http.StatusForbidden
	})
}

func TestALocationKnowsOthersAfterARestartWithoutTheCore(t *testing.T) {
	c := newCore(t)
	dir := t.TempDir()
	one := startNode(t, dir, c.address, c.token("L1"))
	two := startNode(t, t.TempDir(), c.address, c.token("L2"), func(o *StartOptions) { o.Address, o.Regional = "shield.example.org:7424", true })
	want := []tier.Place{
		{Name: "IAD89-P1", Region: "us-east-1", Core: true, Regional: true, Address: c.address},
		{Name: "L2", Region: "eu-central-1", Regional: true, Address: "shield.example.org:7424"},
	}
	eventually(t, "L1 knows of the others", func() bool { return slices.Equal(one.Others(), want) })
	c.stop()
	one.stop()
	one = startNode(t, dir, "", "")
	if got := one.Others(); !slices.Equal(got, want) {
		t.Errorf("after the restart: %+v", got)
	}
	asks := func(n *testNode) int {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		leaf, err := x509.ParseCertificate(n.membership.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
		one.Members(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		return w.Code
	}
	if got := asks(two); got != http.StatusOK {
		t.Errorf("another location is answered with %d", got)
	}

	one.stop()
	path := filepath.Join(dir, "edge", peersFile)
	for name, content := range map[string]string{"of a newer program": `{"Version": 2}`, "that is damaged": `{"Version"`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenNode(t.Context(), NodeOptions{Dir: filepath.Dir(path), Version: "test", Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), peersFile) {
			t.Errorf("with a list %s: %v", name, err)
		}
	}
}

func TestARenewedCertificateIsUsedAtOnce(t *testing.T) {
	c := newCore(t)
	n := startNode(t, t.TempDir(), c.address, c.token("L1"))
	before, node := n.Identity().Expires(), n.Identity()
	if err := n.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n.Identity() != node || n.Identity().Expires().Before(before) {
		t.Errorf("%v, before %v", n.Identity().Expires(), before)
	}
	core := cluster.Identity{Role: cluster.Core, Name: CoreName}
	if status, _, err := asks(t, n.Identity(), core, c.address); status != 200 {
		t.Errorf("with the new certificate: %d, %v", status, err)
	}
}
