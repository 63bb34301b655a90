package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/authority"
)

const (
	certLife = 90 * 24 * time.Hour
	// renewal is how long before its end a certificate is replaced.
	renewal = 30 * 24 * time.Hour
	// maxCerts bounds the certificates that are kept in memory.
	maxCerts = 256
)

// Authority makes the server's certificates as clients ask for names, so that
// bucket.s3.localhost has one too. (OpenSSL does not take a wildcard directly
// below a top-level domain.)
type Authority struct {
	issuer *authority.Authority
	names  []string
	ips    []net.IP

	mu    sync.Mutex
	certs map[string]*tls.Certificate // by server name; "" for clients that send none
}

// OpenAuthority opens the authority in a directory, and makes it if there is
// none. Its certificates are good for localhost, the names (host names and IP
// addresses) and every name below them.
func OpenAuthority(dir string, names []string) (*Authority, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	issuer, err := authority.Open(dir, "Lapwing local CA on "+host)
	if err != nil {
		return nil, err
	}
	a := &Authority{
		issuer: issuer, certs: map[string]*tls.Certificate{},
		names: []string{"localhost"}, ips: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			a.ips = append(a.ips, ip)
		} else if name = strings.ToLower(strings.TrimPrefix(name, "*.")); !slices.Contains(a.names, name) {
			a.names = append(a.names, name)
		}
	}
	return a, nil
}

// File returns the path of the authority's certificate, which clients must
// trust (AWS_CA_BUNDLE).
func (a *Authority) File() string { return a.issuer.File() }

// Issuer returns the authority itself.
func (a *Authority) Issuer() *authority.Authority { return a.issuer }

// TLS returns a server's configuration with the authority's certificates.
func (a *Authority) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: a.certificate}
}

// certificate finds or makes the certificate for the name that a client wants.
func (a *Authority) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.TrimSuffix(strings.ToLower(hello.ServerName), ".")
	below := func(base string) bool { return strings.HasSuffix(name, "."+base) }
	switch {
	case name == "" || slices.Contains(a.names, name):
		name = ""
	case !slices.ContainsFunc(a.names, below):
		return nil, fmt.Errorf("no certificate for the name %q", name)
	}
	return a.Certificate(name)
}

// Certificate finds or makes the certificate of a name, of whatever domain: the
// caller knows that the server goes by it. An empty name stands for all names that
// the authority was opened with.
func (a *Authority) Certificate(name string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.certs[name]; c != nil && time.Until(c.Leaf.NotAfter) > renewal {
		return c, nil
	}
	c, err := a.issue(name)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for %q: %w", name, err)
	}
	if len(a.certs) >= maxCerts {
		clear(a.certs)
	}
	a.certs[name] = c
	return c, nil
}

// issue makes a certificate for one name, or for all that are configured.
func (a *Authority) issue(name string) (*tls.Certificate, error) {
	t, err := authority.Template("Lapwing", certLife)
	if err != nil {
		return nil, err
	}
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if t.DNSNames = []string{name}; name == "" {
		t.DNSNames, t.IPAddresses = a.names, a.ips
	}
	return a.issuer.Issue(t)
}
