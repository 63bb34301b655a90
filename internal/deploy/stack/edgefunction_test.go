package stack

import (
	"strings"
	"testing"
)

func TestEdgeFunctionsAreReadFromTemplates(t *testing.T) {
	config, publish, err := edgeFunction(&call{props: fromYAML(t, `
FunctionCode: function handler(event) { return event.request; }
AutoPublish: "true"
FunctionConfig:
  Runtime: cloudfront-js-2.0
  KeyValueStoreAssociations: [{KeyValueStoreARN: arn}]
`)})
	if err != nil || !publish || *config.Comment != "" || config.Runtime != "cloudfront-js-2.0" {
		t.Fatalf("%+v, %v, %v", config, publish, err)
	}
	if a := config.KeyValueStoreAssociations; *a.Quantity != 1 || *a.Items[0].KeyValueStoreARN != "arn" {
		t.Errorf("associations %+v", a)
	}
	_, _, err = edgeFunction(&call{props: fromYAML(t, `FunctionConfig: {Runtimes: x}`)})
	if err == nil || !strings.Contains(err.Error(), "has no Runtimes") {
		t.Errorf("a property that is none: %v", err)
	}
}

func TestImportSourcesAreReadFromTemplates(t *testing.T) {
	source, err := importSource(&call{props: fromYAML(t, `ImportSource: {SourceType: S3, SourceArn: "arn:aws:s3:::b/k"}`)})
	if err != nil || *source.SourceARN != "arn:aws:s3:::b/k" || source.SourceType != "S3" {
		t.Errorf("%+v, %v", source, err)
	}
	if source, err := importSource(&call{props: map[string]any{}}); err != nil || source != nil {
		t.Errorf("without one: %+v, %v", source, err)
	}
	for _, text := range []string{`ImportSource: {SourceARN: a}`, `ImportSource: a`} {
		if _, err := importSource(&call{props: fromYAML(t, text)}); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}
