package edge

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

func TestRequestsThatABehaviourDoesNotAllowAreRefused(t *testing.T) {
	l := newLocation(t, echo, with(func(d *distribution.Distribution) {
		secure := d.Behaviours[0]
		secure.Pattern, secure.ViewerProtocol = "/secure/*", "https-only"
		redirect := d.Behaviours[0]
		redirect.Pattern, redirect.ViewerProtocol = "redirect/*", "redirect-to-https"
		d.Behaviours = append([]distribution.Behaviour{secure, redirect}, d.Behaviours...)
	}))
	for _, c := range []struct {
		name, method, path string
		header             http.Header
		body               string
		status             int
		cache              string
	}{
		{"method", "POST", "/", nil, "", 403, "Error"},
		{"body of a GET", "GET", "/", nil, "x", 403, "Error"},
		{"HTTPS only", "GET", "/secure/a", nil, "", 403, "Error"},
		{"redirect", "GET", "/redirect/a?b=c", nil, "", 301, "Redirect"},
		{"long URL", "GET", "/" + strings.Repeat("a", 8192), nil, "", 414, "Error"},
		{"large header", "GET", "/", http.Header{"X-Large": {strings.Repeat("a", 33<<10)}}, "", 413, "Error"},
		{"third in a chain", "GET", "/", http.Header{"Via": {"2.0 a.cloudfront.net (CloudFront), 2.0 b.cloudfront.net (CloudFront)"}}, "", 403, "Error"},
		{"allowed", "HEAD", "/", nil, "", 200, "Miss"},
	} {
		r, err := l.send(c.method, c.path, c.header, strings.NewReader(c.body))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if r.StatusCode != c.status || r.cache() != c.cache {
			t.Errorf("%s: %d %s, want %d %s", c.name, r.StatusCode, r.cache(), c.status, c.cache)
		}
		if c.status == 301 && r.Header.Get("Location") != "https://"+host+"/redirect/a?b=c" {
			t.Errorf("redirect to %q", r.Header.Get("Location"))
		}
		if c.cache == "Error" && !strings.Contains(r.body, "Request ID: "+r.Header.Get("X-Amz-Cf-Id")) {
			t.Errorf("%s: the page has no request id: %s", c.name, r.body)
		}
	}
}

// scripted runs functions that are Go functions of the test.
type scripted map[distribution.EventType]func(x *trigger.Exchange) error

func (s scripted) Run(_ context.Context, _ *distribution.Distribution, _ *distribution.Behaviour, e distribution.EventType, x *trigger.Exchange) error {
	return s[e](x)
}

// lambdas attaches functions to the last behaviour, and runs them.
func lambdas(s scripted) option {
	return func(o *Options, d *distribution.Distribution) {
		functions(s)(o, d)
		b := &d.Behaviours[len(d.Behaviours)-1]
		b.Functions = map[distribution.EventType]distribution.LambdaAssociation{}
		for e := range s {
			b.Functions[e] = distribution.LambdaAssociation{ARN: "arn:aws:lambda:us-east-1:123456789012:function:f:1"}
		}
	}
}

func TestAViewerRequestFunctionThatAnswersIsTheLastWord(t *testing.T) {
	l := newLocation(t, echo, lambdas(scripted{
		distribution.ViewerRequest: func(x *trigger.Exchange) error {
			x.Response = &trigger.Response{Status: 302, Header: trigger.Header{{Name: "Location", Value: "https://login.example.net/"}}}
			return nil
		},
		distribution.ViewerResponse: func(*trigger.Exchange) error { t.Error("viewer-response has run"); return nil },
	}))
	for range 2 {
		r := l.get("/account/")
		l.expect(r, 302, "LambdaGeneratedResponse", 0)
	}
}
