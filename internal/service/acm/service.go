// Package acm is the part of the Certificate Manager API that distributions need:
// certificates are imported or requested, described, tagged and deleted. What edge
// locations show to viewers is a copy of each in the collection of package
// distribution: the API's record is durable first, and the copies are made anew at
// the start.
//
// Who issues requested certificates is the authority of this installation. They
// are renewed in time for as long as distributions show them.
//
// Facts on the API are from its model, version 2015-12-08, and the ACM user guide.
package acm

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"lapwing.dev/lapwing/internal/acme"
	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/acm"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/state"
)

// format is the version of the records. With 2 some are requested.
const format = 2

// Quotas (ACM user guide).
const (
	maxCertificates = 2500
	maxTags         = 50
)

// Local is a certificate authority of this installation.
type Local interface {
	Sign(template *x509.Certificate, public crypto.PublicKey) (der []byte, err error)
	Certificate() *x509.Certificate
}

// ACME is an authority elsewhere that issues certificates after proof.
type ACME interface {
	Order(ctx context.Context, names []string) (order string, err error)
	Finish(ctx context.Context, order string, names []string, key crypto.Signer, p acme.Proof) (acme.Issued, error)
	// Look tells by which method a name could be proven now; empty: by none.
	Look(ctx context.Context, name, probe string) (method string)
}

// Locations tells what every edge location serves.
type Locations interface{ Applied() distribution.Revisions }

// Options configures a Service. All fields above the blank line are required.
type Options struct {
	Store     *state.Store
	Records   *distribution.Records
	AccountID string
	Region    string
	Local     Local
	Locations Locations
	Logger    *slog.Logger

	// ACME issues the certificates that are requested; nil: Local does.
	ACME ACME
	// Zone is one that Lapwing's DNS answers for; empty: there is none.
	Zone string
	// Now tells the time; time.Now when nil.
	Now func() time.Time
}

// Service is the behaviour of the ACM API; it implements api.API.
type Service struct {
	opts         Options
	certificates *state.Collection[record] // by ARN
	edge         *distribution.Records

	writing sync.Mutex // held by whatever the API changes

	stop   context.CancelFunc
	issuer sync.WaitGroup // and those that it has started
	woken  chan struct{}
	busy   sync.Map // of ARNs that are being worked on
}

// record is a certificate as it is kept. Key is a secret: no log has it.
type record struct {
	Format   int
	ARN      string
	Created  time.Time
	Imported time.Time // or issued
	// Certificate is PEM, one; empty for one that was requested and is not issued.
	Certificate string
	Chain       string // PEM, of the issuers; empty: self-signed
	Key         string // PEM
	Tags        map[string]string
	Request     *request // nil: it was imported
}

// New opens the service.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Service{opts: o, edge: o.Records, woken: make(chan struct{}, 1)}
	var err error
	if s.certificates, err = state.Collect[record](ctx, o.Store, "acm-certificates"); err != nil {
		return nil, fmt.Errorf("acm: %w", err)
	}
	for c := range s.certificates.Scan("", "") {
		if c.Value.Format > format {
			return nil, fmt.Errorf("acm: the certificate %s has format %d, which is newer than this program", c.Key, c.Value.Format)
		}
		if r := c.Value.Request; r != nil && r.ACME && o.ACME == nil {
			o.Logger.Warn("a certificate is neither issued nor renewed: it was requested of an ACME authority, and there is none now", "certificate", c.Key)
		}
		if err := s.publish(ctx, &c.Value); err != nil {
			return nil, fmt.Errorf("acm: %w", err)
		}
	}
	for c := range s.edge.Certificates.Scan("", "") {
		if _, ok := s.certificates.Get(c.Key); !ok {
			if err := s.edge.Certificates.Delete(ctx, c.Key, c.Revision); err != nil {
				return nil, fmt.Errorf("acm: %w", err)
			}
		}
	}
	for c := range s.edge.Challenges.Scan("", "") {
		if r, ok := s.certificates.Get(c.Key); !ok || r.Value.Request == nil || r.Value.Request.Issue == nil {
			if err := s.edge.Challenges.Delete(ctx, c.Key, c.Revision); err != nil {
				return nil, fmt.Errorf("acm: %w", err)
			}
		}
	}
	ctx, s.stop = context.WithCancel(context.Background())
	s.issuer.Go(func() { s.issueAll(ctx) })
	return s, nil
}

