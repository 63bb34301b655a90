package gateway

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	caFile    = "ca.pem"
	caKeyFile = "ca-key.pem"

	caLife   = 10 * 365 * 24 * time.Hour
	certLife = 90 * 24 * time.Hour
	// renewal is how long before its end a certificate is replaced.
	renewal = 30 * 24 * time.Hour
	// maxCerts bounds the certificates that are kept in memory.
	maxCerts = 256
)

// Authority is a local certificate authority: it makes the server's
// certificates as clients ask for names, so that bucket.s3.localhost has one
// too. (OpenSSL does not take a wildcard directly below a top-level domain.)
type Authority struct {
	file  string
	cert  *x509.Certificate
	key   crypto.Signer
	names []string
	ips   []net.IP

	mu    sync.Mutex
	certs map[string]*tls.Certificate // by server name; "" for clients that send none
}

// OpenAuthority opens the authority in a directory, and makes it if there is
// none. Its certificates are good for localhost, the names (host names and IP
// addresses) and every name below them.
func OpenAuthority(dir string, names []string) (*Authority, error) {
	a := &Authority{
		file: filepath.Join(dir, caFile), certs: map[string]*tls.Certificate{},
		names: []string{"localhost"}, ips: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			a.ips = append(a.ips, ip)
		} else if name = strings.ToLower(strings.TrimPrefix(name, "*.")); !slices.Contains(a.names, name) {
			a.names = append(a.names, name)
		}
	}
	if err := a.load(dir); errors.Is(err, fs.ErrNotExist) {
		if err := makeAuthority(dir); err != nil {
			return nil, fmt.Errorf("make the certificate authority: %w", err)
		}
		if err := a.load(dir); err != nil {
			return nil, fmt.Errorf("open the certificate authority: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("open the certificate authority: %w", err)
	}
	return a, nil
}

// File returns the path of the authority's certificate, which clients must
// trust (AWS_CA_BUNDLE).
func (a *Authority) File() string { return a.file }

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
	t, err := template("Lapwing", certLife)
	if err != nil {
		return nil, err
	}
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if t.DNSNames = []string{name}; name == "" {
		t.DNSNames, t.IPAddresses = a.names, a.ips
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func template(name string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life), BasicConstraintsValid: true,
	}, nil
}

// makeAuthority writes a new authority. The key goes first: with the
// certificate, which is looked for, there is always a key.
func makeAuthority(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	t, err := template("Lapwing local CA on "+host, caLife)
	if err != nil {
		return err
	}
	t.IsCA, t.MaxPathLenZero, t.KeyUsage = true, true, x509.KeyUsageCertSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, caKeyFile), "PRIVATE KEY", keyDER, 0o600); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, caFile), "CERTIFICATE", der, 0o644)
}

func (a *Authority) load(dir string) error {
	cert, err := readPEM(filepath.Join(dir, caFile), "CERTIFICATE")
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(cert); err != nil {
		return fmt.Errorf("%s: %w", caFile, err)
	}
	if time.Now().After(a.cert.NotAfter) {
		return fmt.Errorf("%s has expired; remove it to have a new one made, and let clients trust that", filepath.Join(dir, caFile))
	}
	der, err := readPEM(filepath.Join(dir, caKeyFile), "PRIVATE KEY")
	if err != nil {
		// Not wrapped: a lost key must not have a new authority made.
		return fmt.Errorf("the key of %s: %v; remove that to have a new one made, and let clients trust that", a.file, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return fmt.Errorf("%s: %w", caKeyFile, err)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok || !signer.PublicKey.Equal(a.cert.PublicKey) {
		return fmt.Errorf("%s is not the key of %s", caKeyFile, caFile)
	}
	a.key = signer
	return nil
}

func readPEM(path, kind string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s does not hold a %s in PEM form", path, kind)
	}
	return block.Bytes, nil
}

// writePEM writes a file whole and durably.
func writePEM(path, kind string, der []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
