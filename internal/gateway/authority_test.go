package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// handshake connects to a server that has the authority's certificates.
func handshake(a *Authority, trust *x509.CertPool, name string) error {
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		_ = tls.Server(server, a.TLS()).Handshake() // the client sees the error, too
	}()
	return tls.Client(client, &tls.Config{RootCAs: trust, ServerName: name}).Handshake()
}

func trustOf(t *testing.T, a *Authority) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(a.File())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in the CA file")
	}
	return pool
}

func TestAuthorityCertifiesOurNamesOnly(t *testing.T) {
	a, err := OpenAuthority(t.TempDir(), []string{"lapwing.example", "192.0.2.7"})
	if err != nil {
		t.Fatal(err)
	}
	trust := trustOf(t, a)
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "192.0.2.7", "bucket.localhost", "my.bucket.s3.localhost", "lapwing.example", "s3.lapwing.example"} {
		if err := handshake(a, trust, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"example.com", "192.0.2.8", "xlocalhost"} {
		if err := handshake(a, trust, name); err == nil {
			t.Errorf("%s was certified", name)
		}
	}
}

func TestAuthorityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	first, err := OpenAuthority(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	trust := trustOf(t, first)
	second, err := OpenAuthority(dir, []string{"added.example"})
	if err != nil {
		t.Fatal(err)
	}
	if err := handshake(second, trust, "added.example"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	for file, mode := range map[string]os.FileMode{"ca.pem": 0o644, "ca-key.pem": 0o600} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "ca-key.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(dir, nil); err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("without its key: %v", err)
	}
}

func TestAuthorityBoundsItsCertificates(t *testing.T) {
	a, err := OpenAuthority(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxCerts + 10 {
		name := strings.Repeat("a", 1+i%50) + string(rune('a'+i/50)) + ".localhost"
		if _, err := a.certificate(&tls.ClientHelloInfo{ServerName: name}); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.certs) > maxCerts {
		t.Errorf("%d certificates", len(a.certs))
	}
}
