// Package cluster is how the nodes of one installation know and reach each other.
//
// A node has a certificate of the installation's own authority, which names its
// role and itself. Nodes talk HTTP/2 over TLS with certificates on both sides, and
// judge each other by these, whatever addresses they have. A new node joins with a
// token: it names the authority by its fingerprint, so that the node knows whom it
// talks to, and carries a secret that the core takes for one node, once.
//
// What nodes say to each other is their business: package edge/location has the
// calls of edge locations.
package cluster

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/authority"
)

// Role is what a node is to the others.
type Role string

// The roles of nodes.
const (
	Core Role = "core" // has the control plane
	Edge Role = "edge" // is an edge location
	// Operator is no node, but a command of somebody who may read the core's data
	// directory.
	Operator Role = "operator"
)

// Identity is who a node is.
type Identity struct {
	Role Role
	Name string // unique among the nodes of a role
}

// String returns the identity as certificates have it.
func (i Identity) String() string { return "lapwing://" + string(i.Role) + "/" + i.Name }

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,31}$`)

// ValidName tells whether a node may have a name: 1 to 32 letters, digits and
// hyphens, which does not begin with a hyphen.
func ValidName(name string) bool { return nodeName.MatchString(name) }

// IdentityOf returns whose a verified certificate is.
func IdentityOf(c *x509.Certificate) (Identity, error) {
	if len(c.URIs) != 1 {
		return Identity{}, errors.New("cluster: the certificate is not a node's")
	}
	u := c.URIs[0]
	i := Identity{Role: Role(u.Host), Name: strings.TrimPrefix(u.Path, "/")}
	if u.String() != i.String() || !ValidName(i.Name) {
		return Identity{}, fmt.Errorf("cluster: the certificate is for %q, which is no node", u)
	}
	return i, nil
}

// Fingerprint names a certificate, or a public key in PKIX form: its SHA-256.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

const (
	// nodeLife is how long a node's certificate is good: a location that has not
	// reached the core for longer must join again.
	nodeLife = 365 * 24 * time.Hour
	// renewal is how long before the end a node asks for a new certificate.
	renewal = 275 * 24 * time.Hour
	// ownLife is the life of the core's and of an operator's certificates, which
	// are made anew at each start.
	ownLife = 365 * 24 * time.Hour
)

// Authority issues the certificates of an installation's nodes.
type Authority struct{ issuer *authority.Authority }

// OpenAuthority opens the authority in a directory, and makes it if there is none.
func OpenAuthority(dir string) (*Authority, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	a, err := authority.Open(dir, "Lapwing nodes of "+host)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return &Authority{a}, nil
}

// Fingerprint names the authority.
func (a *Authority) Fingerprint() string { return Fingerprint(a.issuer.Certificate().Raw) }

// Certificate returns the authority's certificate in DER form.
func (a *Authority) Certificate() []byte { return a.issuer.Certificate().Raw }

// Node makes a key and a certificate for a node of this process.
func (a *Authority) Node(i Identity) (*Node, error) {
	t, err := nodeTemplate(i, ownLife)
	if err != nil {
		return nil, err
	}
	cert, err := a.issuer.Issue(t)
	if err != nil {
		return nil, fmt.Errorf("cluster: certificate of %s: %w", i, err)
	}
	return newNode(i, cert, a.issuer.Certificate()), nil
}

// Sign issues the certificate of another node for the key that it has, in PKIX
// form. It returns DER.
func (a *Authority) Sign(i Identity, publicKey []byte) ([]byte, error) {
	key, err := x509.ParsePKIXPublicKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("cluster: public key of %s: %w", i, err)
	}
	t, err := nodeTemplate(i, nodeLife)
	if err != nil {
		return nil, err
	}
	der, err := a.issuer.Sign(t, key)
	if err != nil {
		return nil, fmt.Errorf("cluster: certificate of %s: %w", i, err)
	}
	return der, nil
}

func nodeTemplate(i Identity, life time.Duration) (*x509.Certificate, error) {
	if !ValidName(i.Name) {
		return nil, fmt.Errorf("cluster: %q is no name for a node", i.Name)
	}
	t, err := authority.Template(i.Name, life)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(i.String())
	if err != nil {
		return nil, err
	}
	t.URIs = []*url.URL{u}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	return t, nil
}

// Node is this process among the nodes.
type Node struct {
	Identity
	certificate atomic.Pointer[tls.Certificate]
	roots       *x509.CertPool
}

func newNode(i Identity, cert *tls.Certificate, ca *x509.Certificate) *Node {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	n := &Node{Identity: i, roots: roots}
	n.certificate.Store(cert)
	return n
}

// Renew has the node show the certificate of another one, which is of the same node
// and newer, on the connections that are made from now on.
func (n *Node) Renew(newer *Node) { n.certificate.Store(newer.certificate.Load()) }

// Expires returns when the node's certificate ends.
func (n *Node) Expires() time.Time { return n.certificate.Load().Leaf.NotAfter }

// Aging tells whether it is time for a new certificate.
func (n *Node) Aging() bool { return time.Until(n.Expires()) < renewal }

// Server returns the TLS configuration of a listener. Clients show a certificate
// of the authority, or, where joining is set, none: IdentityOf tells who they are.
func (n *Node) Server(joining bool) *tls.Config {
	auth := tls.RequireAndVerifyClientCert
	if joining {
		auth = tls.VerifyClientCertIfGiven
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*n.certificate.Load()},
		ClientAuth: auth, ClientCAs: n.roots,
	}
}

// Client returns the TLS configuration of a connection to a node of a role. The
// address that is dialled means nothing: the certificate tells who answers.
func (n *Node) Client(role Role) *tls.Config { return n.client(hasRole(role)) }

// client is Client to a node that right says is the right one.
func (n *Node) client(right func(Identity) error) *tls.Config {
	c := clientConfig(func(leaf *x509.Certificate, _ []*x509.Certificate) error { return verify(leaf, n.roots, right) })
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return n.certificate.Load(), nil }
	return c
}

// hasRole wants a node of a role.
func hasRole(role Role) func(Identity) error {
	return func(i Identity) error {
		if i.Role != role {
			return fmt.Errorf("cluster: %s answers where a node with the role %s should", i, role)
		}
		return nil
	}
}

// clientConfig leaves the verification to check, which gets the server's
// certificate and those that it was sent with.
func clientConfig(check func(*x509.Certificate, []*x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The standard verification is of names, and nodes have none: check does
		// the rest of it, and more.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("cluster: the server shows no certificate")
			}
			return check(s.PeerCertificates[0], s.PeerCertificates[1:])
		},
	}
}

// verify checks that a server's certificate is one of the authority, for the right
// node.
func verify(leaf *x509.Certificate, roots *x509.CertPool, right func(Identity) error) error {
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	i, err := IdentityOf(leaf)
	if err != nil {
		return err
	}
	return right(i)
}

// Joining returns the TLS configuration of a connection by which a node joins: the
// core that it reaches is the one of the authority with this fingerprint.
func Joining(fingerprint string) *tls.Config {
	return clientConfig(func(leaf *x509.Certificate, chain []*x509.Certificate) error {
		for _, ca := range chain {
			if Fingerprint(ca.Raw) == fingerprint {
				roots := x509.NewCertPool()
				roots.AddCert(ca)
				return verify(leaf, roots, hasRole(Core))
			}
		}
		return errors.New("cluster: the server is not the core that the token is of")
	})
}
