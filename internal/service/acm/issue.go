package acm

import (
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
	// maxIssues bounds the certificates that are worked on at once.
	maxIssues = 4
	// lookEvery is how often it is looked for certificates that are to be renewed.
	lookEvery = 10 * time.Second
)

// issue is a certificate that is being issued. Key is a secret: no log has it.
type issue struct {
	Began time.Time
	Key   string // PEM
	// Next is when to go on.
	Next time.Time
	// Order is the URL of the order; empty: nothing is ordered.
	Order string
	// Methods are how names are proven, by name.
	Methods map[string]string
	// Asked is when the authority was last asked; zero: never. Looks and Failures
	// count looks that found names that do not lead here yet, and what the authority
	// refused.
	Asked           time.Time
	Looks, Failures int
}

// begin writes the record of a certificate that was just requested. The local
// authority issues it at once.
func (s *Service) begin(ctx context.Context, c *record, now time.Time) error {
	if c.Request.ACME {
		i, err := newIssue(c.Request, now)
		if err != nil {
			return err
		}
		c.Request.Issue = i
		defer s.wake()
	} else {
		issued, err := s.sign(c.Request)
		if err != nil {
			return err
		}
		issued.apply(c, now)
	}
	if _, err := s.certificates.Put(ctx, c.ARN, *c); err != nil {
		return err
	}
	return s.publish(ctx, c)
}

func newIssue(r *request, now time.Time) (*issue, error) {
	key, err := newKey(r.Algorithm)
	if err != nil {
		return nil, err
	}
	text, err := keyPEM(key)
	return &issue{Began: now, Next: now, Key: text}, err
}

// wake has issueAll look again.
func (s *Service) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
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

// issueAll sees to certificates that are being issued, or to be renewed, until ctx
// ends: a few at a time, and each once at a time.
func (s *Service) issueAll(ctx context.Context) {
	for ctx.Err() == nil {
		next := s.issueDue(ctx)
		select {
		case <-ctx.Done():
		case <-s.woken:
		case <-time.After(min(next, lookEvery)):
		}
	}
}

// issueDue begins what is due, and tells how long nothing else is. Whoever is done
// wakes issueAll.
func (s *Service) issueDue(ctx context.Context) time.Duration {
	now, next, running := s.opts.Now(), lookEvery, 0
	s.busy.Range(func(any, any) bool { running++; return true })
	for item := range s.certificates.Scan("", "") {
		c := item.Value
		at, ok := s.due(&c, now)
		if !ok {
			continue
		}
		if wait := at.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		if running >= maxIssues {
			break
		}
		if _, busy := s.busy.LoadOrStore(c.ARN, true); busy {
			continue
		}
		running++
		s.issuer.Go(func() {
			defer s.wake()
			defer s.busy.Delete(c.ARN)
			err := s.advance(ctx, &c)
			if errors.Is(err, state.ErrNotFound) { // deleted meanwhile
				err = s.withdraw(ctx, c.ARN)
			}
			if err != nil && ctx.Err() == nil {
				s.opts.Logger.Error("a certificate could not be worked on", "certificate", c.ARN, "error", err)
				select {
				case <-ctx.Done():
				case <-time.After(lookEvery): // when it is next would not have been written
				}
			}
		})
	}
	return next
}

// due tells when a certificate is to be worked on; false: not by now. As on AWS one
// that nothing shows is not renewed.
func (s *Service) due(c *record, now time.Time) (time.Time, bool) {
	r := c.Request
	switch {
	case r == nil, r.ACME && s.opts.ACME == nil:
		return time.Time{}, false
	case r.Issue != nil:
		return r.Issue.Next, true
	case c.Certificate == "", now.After(r.Renew) && len(s.users(c.ARN)) == 0:
		return time.Time{}, false
	}
	return r.Renew, true
}

// advance takes a certificate a step further.
func (s *Service) advance(ctx context.Context, c *record) error {
	if c.Request.ACME {
		return s.advanceOrder(ctx, c)
	}
	issued, err := s.sign(c.Request)
	if err != nil {
		return err
	}
	return s.store(ctx, c.ARN, issued)
}

// store keeps a certificate that has been issued, and shows it at edge locations.
func (s *Service) store(ctx context.Context, arn string, i *issued) error {
	now := s.opts.Now().UTC()
	item, err := s.certificates.Modify(ctx, arn, func(c *record) error { i.apply(c, now); return nil })
	if err != nil {
		return err
	}
	return errors.Join(s.publish(ctx, &item.Value), s.withdraw(ctx, arn))
}
