package acm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/acm"
)

const (
	// maxNames bounds the names of a certificate, as the API does.
	maxNames = 100
	// tokenLife is how long an idempotency token is known (RequestCertificate).
	tokenLife = time.Hour
)

// domainNames is what names of certificates look like, as DomainNameString of the
// API's model, in lower case: two labels at least, and a star as the first only.
var domainNames = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9][a-z0-9-]{0,61}[a-z0-9]$`)

// request is what a certificate was requested with, and how far its issue is.
type request struct {
	Names     []string // lower case; the domain name first
	Algorithm api.KeyAlgorithm
	Token     string
	ACME      bool // issued by the ACME authority, not by the local one
	// Status is that of a certificate that has not been issued; empty once it was.
	Status  api.CertificateStatus
	Failure api.FailureReason
	// Issue is the one under way, the first or a renewal; nil: none.
	Issue *issue
	// Renew is when the certificate is to be renewed.
	Renew time.Time
	// Renewal is what came of the last renewal; nil: there was none.
	Renewal *renewal
}

// renewal is what is known of a renewal.
type renewal struct {
	Status api.RenewalStatus
	Reason api.FailureReason
	At     time.Time
}

// RequestCertificate implements api.API. Without a validation method it is by DNS
// here: Lapwing sends no mail.
func (s *Service) RequestCertificate(ctx context.Context, in *api.RequestCertificateInput) (*api.RequestCertificateOutput, error) {
	r, err := s.checkRequest(in)
	if err != nil {
		return nil, err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	now := s.opts.Now().UTC()
	if known := s.requested(r, now); known != "" {
		return &api.RequestCertificateOutput{CertificateArn: &known}, nil
	}
	c, err := s.newRecord(in.Tags, now)
	if err != nil {
		return nil, err
	}
	c.Request = r
	if err := s.begin(ctx, &c, now); err != nil {
		return nil, err
	}
	return &api.RequestCertificateOutput{CertificateArn: &c.ARN}, nil
}

// checkRequest says what is wrong with a request, or returns what it is for.
func (s *Service) checkRequest(in *api.RequestCertificateInput) (*request, error) {
	switch {
	case in.ValidationMethod == api.ValidationMethodEmail:
		return nil, api.NewInvalidParameterException("Lapwing sends no mail: the validation method EMAIL is not supported. Use DNS.")
	case in.ValidationMethod == api.ValidationMethodHttp, in.ManagedBy != "":
		return nil, api.NewInvalidParameterException("Certificates that CloudFront manages (ManagedBy, and the validation method HTTP) are not supported by Lapwing. Use the validation method DNS.")
	case in.CertificateAuthorityArn != nil:
		return nil, api.NewInvalidParameterException("Private certificate authorities (CertificateAuthorityArn) are not supported by Lapwing.")
	case in.Options != nil && in.Options.Export == api.CertificateExportEnabled:
		return nil, api.NewInvalidParameterException("The option Export is not supported by Lapwing.")
	case in.Options != nil && in.Options.CertificateTransparencyLoggingPreference == api.CertificateTransparencyLoggingPreferenceDisabled:
		return nil, api.NewInvalidParameterException("Certificate transparency logging opt-out is no longer available.")
	}
	r := &request{ACME: s.opts.ACME != nil, Algorithm: in.KeyAlgorithm, Token: aws.Value(in.IdempotencyToken), Status: api.CertificateStatusPendingValidation}
	switch r.Algorithm {
	case "":
		r.Algorithm = api.KeyAlgorithmRsa2048
	case api.KeyAlgorithmRsa2048, api.KeyAlgorithmECPrime256v1, api.KeyAlgorithmECSecp384r1:
	default:
		return nil, api.NewInvalidParameterException("The key algorithm %s is for imported certificates only: request RSA_2048, EC_prime256v1 or EC_secp384r1.", r.Algorithm)
	}
	for _, name := range append([]string{*in.DomainName}, in.SubjectAlternativeNames...) {
		if name = strings.ToLower(name); len(name) > 253 || !domainNames.MatchString(name) {
			return nil, api.NewValidationException("%q is not a domain name that a certificate can be requested for: at least two labels of letters, digits and hyphens, and a star only as the first.", name)
		}
		if !slices.Contains(r.Names, name) {
			r.Names = append(r.Names, name)
		}
	}
	if len(r.Names) > maxNames {
		return nil, api.NewLimitExceededException("A certificate can have at most %d names.", maxNames)
	}
	if r.ACME && s.opts.Zone == "" && slices.ContainsFunc(r.Names, func(n string) bool { return n[0] == '*' }) {
		return nil, api.NewInvalidParameterException("An authority certifies names with a star after proof by DNS only, for which this Lapwing needs a DNS server of its own: start it with --edge-dns.")
	}
	for _, o := range in.DomainValidationOptions {
		if !slices.Contains(r.Names, strings.ToLower(*o.DomainName)) {
			return nil, api.NewInvalidDomainValidationOptionsException("The domain %s is not one of the request.", *o.DomainName)
		}
	}
	return r, nil
}

// requested returns the ARN of the certificate that was requested by the same
// call, as its idempotency token says; empty: none.
func (s *Service) requested(r *request, now time.Time) string {
	if r.Token == "" {
		return ""
	}
	for item := range s.certificates.Scan("", "") {
		old := item.Value.Request
		if old != nil && old.Token == r.Token && old.Algorithm == r.Algorithm && slices.Equal(old.Names, r.Names) && now.Sub(item.Value.Created) < tokenLife {
			return item.Key
		}
	}
	return ""
}

// validations are the API's words on the names of a request.
func (s *Service) validations(r *request, status api.DomainStatus) []*api.DomainValidation {
	var all []*api.DomainValidation
	for _, name := range r.Names {
		base := strings.TrimPrefix(name, "*.")
		all = append(all, &api.DomainValidation{
			DomainName: &name, ValidationDomain: &name, ValidationStatus: status, ValidationMethod: api.ValidationMethodDns,
			ResourceRecord: &api.ResourceRecord{
				Name: aws.Ptr(challengeName(base) + "."), Type: api.RecordTypeCname, Value: aws.Ptr(s.delegated(base) + "."),
			},
		})
	}
	return all
}

// challengeName is where authorities look for proof by DNS (RFC 8555, 8.4).
func challengeName(base string) string { return "_acme-challenge." + base }

// delegated is the name that the record of a name's proof by DNS leads to. It is
// the same for every certificate with the name, so that its owner sets the record
// once. Without Lapwing's DNS nobody looks for it, but clients wait for it to be
// told.
func (s *Service) delegated(base string) string {
	sum := sha256.Sum256([]byte(s.opts.AccountID + " " + base))
	return "_" + hex.EncodeToString(sum[:16]) + "." + cmp.Or(s.opts.Zone, "acm-validations.aws")
}
