package acm

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"lapwing.dev/lapwing/internal/authority"
	api "lapwing.dev/lapwing/internal/aws/acm"
	"lapwing.dev/lapwing/internal/state"
)

const (
	// localLife is how long a certificate of the local authority is good for.
	localLife = 90 * 24 * time.Hour
	// maxCommonName bounds a common name (RFC 5280, ub-common-name).
	maxCommonName = 64
	// lookEvery is how often it is looked for certificates that are to be renewed.
	lookEvery = time.Minute
)

// issue is a certificate that is being issued. Key is a secret: no log has it.
type issue struct {
	Began time.Time
	Key   string // PEM
	// Next is when to go on.
	Next time.Time
}

// begin writes the record of a certificate that was just requested. The local
// authority issues it at once.
func (s *Service) begin(ctx context.Context, c *record, now time.Time) error {
	issued, err := s.sign(c.Request)
	if err != nil {
		return err
	}
	issued.apply(c, now)
	if _, err := s.certificates.Put(ctx, c.ARN, *c); err != nil {
		return err
	}
	return s.publish(ctx, c)
}

// issued is a certificate as its authority has issued it.
type issued struct {
	certificate, chain, key string // PEM
	renew                   time.Time
}

// apply makes it the certificate of a record.
func (i *issued) apply(c *record, now time.Time) {
	if c.Certificate != "" {
		c.Request.Renewal = &renewal{Status: api.RenewalStatusSuccess, At: now}
	}
	c.Format, c.Imported, c.Certificate, c.Chain, c.Key = format, now, i.certificate, i.chain, i.key
	c.Request.Status, c.Request.Failure, c.Request.Issue, c.Request.Renew = "", "", nil, i.renew
}

// renewAt is when a certificate is renewed unless its authority says otherwise: when
// a third of its life is left.
func renewAt(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// sign has the local authority issue a certificate.
func (s *Service) sign(r *request) (*issued, error) {
	key, err := newKey(r.Algorithm)
	if err != nil {
		return nil, err
	}
	name := r.Names[0]
	if len(name) > maxCommonName {
		name = "Lapwing"
	}
	template, err := authority.Template(name, localLife)
	if err != nil {
		return nil, err
	}
	template.DNSNames = r.Names
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if r.Algorithm == api.KeyAlgorithmRsa2048 {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	der, err := s.opts.Local.Sign(template, key.Public())
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", r.Names[0], err)
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	return &issued{certificate: certificatePEM(der), chain: certificatePEM(s.opts.Local.Certificate().Raw), key: text, renew: renewAt(template)}, nil
}

func newKey(a api.KeyAlgorithm) (crypto.Signer, error) {
	switch a {
	case api.KeyAlgorithmECPrime256v1:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case api.KeyAlgorithmECSecp384r1:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, 2048)
}

func keyPEM(key crypto.Signer) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), err
}

func certificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// issueAll renews certificates in time, until ctx ends.
func (s *Service) issueAll(ctx context.Context) {
	for ctx.Err() == nil {
		for item := range s.certificates.Scan("", "") {
			if c := &item.Value; c.Request != nil && s.due(c, s.opts.Now()) {
				if err := s.renew(ctx, c); err != nil && ctx.Err() == nil {
					s.opts.Logger.Error("a certificate was not renewed", "certificate", c.ARN, "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-s.woken:
		case <-time.After(lookEvery):
		}
	}
}

// due tells whether a certificate is to be renewed: not, as on AWS, one that
// nothing shows.
func (s *Service) due(c *record, now time.Time) bool {
	return c.Certificate != "" && now.After(c.Request.Renew) && len(s.users(c.ARN)) > 0
}

func (s *Service) renew(ctx context.Context, c *record) error {
	issued, err := s.sign(c.Request)
	if err != nil {
		return err
	}
	now := s.opts.Now().UTC()
	item, err := s.certificates.Modify(ctx, c.ARN, func(c *record) error { issued.apply(c, now); return nil })
	if errors.Is(err, state.ErrNotFound) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	return s.publish(ctx, &item.Value)
}

// validationZone is the domain of the names that proofs by DNS lead to.
func (s *Service) validationZone() string { return cmp.Or("", "aws") }
