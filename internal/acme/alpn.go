package acme

import (
	"crypto/tls"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// ALPNProtocol is what an authority speaks that looks for proof by ALPN01.
const ALPNProtocol = acmez.ACMETLS1Protocol

// ProofCertificate makes what an authority looks for by ALPN01 (RFC 8737, 3): a
// certificate for a name that signs itself and has the hash of the answer's value.
func ProofCertificate(name, value string) (*tls.Certificate, error) {
	return acmez.TLSALPN01ChallengeCert(acme.Challenge{Identifier: acme.Identifier{Type: "dns", Value: name}, KeyAuthorization: value})
}
