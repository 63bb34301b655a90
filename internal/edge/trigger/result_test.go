package trigger

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// changed returns what a function returns that changes the request or response
// that it got.
func changed(t testing.TB, e distribution.EventType, x *Exchange, change func(o map[string]any)) string {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(resultOf(t, e, x), &o); err != nil {
		t.Fatal(err)
	}
	change(o)
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// header makes a headers entry.
func header(key, value string) []any { return []any{map[string]any{"key": key, "value": value}} }

func TestFunctionThatChangesNothingChangesNothing(t *testing.T) {
	fill := func(x *Exchange, e distribution.EventType) *Exchange {
		x.Request.Header = append(x.Request.Header, Field{"Via", "1.1 caf\xe9"}, Field{"Accept-Encoding", "br,gzip"})
		x.Request.URI, x.Request.Query = "/caf\xe9", "q=\xfc"
		if e == distribution.OriginResponse || e == distribution.ViewerResponse {
			x.Response = response(200, Field{"Content-Length", "7"}, Field{"Via", "1.1 x"}, Field{"Set-Cookie", "a"}, Field{"Set-Cookie", "b"}, Field{"Trailer", "t"})
			x.Response.Description = "OK"
		}
		return x
	}
	for e, x := range map[distribution.EventType]*Exchange{
		distribution.ViewerRequest: viewerRequest(), distribution.OriginRequest: originRequest(customOriginRecord()),
		distribution.OriginResponse: originRequest(bucketRecord()), distribution.ViewerResponse: viewerRequest(),
	} {
		t.Run(string(e), func(t *testing.T) {
			x := fill(x, e)
			was := *x
			if err := x.applyResult(e, resultOf(t, e, x)); err != nil {
				t.Fatal(err)
			}
			if x.Request.Origin != was.Request.Origin || x.Request.URI != was.Request.URI || x.Request.Query != was.Request.Query {
				t.Errorf("the request is %+v, was %+v", x.Request, was.Request)
			}
			sameFields(t, x.Request.Header, was.Request.Header)
			if was.Response != nil {
				sameFields(t, x.Response.Header, was.Response.Header)
				if x.Response.Status != 200 || x.Response.Replaced {
					t.Errorf("the response is %+v", x.Response)
				}
			}
		})
	}
}

// sameFields compares headers but for the order of different names.
func sameFields(t *testing.T, got, want Header) {
	t.Helper()
	order := func(h Header) Header {
		h = slices.Clone(h)
		slices.SortStableFunc(h, func(a, b Field) int { return strings.Compare(lower(a.Name), lower(b.Name)) })
		return h
	}
	if !reflect.DeepEqual(order(got), order(want)) {
		t.Errorf("header is %q, want %q", got, want)
	}
}

func TestRequestEventsTakeTheChangedRequest(t *testing.T) {
	x := viewerRequest()
	result := changed(t, distribution.ViewerRequest, x, func(o map[string]any) {
		o["uri"], o["querystring"] = "/de/", "id=42"
		h := o["headers"].(map[string]any)
		delete(h, "accept-language")
		h["x-bag"] = []any{map[string]any{"value": "blue"}}
	})
	if err := x.applyResult(distribution.ViewerRequest, []byte(result)); err != nil {
		t.Fatal(err)
	}
	if x.Request.URI != "/de/" || x.Request.Query != "id=42" {
		t.Errorf("target %s?%s", x.Request.URI, x.Request.Query)
	}
	if got := x.Request.Header.Get("x-bag"); got != "blue" || x.Request.Header.has("accept-language") {
		t.Errorf("header is %q", x.Request.Header)
	}
	if !slices.Contains(x.Request.Header, Field{"X-Bag", "blue"}) {
		t.Errorf("the key that was left out is not capitalised: %q", x.Request.Header)
	}
	if !x.Request.Header.has("connection") {
		t.Error("a field that the function did not see is gone")
	}
}

func TestGeneratedResponse(t *testing.T) {
	x := viewerRequest()
	err := x.applyResult(distribution.ViewerRequest, []byte(`{"status":302,"headers":{"location":[{"value":"https://shop.example.net/de/"}],"set-cookie":[{"key":"Set-Cookie","value":["a=1","b=2"]}]},"body":"aGk=","bodyEncoding":"base64"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Response{Status: 302, Description: "Found", Body: []byte("hi"), Replaced: true,
		Header: Header{{"Location", "https://shop.example.net/de/"}, {"Set-Cookie", "a=1"}, {"Set-Cookie", "b=2"}}}
	if !reflect.DeepEqual(x.Response, want) {
		t.Errorf("response is %+v, want %+v", x.Response, want)
	}
}

func TestOriginResponseBodyIsKeptRemovedOrReplaced(t *testing.T) {
	for body, want := range map[string]Response{
		``:               {},
		`,"body":""`:     {Replaced: true},
		`,"body":"nice"`: {Replaced: true, Body: []byte("nice")},
		`,"body":null`:   {},
	} {
		x := originRequest(customOriginRecord())
		x.Response = response(404, Field{"Content-Length", "9"})
		if err := x.applyResult(distribution.OriginResponse, []byte(`{"status":"200"`+body+`}`)); err != nil {
			t.Fatal(err)
		}
		if r := x.Response; r.Status != 200 || r.Replaced != want.Replaced || string(r.Body) != string(want.Body) {
			t.Errorf("%s: %+v", body, r)
		}
		if x.Response.Header.has("content-length") == want.Replaced {
			t.Errorf("%s: header is %q", body, x.Response.Header)
		}
	}
}

func TestRequestBodyIsReplaced(t *testing.T) {
	for body, want := range map[string]Body{
		`{"action":"replace","data":"aGk="}`:                  {Data: []byte("hi"), Replaced: true},
		`{"action":"replace","encoding":"text","data":"hi"}`:  {Data: []byte("hi"), Replaced: true},
		`{"action":"read-only","encoding":"none","data":"!"}`: {Data: []byte("name=Ada"), Truncated: true},
		`{"data":"aGk="}`: {Data: []byte("name=Ada"), Truncated: true},
	} {
		x := viewerRequest()
		x.Request.Body = &Body{Data: []byte("name=Ada"), Truncated: true}
		result := changed(t, distribution.ViewerRequest, x, func(o map[string]any) { o["body"] = json.RawMessage(body) })
		if err := x.applyResult(distribution.ViewerRequest, []byte(result)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*x.Request.Body, want) {
			t.Errorf("%s: %+v", body, x.Request.Body)
		}
	}
}

func TestOriginRequestChoosesAnotherOrigin(t *testing.T) {
	e := distribution.OriginRequest
	t.Run("custom to custom", func(t *testing.T) {
		was := customOriginRecord()
		x := originRequest(was)
		result := changed(t, e, x, func(o map[string]any) {
			c := o["origin"].(map[string]any)["custom"].(map[string]any)
			c["domainName"], c["protocol"], c["port"], c["readTimeout"] = "ch.example.net", "http", 8080, 10
			o["headers"].(map[string]any)["host"] = header("Host", "ch.example.net")
		})
		if err := x.applyResult(e, []byte(result)); err != nil {
			t.Fatal(err)
		}
		o := x.Request.Origin
		if o.DomainName != "ch.example.net" || o.Protocol != "http-only" || o.HTTPPort != 8080 || o.ReadTimeout.Seconds() != 10 || o.ID != "shop" || len(o.Header) != 1 {
			t.Errorf("origin is %+v", o)
		}
		if was.DomainName != "origin.example.net" {
			t.Error("the configured origin was changed")
		}
	})
	t.Run("custom to bucket", func(t *testing.T) {
		x := originRequest(customOriginRecord())
		result := changed(t, e, x, func(o map[string]any) {
			o["origin"] = json.RawMessage(`{"s3":{"authMethod":"none","domainName":"b.s3.amazonaws.com","path":"/p","region":"eu-west-1","customHeaders":{}}}`)
		})
		if err := x.applyResult(e, []byte(result)); err != nil {
			t.Fatal(err)
		}
		if o := x.Request.Origin; !o.S3 || o.Region != "eu-west-1" || o.Path != "/p" || o.DomainName != "b.s3.amazonaws.com" {
			t.Errorf("origin is %+v", o)
		}
	})
	t.Run("bucket to custom", func(t *testing.T) {
		x := originRequest(bucketRecord())
		result := changed(t, e, x, func(o map[string]any) {
			o["origin"] = json.RawMessage(`{"custom":{"domainName":"a.example.net","path":"","port":443,"protocol":"https","sslProtocols":["TLSv1.2"],"readTimeout":5,"keepaliveTimeout":5}}`)
		})
		if err := x.applyResult(e, []byte(result)); err != nil {
			t.Fatal(err)
		}
		if o := x.Request.Origin; o.S3 || o.AccessIdentity != "" || o.Protocol != "https-only" {
			t.Errorf("origin is %+v", o)
		}
	})
	t.Run("what was configured beyond what functions may choose stays", func(t *testing.T) {
		was := customOriginRecord()
		was.DomainName, was.HTTPSPort, was.ReadTimeout = "127.0.0.1", 81, 120e9
		x := originRequest(was)
		result := changed(t, e, x, func(o map[string]any) {
			o["origin"].(map[string]any)["custom"].(map[string]any)["path"] = "/other"
		})
		if err := x.applyResult(e, []byte(result)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestResultsThatAreRefused(t *testing.T) {
	VQ, OQ, OR, VR := distribution.ViewerRequest, distribution.OriginRequest, distribution.OriginResponse, distribution.ViewerResponse
	set := func(path string, value any) func(map[string]any) {
		return func(o map[string]any) {
			parts := strings.Split(path, ".")
			for _, p := range parts[:len(parts)-1] {
				o = o[p].(map[string]any)
			}
			if last := parts[len(parts)-1]; value == nil {
				delete(o, last)
			} else {
				o[last] = value
			}
		}
	}
	kb := func(n int) string { return strings.Repeat("x", n<<10) }
	for _, c := range []struct {
		name   string
		event  distribution.EventType
		result string               // whole, or else
		change func(map[string]any) // of what it got
		reason string
	}{
		{"nothing", VQ, ``, nil, reasonJSON},
		{"no JSON", VQ, `{"uri"`, nil, reasonJSON},
		{"null", VQ, `null`, nil, reasonObject},
		{"a string", VQ, `"hello"`, nil, reasonObject},
		{"an array", OR, `[]`, nil, reasonObject},
		{"not UTF-8", VQ, "{\"uri\":\"/\xff\"}", nil, reasonJSON},
		{"neither request nor response", VQ, `{}`, nil, reasonRequest},
		{"names in other case", VQ, `{"URI":"/","Status":"200"}`, nil, reasonRequest},
		{"URI without a slash", VQ, "", set("uri", "shoes"), reasonRequest},
		{"URI that is a number", VQ, "", set("uri", 7), reasonRequest},
		{"URI with a space", VQ, "", set("uri", "/a b"), reasonRequest},
		{"URI with a query", VQ, "", set("uri", "/a?b"), reasonRequest},
		{"query with a fragment", OQ, "", set("querystring", "a#b"), reasonRequest},
		{"query with a space", OQ, "", set("querystring", "a b"), reasonRequest},
		{"query with a line break", OQ, "", set("querystring", "a\nb"), reasonRequest},
		{"URI too long", OQ, "", set("uri", "/"+kb(8)), reasonRequest},
		{"method changed", VQ, "", set("method", "POST"), reasonRequest},
		{"client IP changed", VQ, "", set("clientIp", "192.0.2.1"), reasonRequest},
		{"headers no object", VQ, "", set("headers", "x"), reasonEntries},
		{"header no array", VQ, "", set("headers.x-a", "b"), reasonEntries},
		{"header of objects without value", VQ, "", set("headers.x-a", []any{map[string]any{"key": "X-A"}}), reasonEntry},
		{"header value a number", VQ, "", set("headers.x-a", []any{map[string]any{"value": 1}}), reasonEntry},
		{"header value with a line break", VQ, "", set("headers.x-a", header("X-A", "a\r\nb: c")), reasonEntry},
		{"header with another's key", VQ, "", set("headers.x-a", header("Connection", "close")), reasonEntry},
		{"header with an impossible name", VQ, "", set("headers", map[string]any{"x a": header("x a", "b")}), reasonEntry},
		{"disallowed header added", VQ, "", set("headers.connection", header("Connection", "close")), reasonBlacklisted},
		{"disallowed header of a family added", VQ, "", set("headers.x-edge-a", header("X-Edge-A", "b")), reasonBlacklisted},
		{"host changed", VQ, "", set("headers.host", header("Host", "other.example.net")), reasonReadOnly},
		{"host deleted", VQ, "", set("headers.host", nil), reasonReadOnly},
		{"all headers deleted", VQ, "", set("headers", nil), reasonReadOnly},
		{"via added", OQ, "", set("headers.via", header("Via", "x")), reasonReadOnly},
		{"country added", VQ, "", set("headers.cloudfront-viewer-country", header("CloudFront-Viewer-Country", "CH")), reasonReadOnly},
		{"conditional added", OQ, "", set("headers.if-none-match", header("If-None-Match", "x")), reasonReadOnly},
		{"body where none is included", VQ, "", set("body", map[string]any{"action": "replace", "data": "aGk="}), reasonBody},
		{"body no object", VQ, "", set("body", "x"), reasonBody},
		{"body with an unknown action", OQ, "", set("body", map[string]any{"action": "append"}), reasonBody},
		{"origin in a viewer event", VQ, "", set("origin", map[string]any{}), reasonOrigin},
		{"origin of no kind", OQ, "", set("origin", map[string]any{}), reasonOrigin},
		{"origin of two kinds", OQ, "", set("origin.s3", map[string]any{}), reasonOrigin},
		{"origin no object", OQ, "", set("origin", 7), reasonOrigin},
		{"origin without a domain", OQ, "", set("origin.custom.domainName", nil), reasonOrigin},
		{"origin with an empty domain", OQ, "", set("origin.custom.domainName", ""), reasonOrigin},
		{"origin with a port in the domain", OQ, "", set("origin.custom.domainName", "a:80"), reasonOrigin},
		{"origin that is an address", OQ, "", set("origin.custom.domainName", "192.0.2.1"), reasonOrigin},
		{"origin with a path in the domain", OQ, "", set("origin.custom.domainName", "a/b"), reasonOrigin},
		{"origin with a long domain", OQ, "", set("origin.custom.domainName", strings.Repeat("a", 254)), reasonOrigin},
		{"origin path without a slash", OQ, "", set("origin.custom.path", "v2"), reasonOrigin},
		{"origin path with a slash at the end", OQ, "", set("origin.custom.path", "/v2/"), reasonOrigin},
		{"origin path too long", OQ, "", set("origin.custom.path", "/"+strings.Repeat("a", 255)), reasonOrigin},
		{"origin port", OQ, "", set("origin.custom.port", 81), reasonOrigin},
		{"origin port a string", OQ, "", set("origin.custom.port", "80"), reasonOrigin},
		{"origin protocol", OQ, "", set("origin.custom.protocol", "ftp"), reasonOrigin},
		{"origin read timeout", OQ, "", set("origin.custom.readTimeout", 61), reasonOrigin},
		{"origin keep-alive timeout", OQ, "", set("origin.custom.keepaliveTimeout", 0), reasonOrigin},
		{"origin TLS protocol", OQ, "", set("origin.custom.sslProtocols", []string{"TLSv9"}), reasonOrigin},
		{"custom header of a new name is fine", OQ, "", set("origin.custom.customHeaders.host2", header("host2", "x")), ""},
		{"custom header that cannot be one", OQ, "", set("origin.custom.customHeaders.cookie", header("Cookie", "x")), reasonBlacklisted},
		{"custom header twice", OQ, "", set("origin.custom.customHeaders.accept-language", header("Accept-Language", "x")), reasonOrigin},
		{"to a bucket with an identity", OQ, "", set("origin", json.RawMessage(`{"s3":{"authMethod":"origin-access-identity","domainName":"b.s3.amazonaws.com","path":"","region":"us-east-1"}}`)), reasonOrigin},
		{"to a bucket in capitals", OQ, "", set("origin", json.RawMessage(`{"s3":{"authMethod":"none","domainName":"B.s3.amazonaws.com","path":""}}`)), reasonOrigin},
		{"to a bucket by an unknown method", OQ, "", set("origin", json.RawMessage(`{"s3":{"authMethod":"oac","domainName":"b.s3.amazonaws.com","path":""}}`)), reasonOrigin},
		{"response without a status", OR, "", set("status", nil), reasonStatus},
		{"status too low", VQ, `{"status":"199"}`, nil, reasonStatus},
		{"status too high", OQ, `{"status":"600"}`, nil, reasonStatus},
		{"status a fraction", OQ, `{"status":200.5}`, nil, reasonStatus},
		{"status an object", OQ, `{"status":{}}`, nil, reasonStatus},
		{"status null", OQ, `{"status":null}`, nil, reasonStatus},
		{"status description with a line break", VQ, `{"status":"200","statusDescription":"a\r\nb: c"}`, nil, reasonStatus},
		{"status of a viewer's response changed", VR, "", set("status", "302"), reasonStatus},
		{"body of a viewer's response set", VR, "", set("body", "x"), reasonBody},
		{"warning added to a viewer's response", VR, "", set("headers.warning", header("Warning", "x")), reasonReadOnly},
		{"transfer coding added", OR, "", set("headers.transfer-encoding", header("Transfer-Encoding", "chunked")), reasonReadOnly},
		{"length in a generated response", OQ, `{"status":"200","headers":{"content-length":[{"value":"2"}]},"body":"hi"}`, nil, reasonReadOnly},
		{"disallowed header in a generated response", VQ, `{"status":"401","headers":{"proxy-authenticate":[{"value":"Basic"}]}}`, nil, reasonBlacklisted},
		{"body a number", VQ, `{"status":"200","body":7}`, nil, reasonBody},
		{"body not base64", VQ, `{"status":"200","body":"!!","bodyEncoding":"base64"}`, nil, reasonBody},
		{"body of unknown encoding", VQ, `{"status":"200","body":"x","bodyEncoding":"hex"}`, nil, reasonBody},
		{"204 with a body", VQ, `{"status":"204","body":""}`, nil, reasonBody},
		{"response over 40 KB", VQ, `{"status":"401","body":"` + kb(41) + `"}`, nil, reasonBody},
		{"response over 40 KB by its headers", VQ, `{"status":"401","headers":{"x-a":[{"value":"` + kb(2) + `"}]},"body":"` + kb(39) + `"}`, nil, reasonBody},
		{"response over 1 MB", OQ, `{"status":"200","body":"` + kb(1024) + `x"}`, nil, reasonBody},
		{"response of 1 MB replaced", OR, `{"status":"200","body":"` + kb(1024) + `x"}`, nil, reasonBody},
	} {
		t.Run(string(c.event)+": "+c.name, func(t *testing.T) {
			x := viewerRequest()
			switch c.event {
			case OQ:
				x = originRequest(customOriginRecord())
			case OR:
				x = originRequest(customOriginRecord())
				x.Response = response(200)
			case VR:
				x.Response = response(200)
			}
			if c.change != nil {
				c.result = changed(t, c.event, x, c.change)
			}
			was := *x
			err := x.applyResult(c.event, []byte(c.result))
			if c.reason == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			failed, ok := errors.AsType[*Error](err)
			if !ok || failed.Text != c.reason || failed.Class != LambdaValidation || failed.Status() != 502 {
				t.Errorf("got %v, want %s", err, c.reason)
			}
			if !reflect.DeepEqual(*x, was) {
				t.Error("the exchange changed")
			}
		})
	}
}

func TestResponsesUpToTheLimitPass(t *testing.T) {
	for e, limit := range map[distribution.EventType]int{distribution.ViewerRequest: 40 << 10, distribution.OriginRequest: 1 << 20} {
		for _, body := range []string{
			fmt.Sprintf(`"%s"`, strings.Repeat("x", limit)),
			fmt.Sprintf(`"%s","bodyEncoding":"base64"`, base64.StdEncoding.EncodeToString(make([]byte, limit))),
		} {
			x := viewerRequest()
			if err := x.applyResult(e, []byte(`{"status":"200","body":`+body+`}`)); err != nil || len(x.Response.Body) != limit {
				t.Errorf("%s: %v", e, err)
			}
		}
	}
}

func FuzzResult(f *testing.F) {
	events := []distribution.EventType{distribution.ViewerRequest, distribution.OriginRequest, distribution.OriginResponse, distribution.ViewerResponse}
	exchange := func(e distribution.EventType) *Exchange {
		x := viewerRequest()
		x.Request.Body = &Body{Data: []byte("x")}
		if e == distribution.OriginRequest || e == distribution.OriginResponse {
			x.Request.Origin = customOriginRecord()
		}
		if e == distribution.OriginResponse || e == distribution.ViewerResponse {
			x.Response = response(200, Field{"Via", "x"})
		}
		return x
	}
	for i, e := range events {
		f.Add(uint8(i), resultOf(f, e, exchange(e)))
		f.Add(uint8(i), []byte(`{"status":"302","headers":{"location":[{"value":"/"}]},"body":"aGk=","bodyEncoding":"base64"}`))
	}
	f.Fuzz(func(t *testing.T, i uint8, result []byte) {
		e := events[int(i)%len(events)]
		x, was := exchange(e), exchange(e)
		if err := x.applyResult(e, result); err != nil {
			if failed, ok := errors.AsType[*Error](err); !ok || failed.Class != LambdaValidation {
				t.Fatalf("not an error of validation: %v", err)
			}
			return
		}
		seen := was.Request.Header
		got := x.Request.Header
		if was.Response != nil || x.Response != nil {
			seen, got = nil, x.Response.Header
			if was.Response != nil {
				seen = was.Response.Header
			}
			if s := x.Response.Status; s < 200 || s > 599 {
				t.Fatalf("status %d", s)
			}
			if n := len(x.Response.Body); n > BodyLimit(e) {
				t.Fatalf("body of %d bytes", n)
			}
		}
		for _, name := range readOnly[e] {
			if !got.same(name, seen) {
				t.Fatalf("%s changed", name)
			}
		}
		for _, field := range got {
			if Hidden(lower(field.Name)) && !slices.Contains(seen, field) {
				t.Fatalf("%q came in", field)
			}
			if strings.ContainsAny(field.Value, "\r\n") || strings.ContainsAny(field.Name, ": \r\n") {
				t.Fatalf("%q", field)
			}
		}
		if u := x.Request.URI; !strings.HasPrefix(u, "/") || !plainURI(u) || x.Request.Method != "GET" {
			t.Fatalf("%s %s", x.Request.Method, u)
		}
	})
}
