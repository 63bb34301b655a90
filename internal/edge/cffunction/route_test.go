package cffunction

import (
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

// routed are a distribution with two origins, the first of which is the behaviour's.
func routed() *distribution.Distribution {
	return &distribution.Distribution{
		ID: "E1",
		Origins: []distribution.Origin{
			{ID: "web", DomainName: "web.example.net", Protocol: "https-only", HTTPPort: 80, HTTPSPort: 443, TLSProtocols: []string{"TLSv1.2"}, ReadTimeout: 30 * time.Second, KeepaliveTimeout: 5 * time.Second,
				Header: []distribution.HeaderValue{{Name: "X-Secret", Value: "s"}}},
			{ID: "bucket", DomainName: "b.s3.us-east-1.amazonaws.com", S3: true, AccessControl: &distribution.AccessControl{Behavior: "always", Service: "s3"}},
		},
		OriginGroups: []distribution.OriginGroup{{ID: "both", Members: [2]string{"web", "bucket"}, StatusCodes: []int{500}}},
	}
}

// routeOf runs a viewer-request function of one statement, with an origin.
func routeOf(t *testing.T, b *bench, origin, statement string) (*trigger.Route, error) {
	t.Helper()
	b.with(Runtime2, "import cf from 'cloudfront';\nfunction handler(event) { "+statement+"; return event.request; }")
	x := viewerRequest()
	err := b.Run(t.Context(), routed(), &distribution.Behaviour{
		Origin: origin, Viewer: map[distribution.EventType]string{distribution.ViewerRequest: functionARN},
	}, distribution.ViewerRequest, x)
	return x.Request.Route, err
}

func TestFunctionsChooseTheOrigin(t *testing.T) {
	b := newBench(t)
	for statement, check := range map[string]func(*trigger.Route) bool{
		`1`: func(r *trigger.Route) bool { return r == nil },
		`cf.updateRequestOrigin({domainName: 'other.example.net', originPath: '/v2', timeouts: {readTimeout: 7}, connectionAttempts: 1})`: func(r *trigger.Route) bool {
			o := r.Targets[0].Origin
			return len(r.Targets) == 1 && o.DomainName == "other.example.net" && o.Path == "/v2" && o.ReadTimeout == 7*time.Second && o.ConnectionAttempts == 1 &&
				*r.Targets[0].Host == "" && len(o.Header) == 1 && o.Protocol == "https-only"
		},
		`cf.updateRequestOrigin({hostHeader: 'shop.example.net', customHeaders: {}})`: func(r *trigger.Route) bool {
			return *r.Targets[0].Host == "shop.example.net" && len(r.Targets[0].Origin.Header) == 0 && r.Targets[0].Origin.DomainName == "web.example.net"
		},
		`cf.updateRequestOrigin({customOriginConfig: {port: 8080, protocol: 'http', sslProtocols: ['TLSv1.2']}})`: func(r *trigger.Route) bool {
			return r.Targets[0].Origin.Protocol == "http-only" && r.Targets[0].Origin.HTTPPort == 8080
		},
		`cf.updateRequestOrigin({domainName: 'c.s3.us-east-1.amazonaws.com', originAccessControlConfig: {enabled: true, signingBehavior: 'always', signingProtocol: 'sigv4', originType: 's3'}, customHeaders: {}})`: func(r *trigger.Route) bool {
			o := r.Targets[0].Origin
			return o.S3 && o.AccessControl.Service == "s3" && o.DomainName == "c.s3.us-east-1.amazonaws.com"
		},
		`cf.selectRequestOriginById('bucket')`: func(r *trigger.Route) bool {
			return r.Targets[0].Origin.S3 && r.Targets[0].Host == nil
		},
		`cf.selectRequestOriginById('bucket', {originOverrides: {originPath: '/pr-1'}})`: func(r *trigger.Route) bool {
			return r.Targets[0].Origin.Path == "/pr-1"
		},
		`cf.createRequestOriginGroup({originIds: [{originId: 'bucket'}, 'web'], failoverCriteria: {statusCodes: [503]}})`: func(r *trigger.Route) bool {
			return len(r.Targets) == 2 && r.Targets[0].Origin.ID == "bucket" && r.Targets[1].Origin.ID == "web" && r.StatusCodes[0] == 503
		},
	} {
		r, err := routeOf(t, b, "web", statement)
		if err != nil || !check(r) {
			t.Errorf("%s: %+v, %v", statement, r, err)
		}
	}
	r, err := routeOf(t, b, "both", `cf.updateRequestOrigin({domainName: 'other.example.net'})`)
	if err != nil || len(r.Targets) != 2 || r.Targets[0].Origin.DomainName != "other.example.net" || r.Targets[1].Origin.ID != "bucket" || r.StatusCodes[0] != 500 {
		t.Errorf("of a group: %+v, %v", r, err)
	}
}

func TestOriginsThatFunctionsCannotChooseAreRefused(t *testing.T) {
	b := newBench(t)
	for statement, want := range map[string]string{
		`cf.updateRequestOrigin({domainName: '10.0.0.1'})`:                                                                                              "domainName",
		`cf.updateRequestOrigin({domainName: 'a.example:80'})`:                                                                                          "domainName",
		`cf.updateRequestOrigin({domainNames: 'a.example'})`:                                                                                            "unknown field",
		`cf.updateRequestOrigin({sni: 'a.example'})`:                                                                                                    `cannot be used by Lapwing`,
		`cf.updateRequestOrigin({originPath: 'a/'})`:                                                                                                    "path of the origin",
		`cf.updateRequestOrigin({customHeaders: {connection: 'x'}})`:                                                                                    "blacklisted",
		`cf.updateRequestOrigin({customOriginConfig: {port: 22, protocol: 'https', sslProtocols: ['TLSv1.2']}})`:                                        "port",
		`cf.updateRequestOrigin({originShield: {enabled: true, region: 'us-east-1'}})`:                                                                  "originShield is not supported",
		`cf.updateRequestOrigin({timeouts: {readTimeout: 1000}})`:                                                                                       "readTimeout",
		`cf.selectRequestOriginById('other')`:                                                                                                           `no origin "other"`,
		`cf.createRequestOriginGroup({originIds: ['web'], failoverCriteria: {statusCodes: [503]}})`:                                                     "two origins",
		`cf.createRequestOriginGroup({originIds: ['web', 'bucket'], failoverCriteria: {statusCodes: [200]}})`:                                           "status 200",
		`cf.createRequestOriginGroup({originIds: ['web', 'bucket'], selectionCriteria: 'media-quality-score', failoverCriteria: {statusCodes: [503]}})`: "selectionCriteria",
	} {
		_, err := routeOf(t, b, "web", statement)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", statement, err, want)
		}
	}
	b.with(Runtime2, "import cf from 'cloudfront';\nfunction handler(event) { cf.selectRequestOriginById('bucket'); return event.response; }")
	x := viewerRequest()
	x.Response = &trigger.Response{Status: 200}
	if err := b.run(distribution.ViewerResponse, x); err == nil || !strings.Contains(err.Error(), "viewer-request functions only") {
		t.Errorf("at viewer-response: %v", err)
	}
	r, err := Test(t.Context(), distribution.Function{Runtime: Runtime2, Code: "import cf from 'cloudfront';\nfunction handler(event) { cf.selectRequestOriginById('any'); return event.request; }"}, nil, []byte(`{"request":{}}`))
	if err != nil || r.Error != "" {
		t.Errorf("in a test: %q, %v", r.Error, err)
	}
}
