// Package authority is a local certificate authority: a self-signed certificate
// and its key in a directory, made at the first start, and what it issues. The
// gateway has one for the names of its endpoint, a cluster one for its nodes.
package authority

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
	"os"
	"path/filepath"
	"time"
)

const (
	certFile = "ca.pem"
	keyFile  = "ca-key.pem"

	life = 10 * 365 * 24 * time.Hour
)

// Authority issues certificates. It is safe for concurrent use.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// Open opens the authority in a directory, and makes it if there is none; name is
// the common name of its certificate then.
func Open(dir, name string) (*Authority, error) {
	a := &Authority{dir: dir}
	if err := a.load(); errors.Is(err, fs.ErrNotExist) {
		if err := a.make(name); err != nil {
			return nil, fmt.Errorf("make the certificate authority: %w", err)
		}
		if err := a.load(); err != nil {
			return nil, fmt.Errorf("open the certificate authority: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("open the certificate authority: %w", err)
	}
	return a, nil
}

// File returns the path of the authority's certificate in PEM form.
func (a *Authority) File() string { return filepath.Join(a.dir, certFile) }

// Certificate returns the authority's certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Template returns a certificate with a new serial number, valid from an hour ago
// and for life.
func Template(name string, life time.Duration) (*x509.Certificate, error) {
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

// Sign issues a certificate for a public key, in DER form.
func (a *Authority) Sign(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	return x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
}

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(template *x509.Certificate) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := a.Sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// make writes a new authority. The key goes first: with the certificate, which is
// looked for, there is always a key.
func (a *Authority) make(name string) error {
	if err := os.MkdirAll(a.dir, 0o755); err != nil {
		return err
	}
	t, err := Template(name, life)
	if err != nil {
		return err
	}
	t.IsCA, t.MaxPathLenZero, t.KeyUsage = true, true, x509.KeyUsageCertSign
	key, err := makeKey(filepath.Join(a.dir, keyFile))
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	return writePEM(a.File(), "CERTIFICATE", der, 0o644)
}

func (a *Authority) load() error {
	cert, err := readPEM(a.File(), "CERTIFICATE")
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(cert); err != nil {
		return fmt.Errorf("%s: %w", certFile, err)
	}
	if time.Now().After(a.cert.NotAfter) {
		return fmt.Errorf("%s has expired; remove it to have a new one made, and let clients trust that", a.File())
	}
	key, err := readKey(filepath.Join(a.dir, keyFile))
	if err != nil {
		// Not wrapped: a lost key must not have a new authority made.
		return fmt.Errorf("the key of %s: %v; remove that to have a new one made, and let clients trust that", a.File(), err)
	}
	if !key.PublicKey.Equal(a.cert.PublicKey) {
		return fmt.Errorf("%s is not the key of %s", keyFile, certFile)
	}
	a.key = key
	return nil
}

// Key reads the ECDSA key in a file in PEM form, and makes one if there is none. The
// file is its owner's alone.
func Key(path string) (*ecdsa.PrivateKey, error) {
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	return key, err
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	known, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds no ECDSA key", path)
	}
	return known, nil
}

func makeKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return key, writePEM(path, "PRIVATE KEY", der, 0o600)
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
