package acm_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acm/types"
	"lapwing.dev/lapwing/test/servicetest"
)

func TestTheLocalAuthorityIssuesWhatIsRequestedAtOnce(t *testing.T) {
	c, records := connect(t)
	ctx := t.Context()
	for _, algorithm := range []types.KeyAlgorithm{"", types.KeyAlgorithmRsa2048, types.KeyAlgorithmEcPrime256v1, types.KeyAlgorithmEcSecp384r1} {
		in := &sdk.RequestCertificateInput{
			DomainName: sdkaws.String("Shop.example.net"), SubjectAlternativeNames: []string{"*.shop.example.net", "shop.example.net"},
			ValidationMethod: types.ValidationMethodDns, KeyAlgorithm: algorithm, IdempotencyToken: sdkaws.String("once"),
			Tags: []types.Tag{{Key: sdkaws.String("team"), Value: sdkaws.String("web")}},
		}
		made, err := c.RequestCertificate(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		arn := *made.CertificateArn
		d, err := c.DescribeCertificate(ctx, &sdk.DescribeCertificateInput{CertificateArn: &arn})
		if err != nil {
			t.Fatal(err)
		}
		v := d.Certificate
		if algorithm == "" {
			algorithm = types.KeyAlgorithmRsa2048
		}
		if v.Status != types.CertificateStatusIssued || v.Type != types.CertificateTypeAmazonIssued || v.KeyAlgorithm != algorithm || v.IssuedAt == nil || v.ImportedAt != nil ||
			*v.DomainName != "shop.example.net" || len(v.SubjectAlternativeNames) != 2 || v.RenewalEligibility != types.RenewalEligibilityIneligible {
			t.Errorf("described %+v", v)
		}
		if o := v.DomainValidationOptions; len(o) != 2 || o[0].ValidationStatus != types.DomainStatusSuccess || *o[0].ResourceRecord.Name != "_acme-challenge.shop.example.net." || *o[1].ResourceRecord.Value != *o[0].ResourceRecord.Value {
			t.Errorf("validated by %+v", o)
		}
		shown, ok := records.Certificates.Get(arn)
		if !ok {
			t.Fatal("edge locations do not have the certificate")
		}
		pair, err := tls.X509KeyPair([]byte(shown.Value.Chain), []byte(shown.Value.Key))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		got, err := c.GetCertificate(ctx, &sdk.GetCertificateInput{CertificateArn: &arn})
		if err != nil || !roots.AppendCertsFromPEM([]byte(*got.CertificateChain)) {
			t.Fatalf("got %+v, %v", got, err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "a.shop.example.net"}); err != nil {
			t.Error(err)
		}
		again, err := c.RequestCertificate(ctx, in)
		if err != nil || *again.CertificateArn != arn {
			t.Errorf("the same request again: %v, %v, want %s", again, err, arn)
		}
		_, err = c.ImportCertificate(ctx, &sdk.ImportCertificateInput{CertificateArn: &arn, Certificate: []byte(shown.Value.Chain), PrivateKey: []byte(shown.Value.Key)})
		servicetest.WantCode(t, err, "ValidationException")
	}
	if list, err := c.ListCertificates(ctx, &sdk.ListCertificatesInput{}); err != nil || len(list.CertificateSummaryList) != 1 {
		t.Errorf("listed %+v, %v: want one with an RSA key", list, err)
	}
}

func TestRequestsThatCannotBeMetAreRefused(t *testing.T) {
	c, records := connect(t)
	for name, test := range map[string]struct {
		in   sdk.RequestCertificateInput
		want string
	}{
		"mail":             {sdk.RequestCertificateInput{ValidationMethod: types.ValidationMethodEmail}, "InvalidParameterException"},
		"CloudFront's":     {sdk.RequestCertificateInput{ValidationMethod: types.ValidationMethodHttp, ManagedBy: types.CertificateManagedByCloudfront}, "InvalidParameterException"},
		"private CA":       {sdk.RequestCertificateInput{CertificateAuthorityArn: sdkaws.String("arn:aws:acm-pca:us-east-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555")}, "InvalidParameterException"},
		"export":           {sdk.RequestCertificateInput{Options: &types.CertificateOptions{Export: types.CertificateExportEnabled}}, "InvalidParameterException"},
		"large key":        {sdk.RequestCertificateInput{KeyAlgorithm: types.KeyAlgorithmRsa4096}, "InvalidParameterException"},
		"star in between":  {sdk.RequestCertificateInput{SubjectAlternativeNames: []string{"a.*.example.net"}}, "ValidationException"},
		"no domain at all": {sdk.RequestCertificateInput{SubjectAlternativeNames: []string{"localhost"}}, "ValidationException"},
		"another's option": {sdk.RequestCertificateInput{DomainValidationOptions: []types.DomainValidationOption{{DomainName: sdkaws.String("b.example.net"), ValidationDomain: sdkaws.String("example.net")}}}, "InvalidDomainValidationOptionsException"},
	} {
		t.Run(name, func(t *testing.T) {
			in := test.in
			in.DomainName = sdkaws.String("a.example.net")
			_, err := c.RequestCertificate(t.Context(), &in)
			servicetest.WantCode(t, err, test.want)
		})
	}
	if records.Certificates.Len() != 0 {
		t.Error("something was issued")
	}
}
