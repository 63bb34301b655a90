package stack

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// fromYAML reads a property as a template has it.
func fromYAML(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return int64s(v).(map[string]any)
}

// int64s makes numbers what templates have them as.
func int64s(v any) any {
	switch v := v.(type) {
	case int:
		return int64(v)
	case []any:
		for i := range v {
			v[i] = int64s(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = int64s(v[name])
		}
	}
	return v
}

func TestDistributionConfigBecomesTheAPIs(t *testing.T) {
	props := fromYAML(t, `
DistributionConfig:
  Enabled: true
  IPV6Enabled: false
  Aliases: [shop.example.net]
  Origins:
    - Id: site
      DomainName: site.example.net
      OriginCustomHeaders: [{HeaderName: X-A, HeaderValue: b}]
      CustomOriginConfig: {OriginProtocolPolicy: https-only, OriginSSLProtocols: [TLSv1.2]}
  DefaultCacheBehavior:
    TargetOriginId: site
    ViewerProtocolPolicy: allow-all
    AllowedMethods: [GET, HEAD, OPTIONS]
    CachedMethods: [GET, HEAD]
    TrustedKeyGroups: [k1]
    ForwardedValues:
      QueryString: false
      Headers: [Accept-Language]
      Cookies: {Forward: whitelist, WhitelistedNames: [bag]}
    LambdaFunctionAssociations:
      - {EventType: viewer-request, LambdaFunctionARN: arn, IncludeBody: true}
  CacheBehaviors: []
  Restrictions: {GeoRestriction: {RestrictionType: whitelist, Locations: [CH, DE]}}
  ViewerCertificate: {AcmCertificateArn: c, SslSupportMethod: sni-only, MinimumProtocolVersion: TLSv1.2_2021}
  Logging: {Bucket: logs.s3.amazonaws.com}
`)
	config, err := distributionConfig(&call{props: props})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	at := func(path string) any {
		var v any = got
		for name := range strings.SplitSeq(path, ".") {
			switch x := v.(type) {
			case map[string]any:
				v = x[name]
			case []any:
				v = x[0].(map[string]any)[name]
			}
		}
		return v
	}
	list := func(items ...any) []any { return items }
	for path, want := range map[string]any{
		"Comment": "", "IsIPV6Enabled": false, "Aliases.Quantity": 1.0, "Aliases.Items": list("shop.example.net"),
		"Origins.Quantity": 1.0, "Origins.Items.CustomHeaders.Quantity": 1.0, "Origins.Items.CustomHeaders.Items.HeaderName": "X-A",
		"Origins.Items.CustomOriginConfig.OriginSslProtocols.Items":              list("TLSv1.2"),
		"DefaultCacheBehavior.AllowedMethods.Items":                              list("GET", "HEAD", "OPTIONS"),
		"DefaultCacheBehavior.AllowedMethods.CachedMethods.Quantity":             2.0,
		"DefaultCacheBehavior.TrustedKeyGroups.Enabled":                          true,
		"DefaultCacheBehavior.ForwardedValues.Headers.Items":                     list("Accept-Language"),
		"DefaultCacheBehavior.ForwardedValues.Cookies.WhitelistedNames.Quantity": 1.0,
		"DefaultCacheBehavior.LambdaFunctionAssociations.Items.IncludeBody":      true,
		"CacheBehaviors.Quantity":                                                0.0,
		"Restrictions.GeoRestriction.Items":                                      list("CH", "DE"), "Restrictions.GeoRestriction.Quantity": 2.0,
		"ViewerCertificate.ACMCertificateArn": "c", "ViewerCertificate.SSLSupportMethod": "sni-only",
		"Logging.Enabled": true, "Logging.Prefix": "", "Logging.IncludeCookies": false,
	} {
		if got := at(path); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
}

func TestDistributionConfigThatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		`DistributionConfig: []`:                                                    "must be a mapping",
		`DistributionConfig: {Enabled: true}`:                                       "needs Origins",
		`DistributionConfig: {Enabled: true, Origin: 7}`:                            "has no Origin",
		`DistributionConfig: {Enabled: true, Origins: x, DefaultCacheBehavior: {}}`: "Origins must be a mapping",
	} {
		_, err := distributionConfig(&call{props: fromYAML(t, text)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
