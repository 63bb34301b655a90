package state

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// authority issues the certificates of a test's hub and leaves.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.make("authority", true)
	return a
}

func (a *authority) make(name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: ca,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) tls(name string) *tls.Config {
	cert, key := a.make(name, false)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		RootCAs:      pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
}

// wire is a connection to the hub that can be cut: what is sent then is not lost
// but held, as where a router fails.
type wire struct {
	net.Listener
	mu  sync.Mutex
	cut chan struct{} // nil: whole; closed when it is whole again
}

func newWire(t *testing.T, to string) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.join(c, to)
		}
	}()
	return w
}

func (w *wire) join(c net.Conn, to string) {
	defer c.Close()
	w.wait()
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	go w.copy(c, d)
	w.copy(d, c)
}

func (w *wire) copy(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		w.wait()
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (w *wire) wait() {
	w.mu.Lock()
	cut := w.cut
	w.mu.Unlock()
	if cut != nil {
		<-cut
	}
}

func (w *wire) set(whole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if whole {
		close(w.cut)
		w.cut = nil
	} else {
		w.cut = make(chan struct{})
	}
}

func leafOf(c *x509.Certificate) (string, error) { return c.Subject.CommonName, nil }

func openHub(t *testing.T, a *authority, dir, listen string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: dir, Hub: &Hub{Listen: listen, TLS: a.tls("hub"), Leaf: leafOf}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openLeaf(t *testing.T, a *authority, dir, name, hub string) *Store {
	t.Helper()
	o := Options{Dir: dir, Leaf: &Leaf{Name: name, Hub: hub, TLS: a.tls(name)}}
	if testing.Verbose() {
		o.Logger = slog.Default()
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func collectString(t *testing.T, s *Store, name string) *Collection[string] {
	t.Helper()
	c, err := Collect[string](t.Context(), s, name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func putString(t *testing.T, c *Collection[string], key, value string) Item[string] {
	t.Helper()
	i, err := c.Put(t.Context(), key, value)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// same waits until a mirror holds what the hub does.
func same(t *testing.T, mirror, hub *Collection[string], within time.Duration) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !slices.Equal(mirror.List(""), hub.List("")) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v the mirror holds\n%v\nand the hub\n%v", within, mirror.List(""), hub.List(""))
		}
		time.Sleep(5 * time.Millisecond)
	}
	if mirror.Mark().Sum != hub.Mark().Sum {
		t.Fatalf("the marks of equal collections differ: %v, %v", mirror.Mark(), hub.Mark())
	}
}

const patience = 20 * time.Second

func TestMirrorHoldsTheHubsRecordsAtTheHubsRevisions(t *testing.T) {
	a := newAuthority(t)
	hub := openHub(t, a, t.TempDir(), "127.0.0.1:0")
	records := collectString(t, hub, "records")
	putString(t, records, "a", "1")
	putString(t, records, "a", "2")
	gone := putString(t, records, "gone", "1")
	if err := records.Delete(t.Context(), "gone", gone.Revision); err != nil {
		t.Fatal(err)
	}
	if err := hub.Grant(t.Context(), "FRA56-P1", "records"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	leaf := openLeaf(t, a, dir, "FRA56-P1", hub.HubAddress().String())
	mirror := collectString(t, leaf, "records")
	same(t, mirror, records, patience)

	putString(t, records, "b", "3")
	putString(t, records, "a", "4")
	same(t, mirror, records, patience)
	if !mirror.Mark().Holds(records.Mark()) {
		t.Errorf("the mirror's mark %v does not hold the hub's %v", mirror.Mark(), records.Mark())
	}
	if _, err := mirror.Put(t.Context(), "a", "mine"); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a write to a mirror: %v, want ErrReadOnly", err)
	}

	// Without the hub, and from the disk.
	if err := errors.Join(leaf.Close(), hub.Close()); err != nil {
		t.Fatal(err)
	}
	leaf = openLeaf(t, a, dir, "FRA56-P1", hub.HubAddress().String())
	mirror = collectString(t, leaf, "records")
	if got, want := mirror.List(""), records.List(""); !slices.Equal(got, want) {
		t.Errorf("after a restart without the hub: %v, want %v", got, want)
	}
}

func TestMirrorCatchesUpAfterACut(t *testing.T) {
	cuts := []time.Duration{time.Second, 6 * time.Second, 22 * time.Second}
	if testing.Short() {
		cuts = cuts[:1]
	}
	for _, cut := range cuts {
		t.Run(cut.String(), func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			hub := openHub(t, a, t.TempDir(), "127.0.0.1:0")
			records := collectString(t, hub, "records")
			if err := hub.Grant(t.Context(), "L1", "records"); err != nil {
				t.Fatal(err)
			}
			w := newWire(t, hub.HubAddress().String())
			leaf := openLeaf(t, a, t.TempDir(), "L1", w.Addr().String())
			mirror := collectString(t, leaf, "records")
			gone := putString(t, records, "gone", "before")
			same(t, mirror, records, patience)

			w.set(false)
			putString(t, records, "new", "during")
			if err := records.Delete(t.Context(), "gone", gone.Revision); err != nil {
				t.Fatal(err)
			}
			time.Sleep(cut)
			w.set(true)
			// The connection is there again after a moment; JetStream's own
			// retries may take longer.
			began := time.Now()
			time.Sleep(1500 * time.Millisecond)
			if !mirror.Mark().Holds(records.Mark()) {
				if err := leaf.RestartMirrors(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			same(t, mirror, records, patience)
			t.Logf("caught up %v after the cut", time.Since(began).Round(10*time.Millisecond))
			putString(t, records, "after", "all")
			same(t, mirror, records, patience)
		})
	}
}

func TestRestartOfMirrorsLosesNothingAndTellsNothingTwice(t *testing.T) {
	a := newAuthority(t)
	hub := openHub(t, a, t.TempDir(), "127.0.0.1:0")
	records := collectString(t, hub, "records")
	if err := hub.Grant(t.Context(), "L1", "records"); err != nil {
		t.Fatal(err)
	}
	leaf := openLeaf(t, a, t.TempDir(), "L1", hub.HubAddress().String())
	mirror := collectString(t, leaf, "records")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	revisions := make(chan uint64, 1000)
	go func() {
		for c := range mirror.Watch(ctx) {
			revisions <- c.Revision
		}
	}()
	for i := range 20 {
		putString(t, records, fmt.Sprint(i%5), fmt.Sprint(i))
		if i%7 == 3 {
			if err := leaf.RestartMirrors(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	same(t, mirror, records, patience)
	last := uint64(0)
	for deadline := time.After(patience); last < records.Mark().Revision; {
		select {
		case r := <-revisions:
			if r <= last {
				t.Fatalf("revision %d came after %d", r, last)
			}
			last = r
		case <-deadline:
			t.Fatalf("the watch has come to revision %d of %d", last, records.Mark().Revision)
		}
	}
}

func TestRenewMakesAMirrorRightThatMissedADeletion(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	hub := openHub(t, a, dir, "127.0.0.1:0")
	hub.markerTTL = time.Second
	records := collectString(t, hub, "records")
	if err := hub.Grant(t.Context(), "L1", "records"); err != nil {
		t.Fatal(err)
	}
	leafDir := t.TempDir()
	leaf := openLeaf(t, a, leafDir, "L1", hub.HubAddress().String())
	mirror := collectString(t, leaf, "records")
	putString(t, records, "kept", "1")
	gone := putString(t, records, "gone", "1")
	same(t, mirror, records, patience)
	leaf.Close()
	if err := records.Delete(t.Context(), "gone", gone.Revision); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond) // the mark of the deletion is gone
	putString(t, records, "new", "1")
	leaf = openLeaf(t, a, leafDir, "L1", hub.HubAddress().String())
	mirror = collectString(t, leaf, "records")
	for deadline := time.Now().Add(patience); mirror.Mark().Revision < records.Mark().Revision; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the mirror does not catch up")
		}
	}
	if mirror.Mark().Sum == records.Mark().Sum {
		t.Fatal("the marks do not show a deletion that was missed")
	}
	if err := leaf.Renew(t.Context(), hub.Marks()); err != nil {
		t.Fatal(err)
	}
	same(t, mirror, records, patience)
}

func TestLeafMayDoNothingAtTheHubButMirrorWhatItWasGranted(t *testing.T) {
	a := newAuthority(t)
	hub := openHub(t, a, t.TempDir(), "127.0.0.1:0")
	secret, records := collectString(t, hub, "secret"), collectString(t, hub, "records")
	putString(t, secret, "k", "v")
	putString(t, records, "k", "v")
	if err := hub.Grant(t.Context(), "GOOD", "records", "secret"); err != nil {
		t.Fatal(err)
	}
	if err := hub.Grant(t.Context(), "BAD", "records"); err != nil {
		t.Fatal(err)
	}
	leaf := openLeaf(t, a, t.TempDir(), "BAD", hub.HubAddress().String())
	same(t, collectString(t, leaf, "records"), records, patience)

	heard := make(chan string, 100)
	if _, err := leaf.conn.Subscribe(">", func(m *nats.Msg) {
		if m.Subject != "" && m.Reply == "" && string(m.Data) == "for GOOD alone" {
			heard <- m.Subject
		}
	}); err != nil {
		t.Fatal(err)
	}
	before := hub.Marks()
	for _, subject := range []string{"$KV.secret.k", "$KV.records.k", "$JS.core.API.STREAM.DELETE.KV_secret", "$JS.API.STREAM.DELETE.KV_secret", "$JS.core.API.CONSUMER.RESET.KV_secret.GOOD", "$JS.core.API.STREAM.MSG.GET.KV_secret"} {
		reply := nats.NewInbox()
		sub, err := leaf.conn.SubscribeSync(reply)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(leaf.conn.PublishRequest(subject, reply, []byte(`{}`)), leaf.conn.Flush()); err != nil {
			t.Fatal(err)
		}
		if m, err := sub.NextMsg(200 * time.Millisecond); err == nil && subject != "$JS.API.STREAM.DELETE.KV_secret" {
			t.Errorf("the hub answered %s: %s", subject, m.Data)
		}
	}
	if err := errors.Join(hub.conn.Publish(mirrorSubject("GOOD", "records"), []byte("for GOOD alone")), hub.conn.Flush()); err != nil {
		t.Fatal(err)
	}
	putString(t, records, "k", "v2")
	select {
	case s := <-heard:
		t.Errorf("a leaf hears what is for another one, on %s", s)
	case <-time.After(300 * time.Millisecond):
	}
	if got := hub.Marks()["secret"]; got != before["secret"] {
		t.Errorf("a leaf changed the hub's records: %v, before %v", got, before["secret"])
	}
	if item, _ := records.Get("k"); item.Value != "v2" {
		t.Errorf("records has %v", item)
	}
}

func TestRevokedLeafIsCutOff(t *testing.T) {
	a := newAuthority(t)
	var mu sync.Mutex
	refuse := false
	hub, err := Open(t.Context(), Options{Dir: t.TempDir(), Hub: &Hub{Listen: "127.0.0.1:0", TLS: a.tls("hub"), Leaf: func(c *x509.Certificate) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if refuse {
			return "", io.EOF
		}
		return c.Subject.CommonName, nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	records := collectString(t, hub, "records")
	if err := hub.Grant(t.Context(), "L1", "records"); err != nil {
		t.Fatal(err)
	}
	leaf := openLeaf(t, a, t.TempDir(), "L1", hub.HubAddress().String())
	mirror := collectString(t, leaf, "records")
	putString(t, records, "k", "1")
	same(t, mirror, records, patience)
	mu.Lock()
	refuse = true
	mu.Unlock()
	if err := hub.Revoke(t.Context(), "L1", "records"); err != nil {
		t.Fatal(err)
	}
	putString(t, records, "k", "2")
	time.Sleep(time.Second)
	if item, _ := mirror.Get("k"); item.Value != "1" {
		t.Errorf("a revoked leaf was told %q", item.Value)
	}
}

func TestStrangersAreNoLeaves(t *testing.T) {
	a := newAuthority(t)
	hub := openHub(t, a, t.TempDir(), "127.0.0.1:0")
	records := collectString(t, hub, "records")
	putString(t, records, "k", "1")
	if err := hub.Grant(t.Context(), "L1", "records"); err != nil {
		t.Fatal(err)
	}
	stranger := newAuthority(t).tls("L1") // of an authority of its own
	stranger.RootCAs = a.tls("x").RootCAs
	leaf, err := Open(t.Context(), Options{Dir: t.TempDir(), Leaf: &Leaf{Name: "L1", Hub: hub.HubAddress().String(), TLS: stranger}})
	if err != nil {
		t.Fatal(err)
	}
	defer leaf.Close()
	mirror := collectString(t, leaf, "records")
	time.Sleep(time.Second)
	if mirror.Len() != 0 {
		t.Error("a stranger was let in")
	}
}
