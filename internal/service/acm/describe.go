package acm

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/acm"
)

// The names that ACM has for what a key may be used for.
var keyUsages = []struct {
	bit  x509.KeyUsage
	name api.KeyUsageName
}{
	{x509.KeyUsageDigitalSignature, api.KeyUsageNameDigitalSignature},
	{x509.KeyUsageContentCommitment, api.KeyUsageNameNonRepudiation},
	{x509.KeyUsageKeyEncipherment, api.KeyUsageNameKeyEncipherment},
	{x509.KeyUsageDataEncipherment, api.KeyUsageNameDataEncipherment},
	{x509.KeyUsageKeyAgreement, api.KeyUsageNameKeyAgreement},
	{x509.KeyUsageCertSign, api.KeyUsageNameCertificateSigning},
	{x509.KeyUsageCRLSign, api.KeyUsageNameCrlSigning},
}

var extendedKeyUsages = map[x509.ExtKeyUsage]struct {
	name api.ExtendedKeyUsageName
	oid  string
}{
	x509.ExtKeyUsageServerAuth: {api.ExtendedKeyUsageNameTlsWebServerAuthentication, "1.3.6.1.5.5.7.3.1"},
	x509.ExtKeyUsageClientAuth: {api.ExtendedKeyUsageNameTlsWebClientAuthentication, "1.3.6.1.5.5.7.3.2"},
	x509.ExtKeyUsageAny:        {api.ExtendedKeyUsageNameAny, "2.5.29.37.0"},
}

func status(c *x509.Certificate, now time.Time) api.CertificateStatus {
	if now.After(c.NotAfter) {
		return api.CertificateStatusExpired
	}
	return api.CertificateStatusIssued
}

// domainName is the name that a certificate is known by.
func domainName(c *x509.Certificate) *string {
	n := names(c)
	if c.Subject.CommonName != "" || len(n) == 0 {
		return &c.Subject.CommonName
	}
	return &n[0]
}

// serial writes a serial number in the form of OpenSSL.
func serial(c *x509.Certificate) *string {
	digits := hex.EncodeToString(c.SerialNumber.Bytes())
	var pairs []string
	for i := 0; i < len(digits); i += 2 {
		pairs = append(pairs, digits[i:i+2])
	}
	return aws.Ptr(strings.Join(pairs, ":"))
}

// signature names the algorithm of the signature, e.g. SHA256WITHRSA.
func signature(c *x509.Certificate) *string {
	a, b, _ := strings.Cut(c.SignatureAlgorithm.String(), "-")
	if a == "ECDSA" {
		a, b = b, a
	}
	return aws.Ptr(a + "WITH" + b)
}

// DescribeCertificate implements api.API.
func (s *Service) DescribeCertificate(_ context.Context, in *api.DescribeCertificateInput) (*api.DescribeCertificateOutput, error) {
	r, err := s.get(in.CertificateArn)
	if err != nil {
		return nil, err
	}
	c, err := parseCertificate(r.Certificate)
	if err != nil {
		return nil, err
	}
	d := &api.CertificateDetail{
		CertificateArn: &r.ARN, DomainName: domainName(c), SubjectAlternativeNames: names(c),
		Serial: serial(c), Subject: aws.Ptr(c.Subject.String()), Issuer: aws.Ptr(cmp.Or(c.Issuer.CommonName, c.Issuer.String())),
		CreatedAt: &r.Created, ImportedAt: &r.Imported, Status: status(c, s.opts.Now()), NotBefore: &c.NotBefore, NotAfter: &c.NotAfter,
		KeyAlgorithm: algorithm(c.PublicKey), SignatureAlgorithm: signature(c),
		InUseBy: s.users(r.ARN), Type: api.CertificateTypeImported, RenewalEligibility: api.RenewalEligibilityIneligible,
		KeyUsages: []*api.KeyUsage{}, ExtendedKeyUsages: []*api.ExtendedKeyUsage{},
		Options: &api.CertificateOptions{CertificateTransparencyLoggingPreference: api.CertificateTransparencyLoggingPreferenceDisabled},
	}
	for _, u := range keyUsages {
		if c.KeyUsage&u.bit != 0 {
			d.KeyUsages = append(d.KeyUsages, &api.KeyUsage{Name: u.name})
		}
	}
	for _, u := range c.ExtKeyUsage {
		if e, ok := extendedKeyUsages[u]; ok {
			d.ExtendedKeyUsages = append(d.ExtendedKeyUsages, &api.ExtendedKeyUsage{Name: e.name, OID: aws.Ptr(e.oid)})
		}
	}
	return &api.DescribeCertificateOutput{Certificate: d}, nil
}

