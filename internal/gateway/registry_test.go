package gateway

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestTheRegistryIsAtV2OfEveryHostButForWhatIsSigned(t *testing.T) {
	g := New(Options{
		Credentials: nil, Region: "us-east-1", AccountID: "123456789012", Domains: []string{"lapwing.example.org"},
		Registry: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }),
	})
	for _, tt := range []struct {
		host, path, authorization string
		want                      bool
	}{
		{"127.0.0.1:4566", "/v2/", "", true},
		{"127.0.0.1:4566", "/v2", "", true},
		{"localhost", "/v2/app/manifests/1", "Basic QVdTOng=", true},
		{"123456789012.dkr.ecr.us-east-1.amazonaws.com", "/v2/app/tags/list", "Basic QVdTOng=", true},
		{"123456789012.dkr.ecr.us-east-1.lapwing.example.org:4566", "/v2/", "", true},
		{"any.example.com", "/v2/", "", true},
		{"127.0.0.1:4566", "/v2/apis", "AWS4-HMAC-SHA256 Credential=x", false},
		{"127.0.0.1:4566", "/v2/key?X-Amz-Signature=x", "", false},
		{"bucket.s3.localhost", "/v2/key", "", false},
		{"127.0.0.1:4566", "/v20/", "", false},
		{"127.0.0.1:4566", "/2015-03-31/functions", "", false},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, tt.path, nil)
		r.Host = tt.host
		if tt.authorization != "" {
			r.Header.Set("Authorization", tt.authorization)
		}
		w := httptest.NewRecorder()
		x := new(exchange)
		x.response.init(w, r, time.Minute)
		if got := g.serveRegistry(&x.response, r, x); got != tt.want || got != (w.Code == http.StatusTeapot) {
			t.Errorf("%s at %s: %t, status %d", tt.path, tt.host, got, w.Code)
		}
	}
}
