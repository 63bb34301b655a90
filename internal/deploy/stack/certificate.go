package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acm/types"
)

// certificatePatience is how long an authority may take to issue a certificate. The
// names must lead to Lapwing by then, unless its own authority issues it.
const certificatePatience = 30 * time.Minute

// certificateKinds are what distributions show to viewers.
var certificateKinds = map[string]kind{
	"AWS::CertificateManager::Certificate": {
		properties: "DomainName!* SubjectAlternativeNames! DomainValidationOptions! ValidationMethod! KeyAlgorithm! Tags", limit: 64,
		check: func(c *call) error { _, err := certificateRequest(c); return err },
		create: func(ctx context.Context, c *call) error {
			in, err := certificateRequest(c)
			if err != nil {
				return err
			}
			// The same token makes the same certificate, for an hour.
			sum := sha256.Sum256([]byte(c.id))
			in.IdempotencyToken = aws.String(hex.EncodeToString(sum[:16]))
			out, err := c.ACM.RequestCertificate(ctx, in)
			if err != nil {
				return err
			}
			c.id, c.made = aws.ToString(out.CertificateArn), true
			w := acm.NewCertificateValidatedWaiter(c.ACM, func(o *acm.CertificateValidatedWaiterOptions) {
				o.MinDelay, o.MaxDelay = 50*time.Millisecond, 5*time.Second
			})
			return w.Wait(ctx, &acm.DescribeCertificateInput{CertificateArn: &c.id}, certificatePatience)
		},
		update: func(ctx context.Context, c *call) error { // all others make another certificate
			wanted, err := certificateTags(c.props["Tags"])
			if err != nil {
				return err
			}
			old, err := certificateTags(c.old["Tags"])
			if err != nil {
				return err
			}
			gone := slices.DeleteFunc(old, func(t types.Tag) bool {
				return slices.ContainsFunc(wanted, func(w types.Tag) bool { return *w.Key == *t.Key })
			})
			if len(gone) > 0 {
				if _, err := c.ACM.RemoveTagsFromCertificate(ctx, &acm.RemoveTagsFromCertificateInput{CertificateArn: &c.id, Tags: gone}); err != nil {
					return err
				}
			}
			if len(wanted) == 0 {
				return nil
			}
			_, err = c.ACM.AddTagsToCertificate(ctx, &acm.AddTagsToCertificateInput{CertificateArn: &c.id, Tags: wanted})
			return err
		},
		remove: func(ctx context.Context, c *call) error {
			_, err := c.ACM.DeleteCertificate(ctx, &acm.DeleteCertificateInput{CertificateArn: &c.id})
			return err
		},
		read: func(_ context.Context, c *call) (map[string]string, error) {
			return map[string]string{"": c.id}, nil
		},
	},
}

// certificateRequest makes the API's form of a template's certificate.
func certificateRequest(c *call) (*acm.RequestCertificateInput, error) {
	in := &acm.RequestCertificateInput{}
	if err := bind(c.only("DomainName", "SubjectAlternativeNames", "ValidationMethod", "KeyAlgorithm"), in); err != nil {
		return nil, err
	}
	if in.ValidationMethod == "" {
		in.ValidationMethod = types.ValidationMethodDns
	}
	// HostedZoneId has CloudFormation set the record in Route 53, which is not here:
	// the names are checked, and the record is for their owner.
	var options []struct{ DomainName, HostedZoneId, ValidationDomain *string }
	if err := bind(c.props["DomainValidationOptions"], &options); err != nil {
		return nil, within("DomainValidationOptions", err)
	}
	for _, o := range options {
		if o.DomainName != nil {
			in.DomainValidationOptions = append(in.DomainValidationOptions, types.DomainValidationOption{DomainName: o.DomainName, ValidationDomain: o.DomainName})
		}
	}
	var err error
	in.Tags, err = certificateTags(c.props["Tags"])
	return in, err
}

func certificateTags(v any) (tags []types.Tag, err error) {
	m, err := tagMap(v)
	for key, value := range m {
		tags = append(tags, types.Tag{Key: &key, Value: &value})
	}
	slices.SortFunc(tags, func(a, b types.Tag) int { return strings.Compare(*a.Key, *b.Key) })
	return tags, err
}