// Close ends what the service does in the background. What is under way goes on
// with the next start.
func (s *Service) Close() {
	s.stop()
	s.issuer.Wait()
}

// publish gives edge locations their copy of a certificate, if it is issued.
func (s *Service) publish(ctx context.Context, c *record) error {
	if c.Certificate == "" {
		return nil
	}
	leaf, err := parseCertificate(c.Certificate)
	if err != nil {
		return err
	}
	copied := distribution.CertificateRecord{Format: distribution.Format, ARN: c.ARN, Names: names(leaf), Chain: joinPEM(c.Certificate, c.Chain), Key: c.Key}
	now, ok := s.edge.Certificates.Get(c.ARN)
	if ok && now.Value.Chain == copied.Chain && now.Value.Key == copied.Key && slices.Equal(now.Value.Names, copied.Names) {
		return nil
	}
	_, err = s.edge.Certificates.Put(ctx, c.ARN, copied)
	return err
}

func joinPEM(a, b string) string {
	if a = strings.TrimRight(a, "\r\n") + "\n"; b == "" {
		return a
	}
	return a + b
}

// get returns a certificate by its ARN.
func (s *Service) get(arn *string) (record, error) {
	c, ok := s.certificates.Get(*arn)
	if !ok {
		return record{}, api.NewResourceNotFoundException("Could not find certificate %s.", *arn)
	}
	return c.Value, nil
}

// users returns the ARNs of the distributions that show a certificate.
func (s *Service) users(arn string) []string {
	out := []string{}
	for d := range s.edge.Distributions.Scan("", "") {
		if d.Value.Certificate.ARN == arn {
			out = append(out, d.Value.ARN)
		}
	}
	return out
}

// ImportCertificate implements api.API. With an ARN it replaces what is there,
// and edge locations show the new one.
func (s *Service) ImportCertificate(ctx context.Context, in *api.ImportCertificateInput) (*api.ImportCertificateOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	now := s.opts.Now().UTC()
	if err := checkImport(string(in.Certificate), string(in.CertificateChain), string(in.PrivateKey), now); err != nil {
		return nil, err
	}
	var c record
	if in.CertificateArn != nil {
		if len(in.Tags) > 0 {
			return nil, api.NewInvalidParameterException("Tags cannot be given when a certificate is imported again.")
		}
		var err error
		if c, err = s.get(in.CertificateArn); err != nil {
			return nil, err
		}
		if c.Request != nil {
			return nil, api.NewValidationException("Certificate %s was requested: only an imported certificate can be imported again.", c.ARN)
		}
	} else {
		var err error
		if c, err = s.newRecord(in.Tags, now); err != nil {
			return nil, err
		}
	}
	c.Format, c.Imported = format, now
	c.Certificate, c.Chain, c.Key = string(in.Certificate), string(in.CertificateChain), string(in.PrivateKey)
	if _, err := s.certificates.Put(ctx, c.ARN, c); err != nil {
		return nil, err
	}
	return &api.ImportCertificateOutput{CertificateArn: &c.ARN}, s.publish(ctx, &c)
}

// newRecord returns the record of a certificate to be, with its ARN.
func (s *Service) newRecord(tags []*api.Tag, now time.Time) (record, error) {
	if s.certificates.Len() >= maxCertificates {
		return record{}, api.NewLimitExceededException("The maximum number of %d certificates is reached.", maxCertificates)
	}
	all, err := addTags(nil, tags)
	if err != nil {
		return record{}, err
	}
	arn := fmt.Sprintf("arn:aws:acm:%s:%s:certificate/%s", s.opts.Region, s.opts.AccountID, uuid.NewString())
	return record{Format: format, ARN: arn, Created: now, Tags: all}, nil
}

