package functionurl

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"lapwing.dev/lapwing/internal/trace"
)

// event is what the function gets: payload format 2.0 (Lambda developer guide,
// "Request payload format").
type event struct {
	Version         string            `json:"version"`
	RouteKey        string            `json:"routeKey"`
	RawPath         string            `json:"rawPath"`
	RawQueryString  string            `json:"rawQueryString"`
	Cookies         []string          `json:"cookies,omitempty"`
	Headers         map[string]string `json:"headers"`
	Query           map[string]string `json:"queryStringParameters,omitempty"`
	RequestContext  requestContext    `json:"requestContext"`
	Body            *string           `json:"body,omitempty"`
	IsBase64Encoded bool              `json:"isBase64Encoded"`
}

type requestContext struct {
	AccountID    string      `json:"accountId"`
	APIID        string      `json:"apiId"`
	Authorizer   *authorizer `json:"authorizer,omitempty"`
	DomainName   string      `json:"domainName"`
	DomainPrefix string      `json:"domainPrefix"`
	HTTP         httpRequest `json:"http"`
	RequestID    string      `json:"requestId"`
	RouteKey     string      `json:"routeKey"`
	Stage        string      `json:"stage"`
	Time         string      `json:"time"`
	TimeEpoch    int64       `json:"timeEpoch"` // ms
}

type httpRequest struct {
	Method    string `json:"method"`
	Path      string `json:"path"`
	Protocol  string `json:"protocol"`
	SourceIP  string `json:"sourceIp"`
	UserAgent string `json:"userAgent"`
}

type authorizer struct {
	IAM iamCaller `json:"iam"`
}

type iamCaller struct {
	AccessKey       string `json:"accessKey"`
	AccountID       string `json:"accountId"`
	CallerID        string `json:"callerId"`
	CognitoIdentity any    `json:"cognitoIdentity"` // always null: there is no Cognito
	PrincipalOrgID  any    `json:"principalOrgId"`  // always null: nor Organizations
	UserARN         string `json:"userArn"`
	UserID          string `json:"userId"`
}

// timeLayout is that of requestContext.time.
const timeLayout = "02/Jan/2006:15:04:05 -0700"

// event renders the request as JSON.
func (x *exchange) event(body []byte) ([]byte, error) {
	path := strings.TrimPrefix(x.r.URL.EscapedPath(), x.prefix)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	now := x.request.Time.UTC()
	e := event{
		Version: "2.0", RouteKey: "$default", RawPath: path, RawQueryString: x.r.URL.RawQuery,
		Cookies: cookies(x.r.Header), Headers: x.headers(), Query: query(x.r.URL.RawQuery),
		RequestContext: requestContext{
			AccountID: "anonymous", APIID: x.url.ID, DomainName: hostname(x.r.Host), DomainPrefix: x.url.ID,
			HTTP: httpRequest{
				Method: x.r.Method, Path: path, Protocol: x.r.Proto, SourceIP: x.request.SourceIP, UserAgent: x.r.UserAgent(),
			},
			RequestID: x.request.ID, RouteKey: "$default", Stage: "$default",
			Time: now.Format(timeLayout), TimeEpoch: now.UnixMilli(),
		},
	}
	if c := x.caller; c != nil {
		e.RequestContext.AccountID = c.AccountID
		e.RequestContext.Authorizer = &authorizer{iamCaller{
			AccessKey: c.AccessKeyID, AccountID: c.AccountID, CallerID: c.UserID, UserARN: c.ARN, UserID: c.UserID,
		}}
	}
	if len(body) > 0 {
		var text string
		if text, e.IsBase64Encoded = encodeBody(body, x.r.Header); e.IsBase64Encoded {
			text = base64.StdEncoding.EncodeToString(body)
		}
		e.Body = &text
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// encodeBody tells whether a body has to be encoded in base64, and if not
// returns it as text: where its type says that it is text, it is not compressed
// and it is what JSON can hold.
func encodeBody(body []byte, h http.Header) (text string, encoded bool) {
	if enc := h.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return "", true
	}
	if !isText(h.Get("Content-Type")) || !utf8.Valid(body) {
		return "", true
	}
	return string(body), false
}

// isText tells whether a content type is one of text. Forms are not, though
// they would be: AWS hands them over in base64.
func isText(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml") ||
		slices.Contains([]string{"application/json", "application/javascript", "application/xml"}, kind)
}

// headers returns the headers by lower-case name, those that came several times
// joined by commas. What concerns the connection is left out, and what AWS's own
// front adds is there.
func (x *exchange) headers() map[string]string {
	perHop := slices.Clone(hopByHop)
	for _, v := range x.r.Header["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			perHop = append(perHop, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	out := make(map[string]string, len(x.r.Header)+8)
	for name, values := range x.r.Header {
		if name == "Cookie" || name != "Content-Length" && slices.Contains(perHop, name) {
			continue
		}
		out[strings.ToLower(name)] = strings.Join(values, ",")
	}
	out["host"] = x.r.Host
	out[strings.ToLower(trace.HeaderName)] = x.request.Header.Get(trace.HeaderName)
	// As a proxy does: what the client says comes first, and proves nothing.
	out["x-forwarded-for"] = x.request.SourceIP
	if before := x.r.Header.Values("X-Forwarded-For"); len(before) > 0 {
		out["x-forwarded-for"] = strings.Join(before, ",") + "," + x.request.SourceIP
	}
	out["x-forwarded-proto"], out["x-forwarded-port"] = "http", "80"
	if tls := x.r.TLS; tls != nil {
		out["x-forwarded-proto"], out["x-forwarded-port"] = "https", "443"
		out["x-amzn-tls-version"], out["x-amzn-tls-cipher-suite"] = tlsNames(tls)
	}
	if _, port, err := net.SplitHostPort(x.r.Host); err == nil && port != "" {
		out["x-forwarded-port"] = port
	}
	return out
}

// cookies returns the cookies, each as name=value.
func cookies(h http.Header) (out []string) {
	for _, line := range h["Cookie"] {
		for c := range strings.SplitSeq(line, ";") {
			if c = strings.TrimSpace(c); c != "" {
				out = append(out, c)
			}
		}
	}
	return out
}

// query returns the parameters of a query, decoded, those that came several
// times joined by commas. What cannot be decoded is only in the raw query.
func query(raw string) map[string]string {
	out := map[string]string{}
	for pair := range strings.SplitSeq(raw, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil || pair == "" {
			continue
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil {
			continue
		}
		if before, ok := out[name]; ok {
			value = before + "," + value
		}
		out[name] = value
	}
	return out
}

// hostname takes the port off a Host header.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}
