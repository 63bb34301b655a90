package acm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	api "lapwing.dev/lapwing/internal/aws/acm"
)

// parseCertificate reads the one certificate of a PEM document.
func parseCertificate(document string) (*x509.Certificate, error) {
	list, err := parseCertificates(document)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, errors.New("there must be exactly one certificate")
	}
	return list[0], nil
}

func parseCertificates(document string) (list []*x509.Certificate, err error) {
	for rest := []byte(document); len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("it is not in PEM form, or is no certificate")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// parseKey reads an unencrypted private key.
func parseKey(document string) (crypto.Signer, error) {
	block, _ := pem.Decode([]byte(document))
	if block == nil {
		return nil, errors.New("it is not in PEM form")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block %q is no unencrypted private key", block.Type)
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("it cannot sign")
	}
	return signer, nil
}

// algorithm names the algorithm of a public key, empty where ACM has none.
func algorithm(key any) api.KeyAlgorithm {
	var name string
	switch k := key.(type) {
	case *rsa.PublicKey:
		name = fmt.Sprintf("RSA_%d", k.N.BitLen())
	case *ecdsa.PublicKey:
		name = map[string]string{"P-256": "EC_prime256v1", "P-384": "EC_secp384r1", "P-521": "EC_secp521r1"}[k.Params().Name]
	}
	switch a := api.KeyAlgorithm(name); a {
	case api.KeyAlgorithmRsa1024, api.KeyAlgorithmRsa2048, api.KeyAlgorithmRsa3072, api.KeyAlgorithmRsa4096,
		api.KeyAlgorithmECPrime256v1, api.KeyAlgorithmECSecp384r1, api.KeyAlgorithmECSecp521r1:
		return a
	}
	return ""
}

// checkImport says what is wrong with a certificate, its chain and its key.
func checkImport(certificate, chain, key string, now time.Time) error {
	invalid := func(cause error, message string) error {
		return api.NewValidationException("%s", message).WithCause(cause)
	}
	leaf, err := parseCertificate(certificate)
	if err != nil {
		return invalid(err, "The certificate that you have passed is not valid: "+err.Error())
	}
	if algorithm(leaf.PublicKey) == "" {
		return invalid(nil, "The key algorithm of the certificate is not supported.")
	}
	signer, err := parseKey(key)
	if err != nil {
		return invalid(err, "The private key is not supported: it must be in PEM form and not encrypted.")
	}
	if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return invalid(nil, "The private key does not match the certificate.")
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return invalid(nil, "The certificate is not valid at this time: it is expired, or not valid yet.")
	}
	if chain == "" {
		if err := leaf.CheckSignatureFrom(leaf); err != nil && !selfSigned(leaf) {
			return invalid(err, "Provided certificate is not a valid self signed. Please provide either a valid self-signed certificate or certificate chain.")
		}
		return nil
	}
	issuers, err := parseCertificates(chain)
	if err != nil || len(issuers) == 0 {
		return invalid(err, "The certificate chain is not valid.")
	}
	child := leaf
	for _, issuer := range issuers {
		if err := child.CheckSignatureFrom(issuer); err != nil {
			return invalid(err, "Could not validate the certificate with the certificate chain.")
		}
		child = issuer
	}
	return nil
}

// selfSigned tells whether a certificate that is no authority's is signed with
// its own key.
func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// names returns the DNS names that a certificate is for.
func names(c *x509.Certificate) []string {
	if len(c.DNSNames) == 0 && c.Subject.CommonName != "" {
		return []string{strings.ToLower(c.Subject.CommonName)}
	}
	var out []string
	for _, n := range c.DNSNames {
		out = append(out, strings.ToLower(n))
	}
	return out
}