// GetCertificate implements api.API.
func (s *Service) GetCertificate(_ context.Context, in *api.GetCertificateInput) (*api.GetCertificateOutput, error) {
	c, err := s.get(in.CertificateArn)
	if err != nil {
		return nil, err
	}
	if c.Certificate == "" {
		return nil, api.NewRequestInProgressException("Certificate %s is not issued: its status is %s.", c.ARN, c.Request.Status)
	}
	out := &api.GetCertificateOutput{Certificate: &c.Certificate}
	if c.Chain != "" {
		out.CertificateChain = &c.Chain
	}
	return out, nil
}

// DeleteCertificate implements api.API.
func (s *Service) DeleteCertificate(ctx context.Context, in *api.DeleteCertificateInput) (*api.DeleteCertificateOutput, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	c, ok := s.certificates.Get(*in.CertificateArn)
	if !ok {
		_, err := s.get(in.CertificateArn)
		return nil, err
	}
	if len(s.users(c.Key)) > 0 {
		return nil, api.NewResourceInUseException("Certificate %s in account %s is in use.", c.Key, s.opts.AccountID)
	}
	if err := s.certificates.Delete(ctx, c.Key, c.Revision); err != nil {
		return nil, err
	}
	var errs []error
	if shown, ok := s.edge.Certificates.Get(c.Key); ok {
		errs = append(errs, s.edge.Certificates.Delete(ctx, c.Key, shown.Revision))
	}
	errs = append(errs, s.withdraw(ctx, c.Key))
	return &api.DeleteCertificateOutput{}, errors.Join(errs...)
}

// addTags returns tags with others added.
func addTags(tags map[string]string, add []*api.Tag) (map[string]string, error) {
	out := maps.Clone(tags)
	for _, t := range add {
		if strings.HasPrefix(strings.ToLower(*t.Key), "aws:") {
			return nil, api.NewInvalidTagException("aws: prefixed tag key names are not allowed for external use: %s", *t.Key)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[*t.Key] = aws.Value(t.Value)
	}
	if len(out) > maxTags {
		return nil, api.NewTooManyTagsException("A certificate can have at most %d tags.", maxTags)
	}
	return out, nil
}

func (s *Service) retag(ctx context.Context, arn *string, change func(map[string]string) (map[string]string, error)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	c, err := s.get(arn)
	if err != nil {
		return err
	}
	if c.Tags, err = change(c.Tags); err != nil {
		return err
	}
	_, err = s.certificates.Put(ctx, c.ARN, c)
	return err
}

// AddTagsToCertificate implements api.API.
func (s *Service) AddTagsToCertificate(ctx context.Context, in *api.AddTagsToCertificateInput) (*api.AddTagsToCertificateOutput, error) {
	return &api.AddTagsToCertificateOutput{}, s.retag(ctx, in.CertificateArn, func(tags map[string]string) (map[string]string, error) { return addTags(tags, in.Tags) })
}

// RemoveTagsFromCertificate implements api.API. A tag that is named with a value
// goes only if it has that value.
func (s *Service) RemoveTagsFromCertificate(ctx context.Context, in *api.RemoveTagsFromCertificateInput) (*api.RemoveTagsFromCertificateOutput, error) {
	return &api.RemoveTagsFromCertificateOutput{}, s.retag(ctx, in.CertificateArn, func(tags map[string]string) (map[string]string, error) {
		out := maps.Clone(tags)
		for _, t := range in.Tags {
			if value, ok := out[*t.Key]; ok && (t.Value == nil || *t.Value == value) {
				delete(out, *t.Key)
			}
		}
		return out, nil
	})
}

// ListTagsForCertificate implements api.API.
func (s *Service) ListTagsForCertificate(_ context.Context, in *api.ListTagsForCertificateInput) (*api.ListTagsForCertificateOutput, error) {
	c, err := s.get(in.CertificateArn)
	if err != nil {
		return nil, err
	}
	out := &api.ListTagsForCertificateOutput{Tags: []*api.Tag{}}
	for _, key := range slices.Sorted(maps.Keys(c.Tags)) {
		out.Tags = append(out.Tags, &api.Tag{Key: aws.Ptr(key), Value: aws.Ptr(c.Tags[key])})
	}
	return out, nil
}
