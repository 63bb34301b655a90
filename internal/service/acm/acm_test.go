package acm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acm/types"

	"lapwing.dev/lapwing/internal/authority"
	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/acm"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/gateway"
	"lapwing.dev/lapwing/internal/service/acm"
	"lapwing.dev/lapwing/test/servicetest"
)

// connect starts the service behind the gateway and returns the AWS SDK's client,
// and what edge locations get.
func connect(t *testing.T) (*sdk.Client, *distribution.Records) {
	t.Helper()
	return connectWith(t, func(*acm.Options, string) {})
}

// connectWith is connect with other options, and the directory of the data.
func connectWith(t *testing.T, change func(o *acm.Options, dir string)) (*sdk.Client, *distribution.Records) {
	t.Helper()
	t.Parallel()
	i := servicetest.New(t)
	records, err := distribution.Open(t.Context(), i.Store)
	if err != nil {
		t.Fatal(err)
	}
	local, err := authority.Open(filepath.Join(i.Dir, "tls"), "Test CA")
	if err != nil {
		t.Fatal(err)
	}
	options := acm.Options{
		Store: i.Store, Records: records, AccountID: i.Credentials.AccountID(), Region: "eu-central-1", Local: local, Logger: slog.New(slog.DiscardHandler),
	}
	change(&options, i.Dir)
	service, err := acm.New(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.Close)
	cfg := i.Serve(gateway.Options{Services: []*aws.Service{api.NewService(service)}, Region: "eu-central-1"})
	cfg.Region = "us-east-1"
	return sdk.NewFromConfig(cfg), records
}

// pair is a certificate with its key.
type pair struct {
	parsed           *x509.Certificate
	key              *ecdsa.PrivateKey
	certificate, pem []byte // pem is the key's
}

// issue makes a certificate, by an authority or self-signed.
func issue(t *testing.T, name string, until time.Time, by *pair) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until,
		IsCA: by == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.parsed, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{parsed, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})}
}

func TestLifeOfAnImportedCertificate(t *testing.T) {
	c, records := connect(t)
	ctx := t.Context()
	tomorrow := time.Now().Add(24 * time.Hour)
	ca := issue(t, "Test CA", tomorrow, nil)
	leaf := issue(t, "shop.example.net", tomorrow, ca)
	made, err := c.ImportCertificate(ctx, &sdk.ImportCertificateInput{
		Certificate: leaf.certificate, PrivateKey: leaf.pem, CertificateChain: ca.certificate, Tags: []types.Tag{{Key: sdkaws.String("team"), Value: sdkaws.String("web")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	arn := made.CertificateArn
	shown, ok := records.Certificates.Get(*arn)
	if !ok || shown.Value.Chain != string(leaf.certificate)+string(ca.certificate) || shown.Value.Key != string(leaf.pem) || len(shown.Value.Names) != 1 {
		t.Errorf("edge locations have names %v and %d bytes of chain", shown.Value.Names, len(shown.Value.Chain))
	}
	d, err := c.DescribeCertificate(ctx, &sdk.DescribeCertificateInput{CertificateArn: arn})
	if err != nil || d.Certificate.Status != types.CertificateStatusIssued || *d.Certificate.DomainName != "shop.example.net" || d.Certificate.KeyAlgorithm != types.KeyAlgorithmEcPrime256v1 || *d.Certificate.SignatureAlgorithm != "SHA256WITHECDSA" {
		t.Errorf("described %+v, %v", d.Certificate, err)
	}
	got, err := c.GetCertificate(ctx, &sdk.GetCertificateInput{CertificateArn: arn})
	if err != nil || *got.Certificate != string(leaf.certificate) || *got.CertificateChain != string(ca.certificate) {
		t.Errorf("got %+v, %v", got, err)
	}
	list, err := c.ListCertificates(ctx, &sdk.ListCertificatesInput{Includes: &types.Filters{KeyTypes: []types.KeyAlgorithm{types.KeyAlgorithmEcPrime256v1}}})
	if err != nil || len(list.CertificateSummaryList) != 1 {
		t.Errorf("listed %+v, %v", list, err)
	}
	renewed := issue(t, "shop.example.net", tomorrow, ca)
	if _, err := c.ImportCertificate(ctx, &sdk.ImportCertificateInput{CertificateArn: arn, Certificate: renewed.certificate, PrivateKey: renewed.pem, CertificateChain: ca.certificate}); err != nil {
		t.Fatal(err)
	}
	if again, _ := records.Certificates.Get(*arn); !bytes.HasPrefix([]byte(again.Value.Chain), renewed.certificate) || again.Revision == shown.Revision {
		t.Error("edge locations have the certificate from before")
	}
	if _, err := records.Distributions.Put(ctx, "E1", distribution.Distribution{ID: "E1", ARN: "arn:E1", Certificate: distribution.Certificate{ARN: *arn}}); err != nil {
		t.Fatal(err)
	}
	_, err = c.DeleteCertificate(ctx, &sdk.DeleteCertificateInput{CertificateArn: arn})
	servicetest.WantCode(t, err, "ResourceInUseException")
	item, _ := records.Distributions.Get("E1")
	if err := records.Distributions.Delete(ctx, "E1", item.Revision); err != nil {
		t.Fatal(err)
	}
	_, err = c.DeleteCertificate(ctx, &sdk.DeleteCertificateInput{CertificateArn: arn})
	servicetest.WantCode(t, err, "")
	_, err = c.DescribeCertificate(ctx, &sdk.DescribeCertificateInput{CertificateArn: arn})
	servicetest.WantCode(t, err, "ResourceNotFoundException")
	if records.Certificates.Len() != 0 {
		t.Error("edge locations still have the certificate")
	}
}

func TestWhatIsNoCertificateIsNotImported(t *testing.T) {
	c, records := connect(t)
	tomorrow := time.Now().Add(24 * time.Hour)
	ca, other := issue(t, "Test CA", tomorrow, nil), issue(t, "Other CA", tomorrow, nil)
	leaf, expired := issue(t, "a.example.net", tomorrow, ca), issue(t, "a.example.net", time.Now().Add(-time.Hour), ca)
	for name, in := range map[string]*sdk.ImportCertificateInput{
		"no PEM":               {Certificate: []byte("x"), PrivateKey: leaf.pem},
		"two certificates":     {Certificate: append(bytes.Clone(leaf.certificate), ca.certificate...), PrivateKey: leaf.pem},
		"another key":          {Certificate: leaf.certificate, PrivateKey: ca.pem, CertificateChain: ca.certificate},
		"another issuer":       {Certificate: leaf.certificate, PrivateKey: leaf.pem, CertificateChain: other.certificate},
		"expired":              {Certificate: expired.certificate, PrivateKey: expired.pem, CertificateChain: ca.certificate},
		"no chain":             {Certificate: leaf.certificate, PrivateKey: leaf.pem},
		"key is a certificate": {Certificate: leaf.certificate, PrivateKey: leaf.certificate, CertificateChain: ca.certificate},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.ImportCertificate(t.Context(), in)
			servicetest.WantCode(t, err, "ValidationException")
		})
	}
	if records.Certificates.Len() != 0 {
		t.Error("something was imported")
	}
}