// ListCertificates implements api.API. Unless the request names key types,
// certificates with others than RSA keys of 1,024 or 2,048 bits are left out, as
// on AWS.
func (s *Service) ListCertificates(_ context.Context, in *api.ListCertificatesInput) (*api.ListCertificatesOutput, error) {
	types := []api.KeyAlgorithm{api.KeyAlgorithmRsa1024, api.KeyAlgorithmRsa2048}
	if f := in.Includes; f != nil {
		if len(f.ExtendedKeyUsage) > 0 || len(f.KeyUsage) > 0 || f.ExportOption != "" || f.ManagedBy != "" {
			return nil, api.NewInvalidArgsException("The filters extendedKeyUsage, keyUsage, exportOption and managedBy are not supported by Lapwing.")
		}
		if len(f.KeyTypes) > 0 {
			types = f.KeyTypes
		}
	}
	if (in.SortBy == "") != (in.SortOrder == "") {
		return nil, api.NewValidationException("SortBy and SortOrder must be given together.")
	}
	var all []*api.CertificateSummary
	for item := range s.certificates.Scan("", "") {
		c, err := parseCertificate(item.Value.Certificate)
		if err != nil {
			return nil, err
		}
		sum := s.summarise(&item.Value, c)
		if slices.Contains(types, sum.KeyAlgorithm) && (len(in.CertificateStatuses) == 0 || slices.Contains(in.CertificateStatuses, sum.Status)) {
			all = append(all, sum)
		}
	}
	if in.SortBy != "" {
		slices.SortStableFunc(all, func(a, b *api.CertificateSummary) int {
			if in.SortOrder == api.SortOrderDescending {
				a, b = b, a
			}
			return a.CreatedAt.Compare(*b.CreatedAt)
		})
	}
	return page(all, in.NextToken, in.MaxItems)
}

func (s *Service) summarise(r *record, c *x509.Certificate) *api.CertificateSummary {
	sum := &api.CertificateSummary{
		CertificateArn: &r.ARN, DomainName: domainName(c), SubjectAlternativeNameSummaries: names(c), HasAdditionalSubjectAlternativeNames: aws.Ptr(false),
		Status: status(c, s.opts.Now()), Type: api.CertificateTypeImported, KeyAlgorithm: algorithm(c.PublicKey), InUse: aws.Ptr(len(s.users(r.ARN)) > 0),
		RenewalEligibility: api.RenewalEligibilityIneligible, NotBefore: &c.NotBefore, NotAfter: &c.NotAfter, CreatedAt: &r.Created, ImportedAt: &r.Imported,
	}
	for _, u := range keyUsages {
		if c.KeyUsage&u.bit != 0 {
			sum.KeyUsages = append(sum.KeyUsages, u.name)
		}
	}
	for _, u := range c.ExtKeyUsage {
		if e, ok := extendedKeyUsages[u]; ok {
			sum.ExtendedKeyUsages = append(sum.ExtendedKeyUsages, e.name)
		}
	}
	return sum
}

// page returns the part of a list that follows a token: the ARN of its last entry.
func page(all []*api.CertificateSummary, token *string, maxItems *int32) (*api.ListCertificatesOutput, error) {
	if token != nil {
		last, err := base64.RawURLEncoding.DecodeString(*token)
		i := slices.IndexFunc(all, func(c *api.CertificateSummary) bool { return *c.CertificateArn == string(last) })
		if err != nil || i < 0 {
			return nil, api.NewInvalidArgsException("The next token is not valid.")
		}
		all = all[i+1:]
	}
	out := &api.ListCertificatesOutput{CertificateSummaryList: []*api.CertificateSummary{}}
	if n := int(aws.Value(or(maxItems, 1000))); len(all) > n {
		all = all[:n]
		out.NextToken = aws.Ptr(base64.RawURLEncoding.EncodeToString([]byte(*all[n-1].CertificateArn)))
	}
	out.CertificateSummaryList = append(out.CertificateSummaryList, all...)
	return out, nil
}

func or[T any](p *T, otherwise T) *T {
	if p == nil {
		return &otherwise
	}
	return p
}
