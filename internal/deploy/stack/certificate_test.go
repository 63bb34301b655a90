package stack

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/acm/types"
)

func TestCertificateBecomesTheAPIsRequest(t *testing.T) {
	in, err := certificateRequest(&call{props: fromYAML(t, `
DomainName: shop.example.net
SubjectAlternativeNames: ["*.shop.example.net"]
KeyAlgorithm: EC_prime256v1
DomainValidationOptions: [{DomainName: shop.example.net, HostedZoneId: Z1}]
Tags: [{Key: b, Value: "2"}, {Key: a, Value: "1"}]
`)})
	if err != nil {
		t.Fatal(err)
	}
	if *in.DomainName != "shop.example.net" || len(in.SubjectAlternativeNames) != 1 || in.KeyAlgorithm != types.KeyAlgorithmEcPrime256v1 || in.ValidationMethod != types.ValidationMethodDns ||
		len(in.DomainValidationOptions) != 1 || len(in.Tags) != 2 || *in.Tags[0].Key != "a" {
		t.Errorf("requested %+v", in)
	}
	if _, err := certificateRequest(&call{props: fromYAML(t, `{DomainName: shop.example.net, SubjectAlternativeNames: {a: b}}`)}); err == nil {
		t.Error("names that are no list are taken")
	}
}
