package trigger

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

var testDistribution = &distribution.Distribution{ID: "E1LAPWING00001", DomainName: "d3aaaa1bbbb2cc.cloudfront.net"}

func customOriginRecord() *distribution.Origin {
	return &distribution.Origin{
		ID: "shop", DomainName: "origin.example.net", Path: "/v2", Header: []distribution.HeaderValue{{Name: "X-Shared", Value: "s3cret"}},
		HTTPPort: 80, HTTPSPort: 443, Protocol: "https-only", TLSProtocols: []string{"TLSv1.2"},
		ReadTimeout: 30 * time.Second, KeepaliveTimeout: 5 * time.Second,
	}
}

func bucketRecord() *distribution.Origin {
	return &distribution.Origin{ID: "assets", DomainName: "assets.s3.eu-central-1.amazonaws.com", S3: true, AccessIdentity: "E2IDENTITY", Protocol: "match-viewer", HTTPPort: 80, HTTPSPort: 443}
}

func viewerRequest() *Exchange {
	return &Exchange{RequestID: "Zx3==", Secure: true, Request: Request{
		ClientIP: "198.51.100.7", Method: "GET", URI: "/shop/", Query: "size=m&sort=price",
		Header: Header{
			{"Host", "shop.example.net"}, {"Cookie", "bag=blue"}, {"Accept-Language", "de-CH,de;q=0.9"}, {"cookie", "sid=1"},
			{"Connection", "keep-alive"}, {"X-Amz-Cf-Id", "a"}, {"X-Edge-Thing", "b"},
		},
	}}
}

func originRequest(o *distribution.Origin) *Exchange {
	x := viewerRequest()
	x.Request.Origin = o
	return x
}

func response(status int, fields ...Field) *Response {
	return &Response{Status: status, Header: fields}
}

func TestEventHasTheShapeThatFunctionsKnow(t *testing.T) {
	const config = `"distributionDomainName":"d3aaaa1bbbb2cc.cloudfront.net","distributionId":"E1LAPWING00001","requestId":"Zx3=="`
	const request = `"clientIp":"198.51.100.7","method":"GET","uri":"/shop/","querystring":"size=m&sort=price",
		"headers":{"host":[{"key":"Host","value":"shop.example.net"}],
			"cookie":[{"key":"Cookie","value":"bag=blue"},{"key":"cookie","value":"sid=1"}],
			"accept-language":[{"key":"Accept-Language","value":"de-CH,de;q=0.9"}]}`
	const custom = `"origin":{"custom":{"customHeaders":{"x-shared":[{"key":"X-Shared","value":"s3cret"}]},"domainName":"origin.example.net",
		"path":"/v2","port":443,"protocol":"https","sslProtocols":["TLSv1.2"],"readTimeout":30,"keepaliveTimeout":5}}`
	withBody := viewerRequest()
	withBody.Request.Body = &Body{Data: []byte("name=Ada"), Truncated: true}
	answered := originRequest(customOriginRecord())
	answered.Response = response(200, Field{"Content-Type", "text/html"}, Field{"Set-Cookie", "a=1"}, Field{"set-cookie", "b=2"}, Field{"X-Cache", "Miss"})
	viewerAnswered := viewerRequest()
	viewerAnswered.Response = response(404)
	for _, c := range []struct {
		name  string
		event distribution.EventType
		x     *Exchange
		want  string
	}{
		{"viewer-request", distribution.ViewerRequest, viewerRequest(), `{` + request + `}`},
		{"viewer-request with the body", distribution.ViewerRequest, withBody,
			`{` + request + `,"body":{"inputTruncated":true,"action":"read-only","encoding":"base64","data":"bmFtZT1BZGE="}}`},
		{"origin-request, custom", distribution.OriginRequest, originRequest(customOriginRecord()), `{` + request + `,` + custom + `}`},
		{"origin-request, s3", distribution.OriginRequest, originRequest(bucketRecord()), `{` + request + `,"origin":{"s3":{"authMethod":"origin-access-identity",
			"customHeaders":{},"domainName":"assets.s3.eu-central-1.amazonaws.com","path":"","region":"eu-central-1"}}}`},
		{"origin-response", distribution.OriginResponse, answered, `{` + request + `,` + custom + `},"response":{"status":"200","statusDescription":"OK",
			"headers":{"content-type":[{"key":"Content-Type","value":"text/html"}],"set-cookie":[{"key":"Set-Cookie","value":"a=1"},{"key":"set-cookie","value":"b=2"}]}}`},
		{"viewer-response", distribution.ViewerResponse, viewerAnswered, `{` + request + `},"response":{"status":"404","statusDescription":"Not Found","headers":{}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := appendEvent(nil, testDistribution, c.event, c.x)
			sameJSON(t, got, `{"Records":[{"cf":{"config":{`+config+`,"eventType":"`+string(c.event)+`"},"request":`+c.want+`}}]}`)
		})
	}
}

func sameJSON(t *testing.T, got []byte, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestMatchViewerOriginShowsTheViewersProtocol(t *testing.T) {
	o := customOriginRecord()
	o.Protocol = "match-viewer"
	if got := shownOrigin(o, false).Custom; got.Protocol != "http" || got.Port != 80 {
		t.Errorf("without TLS: %s, port %d", got.Protocol, got.Port)
	}
	if got := shownOrigin(o, true).Custom; got.Protocol != "https" || got.Port != 443 {
		t.Errorf("with TLS: %s, port %d", got.Protocol, got.Port)
	}
}

func TestRegionOfABucketIsThatOfItsName(t *testing.T) {
	for name, want := range map[string]string{
		"b.s3.amazonaws.com": "us-east-1", "b.s3.eu-west-1.amazonaws.com": "eu-west-1",
		"b.s3-eu-west-1.amazonaws.com": "eu-west-1", "b.example.net": "us-east-1", "a.b.s3.ap-south-1.amazonaws.com.cn": "ap-south-1",
	} {
		if got := bucketRegion(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestStringsAreJSONWhateverTheirBytes(t *testing.T) {
	for s, want := range map[string]string{
		"/plain": "/plain", "caf\xe9": "café", "café": "café", "a\"b\\c\n\x7f": "a\"b\\c\n\x7f", "": "", "<&>": "<&>",
	} {
		var got string
		if err := json.Unmarshal(AppendString(nil, s), &got); err != nil || got != want {
			t.Errorf("%q: %q (%v), want %q", s, got, err, want)
		}
	}
}

func BenchmarkEvent(b *testing.B) {
	x := originRequest(customOriginRecord())
	result := resultOf(b, distribution.OriginRequest, x)
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			appendEvent(make([]byte, 0, 2048), testDistribution, distribution.OriginRequest, x)
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			y := *x
			if err := y.applyResult(distribution.OriginRequest, result); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// resultOf returns what a function that changes nothing returns.
func resultOf(t testing.TB, e distribution.EventType, x *Exchange) []byte {
	t.Helper()
	var event struct {
		Records []struct {
			CF struct{ Request, Response json.RawMessage }
		}
	}
	if err := json.Unmarshal(appendEvent(nil, testDistribution, e, x), &event); err != nil {
		t.Fatal(err)
	}
	if cf := event.Records[0].CF; cf.Response != nil {
		return cf.Response
	} else {
		return cf.Request
	}
}
