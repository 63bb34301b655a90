package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// membershipVersion is the version of the file's format.
const membershipVersion = 1

// Membership is what a node that joined keeps, in a file of its own: its key, its
// certificate, and what else its role needs to find the core.
type Membership[T any] struct {
	Version     int    `json:"version"`
	Role        Role   `json:"role"`
	Name        string `json:"name"`
	Key         []byte `json:"key"`         // PKCS #8
	Certificate []byte `json:"certificate"` // DER
	CA          []byte `json:"ca"`          // DER
	Facts       T      `json:"facts"`
}

// NewKey makes a node's key; it returns PKCS #8, and the public half in PKIX form.
func NewKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if private, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, nil, err
	}
	public, err = x509.MarshalPKIXPublicKey(key.Public())
	return private, public, err
}

// ReadMembership reads a membership; fs.ErrNotExist where there is none.
func ReadMembership[T any](path string) (*Membership[T], error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var m Membership[T]
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: damaged", path) // the error could quote the key
	}
	if m.Version > membershipVersion {
		return nil, fmt.Errorf("%s has format version %d, written by a newer lapwing; this one reads up to %d", path, m.Version, membershipVersion)
	}
	return &m, nil
}

// Write writes the membership so that after a crash it is there whole or not at
// all.
func (m *Membership[T]) Write(path string) error {
	m.Version = membershipVersion
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Node returns the node that the membership is of.
func (m *Membership[T]) Node() (*Node, error) {
	key, err := x509.ParsePKCS8PrivateKey(m.Key)
	if err != nil {
		return nil, errors.New("cluster: the membership's key is damaged")
	}
	leaf, err := x509.ParseCertificate(m.Certificate)
	if err != nil {
		return nil, fmt.Errorf("cluster: the membership's certificate: %w", err)
	}
	ca, err := x509.ParseCertificate(m.CA)
	if err != nil {
		return nil, fmt.Errorf("cluster: the membership's authority: %w", err)
	}
	i, err := IdentityOf(leaf)
	if err != nil || i != (Identity{m.Role, m.Name}) {
		return nil, fmt.Errorf("cluster: the membership of %s has the certificate of %s", m.Name, i)
	}
	return newNode(i, &tls.Certificate{Certificate: [][]byte{m.Certificate, m.CA}, PrivateKey: key, Leaf: leaf}, ca), nil
}
