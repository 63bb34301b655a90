package functionurl

import (
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/function"
)

func TestCORS(t *testing.T) {
	some := &function.CORS{
		AllowCredentials: true, AllowHeaders: []string{"X-One", "content-type"}, AllowMethods: []string{"GET", "POST"},
		AllowOrigins: []string{"https://a.example", "https://b.example"}, ExposeHeaders: []string{"x-out"}, MaxAge: 60,
	}
	all := &function.CORS{AllowHeaders: []string{"*"}, AllowMethods: []string{"*"}, AllowOrigins: []string{"*"}}
	credentialed := &function.CORS{AllowCredentials: true, AllowOrigins: []string{"*"}}
	const ownHeader = `{"statusCode":200,"headers":{"access-control-allow-origin":"*"},"body":"x"}`
	for _, c := range []struct {
		name    string
		cors    *function.CORS
		method  string
		headers []string
		payload string
		invoked bool
		want    string // the CORS headers
	}{
		{"preflight", some, "OPTIONS", []string{"Origin", "https://b.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-one, Content-Type"}, "", false,
			"Origin: https://b.example; Methods: GET,POST; Headers: X-One,content-type; Credentials: true; Max-Age: 60; Vary: Origin"},
		{"preflight of another origin", some, "OPTIONS", []string{"Origin", "https://c.example", "Access-Control-Request-Method", "POST"}, "", false, ""},
		{"preflight of another method", some, "OPTIONS", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "PUT"}, "", false, ""},
		{"preflight of another header", some, "OPTIONS", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "x-one,x-two"}, "", false, ""},
		{"preflight where all is allowed", all, "OPTIONS", []string{"Origin", "https://c.example", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-two"}, "", false,
			"Origin: *; Methods: PUT; Headers: x-two"},
		{"OPTIONS without CORS", nil, "OPTIONS", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "GET"}, `"ok"`, true, ""},
		{"request", some, "GET", []string{"Origin", "https://a.example"}, `"ok"`, true,
			"Origin: https://a.example; Credentials: true; Expose: x-out; Vary: Origin"},
		{"request of another origin", some, "GET", []string{"Origin", "https://c.example"}, `"ok"`, true, ""},
		{"request without an origin", some, "GET", nil, `"ok"`, true, ""},
		{"request where all is allowed", all, "GET", []string{"Origin", "https://c.example"}, `"ok"`, true, "Origin: *"},
		{"credentials to everyone", credentialed, "GET", []string{"Origin", "https://c.example"}, `"ok"`, true, "Origin: https://c.example; Credentials: true; Vary: Origin"},
		{"the function's own headers stay", some, "GET", []string{"Origin", "https://a.example"}, ownHeader, true,
			"Origin: *, https://a.example; Credentials: true; Expose: x-out; Vary: Origin"},
		{"a function that fails", all, "GET", []string{"Origin", "https://c.example"}, `{`, true, "Origin: *"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := public()
			u.CORS = c.cors
			f := &fakeFunctions{url: u, answer: returns(c.payload)}
			res := f.serve(t, request(c.method, "/", "", c.headers...), "")
			var got []string
			for _, h := range []struct{ short, name string }{
				{"Origin", "Access-Control-Allow-Origin"}, {"Methods", "Access-Control-Allow-Methods"}, {"Headers", "Access-Control-Allow-Headers"},
				{"Credentials", "Access-Control-Allow-Credentials"}, {"Max-Age", "Access-Control-Max-Age"}, {"Expose", "Access-Control-Expose-Headers"}, {"Vary", "Vary"},
			} {
				if v := res.Header.Values(h.name); len(v) > 0 {
					got = append(got, h.short+": "+strings.Join(v, ", "))
				}
			}
			if s := strings.Join(got, "; "); s != c.want {
				t.Errorf("headers %q, want %q", s, c.want)
			}
			if (f.event != nil) != c.invoked {
				t.Errorf("invoked: %v", f.event != nil)
			}
			if c.method == "OPTIONS" && res.StatusCode != 200 {
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
}
