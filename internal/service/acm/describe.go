package acm

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"

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

// status is that of a certificate; leaf is nil where none has been issued.
func (s *Service) status(r *record, leaf *x509.Certificate) api.CertificateStatus {
	switch {
	case leaf == nil:
		return r.Request.Status
	case s.opts.Now().After(leaf.NotAfter):
		return api.CertificateStatusExpired
	}
	return api.CertificateStatusIssued
}

// domainName is the name that a certificate is known by.
func domainName(r *record, c *x509.Certificate) *string {
	if r.Request != nil {
		return &r.Request.Names[0]
	}
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

// leaf returns the certificate of a record; nil: it has not been issued.
func leaf(r *record) (*x509.Certificate, error) {
	if r.Certificate == "" {
		return nil, nil
	}
	return parseCertificate(r.Certificate)
}

// DescribeCertificate implements api.API.
func (s *Service) DescribeCertificate(_ context.Context, in *api.DescribeCertificateInput) (*api.DescribeCertificateOutput, error) {
	r, err := s.get(in.CertificateArn)
	if err != nil {
		return nil, err
	}
	c, err := leaf(&r)
	if err != nil {
		return nil, err
	}
	d := &api.CertificateDetail{
		CertificateArn: &r.ARN, DomainName: domainName(&r, c), CreatedAt: &r.Created, Status: s.status(&r, c), InUseBy: s.users(r.ARN),
		KeyUsages: []*api.KeyUsage{}, ExtendedKeyUsages: []*api.ExtendedKeyUsage{}, RenewalEligibility: api.RenewalEligibilityIneligible,
	}
	if r.Request != nil {
		s.describeRequest(d, &r)
	} else {
		d.Type, d.ImportedAt = api.CertificateTypeImported, &r.Imported
		d.Options = &api.CertificateOptions{CertificateTransparencyLoggingPreference: api.CertificateTransparencyLoggingPreferenceDisabled}
	}
	if c != nil {
		describeLeaf(d, c)
	}
	return &api.DescribeCertificateOutput{Certificate: d}, nil
}

// describeRequest adds what only a requested certificate has.
func (s *Service) describeRequest(d *api.CertificateDetail, r *record) {
	q := r.Request
	d.Type, d.SubjectAlternativeNames, d.KeyAlgorithm, d.FailureReason = api.CertificateTypeAmazonIssued, q.Names, q.Algorithm, q.Failure
	d.Options = &api.CertificateOptions{CertificateTransparencyLoggingPreference: api.CertificateTransparencyLoggingPreferenceEnabled}
	validated := api.DomainStatusSuccess
	switch q.Status {
	case api.CertificateStatusPendingValidation:
		validated = api.DomainStatusPendingValidation
	case api.CertificateStatusFailed, api.CertificateStatusValidationTimedOut:
		validated = api.DomainStatusFailed
	}
	d.DomainValidationOptions = s.validations(q, validated)
	if r.Certificate == "" {
		return
	}
	d.IssuedAt = &r.Imported
	if len(d.InUseBy) > 0 {
		d.RenewalEligibility = api.RenewalEligibilityEligible
	}
	if v := q.Renewal; v != nil {
		renewed := map[api.RenewalStatus]api.DomainStatus{
			api.RenewalStatusSuccess: api.DomainStatusSuccess, api.RenewalStatusFailed: api.DomainStatusFailed,
		}[v.Status]
		d.RenewalSummary = &api.RenewalSummary{
			RenewalStatus: v.Status, RenewalStatusReason: v.Reason, UpdatedAt: &v.At,
			DomainValidationOptions: s.validations(q, cmp.Or(renewed, api.DomainStatusPendingValidation)),
		}
	}
}

// describeLeaf adds what the certificate itself says.
func describeLeaf(d *api.CertificateDetail, c *x509.Certificate) {
	d.SubjectAlternativeNames, d.Serial, d.Subject = names(c), serial(c), aws.Ptr(c.Subject.String())
	d.Issuer = aws.Ptr(cmp.Or(c.Issuer.CommonName, c.Issuer.String()))
	d.NotBefore, d.NotAfter, d.KeyAlgorithm, d.SignatureAlgorithm = &c.NotBefore, &c.NotAfter, algorithm(c.PublicKey), signature(c)
	for _, u := range usages(c) {
		d.KeyUsages = append(d.KeyUsages, &api.KeyUsage{Name: u})
	}
	for _, u := range c.ExtKeyUsage {
		if e, ok := extendedKeyUsages[u]; ok {
			d.ExtendedKeyUsages = append(d.ExtendedKeyUsages, &api.ExtendedKeyUsage{Name: e.name, OID: aws.Ptr(e.oid)})
		}
	}
}

func usages(c *x509.Certificate) (names []api.KeyUsageName) {
	for _, u := range keyUsages {
		if c.KeyUsage&u.bit != 0 {
			names = append(names, u.name)
		}
	}
	return names
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
		c, err := leaf(&item.Value)
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
		CertificateArn: &r.ARN, DomainName: domainName(r, c), HasAdditionalSubjectAlternativeNames: aws.Ptr(false), Status: s.status(r, c),
		InUse: aws.Ptr(len(s.users(r.ARN)) > 0), RenewalEligibility: api.RenewalEligibilityIneligible, CreatedAt: &r.Created,
	}
	if q := r.Request; q != nil {
		sum.Type, sum.KeyAlgorithm, sum.SubjectAlternativeNameSummaries = api.CertificateTypeAmazonIssued, q.Algorithm, q.Names
	} else {
		sum.Type, sum.ImportedAt = api.CertificateTypeImported, &r.Imported
	}
	if c == nil {
		return sum
	}
	if r.Request != nil {
		sum.IssuedAt = &r.Imported
		if *sum.InUse {
			sum.RenewalEligibility = api.RenewalEligibilityEligible
		}
	}
	sum.SubjectAlternativeNameSummaries, sum.KeyAlgorithm, sum.NotBefore, sum.NotAfter = names(c), algorithm(c.PublicKey), &c.NotBefore, &c.NotAfter
	sum.KeyUsages = usages(c)
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
