package gateway

import (
	"net/http"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
)

// FunctionURLs serves function URLs; package functionurl implements it. It
// answers for who may do what.
type FunctionURLs interface {
	// ServeURL serves a request to the URL of an id. prefix is what stands
	// before the path that is the function's. The context carries the
	// *aws.Request.
	ServeURL(w http.ResponseWriter, r *http.Request, id, prefix string)
}

// functionURLPath is where function URLs are without a host name of their own.
const functionURLPath = internalPrefix + "url/"

// awsURLDomain is the domain of AWS's own function URLs.
const awsURLDomain = "on.aws"

// serveFunctionURL serves a request that is for a function URL, and tells
// whether it was one: to the host id.lambda-url.region.domain, or to the path
// /_lapwing/url/id.
func (g *Gateway) serveFunctionURL(w *response, r *http.Request, x *exchange) bool {
	if g.options.FunctionURLs == nil {
		return false
	}
	id, prefix := functionURLHost(r.Host, g.options.Region, g.domains), ""
	if id == "" {
		if !strings.HasPrefix(r.URL.Path, functionURLPath) {
			return false
		}
		rest, ok := strings.CutPrefix(r.URL.EscapedPath(), functionURLPath)
		if !ok {
			return false
		}
		id, _, _ = strings.Cut(rest, "/")
		prefix = functionURLPath + id
	}
	request := &aws.Request{
		ID: x.id, Service: "lambda", Operation: "InvokeFunctionUrl",
		Region: g.options.Region, AccountID: g.options.AccountID,
		BaseURL: baseURL(r), SourceIP: sourceIP(r), UserAgent: r.UserAgent(),
		Header: x.header(r), Trailer: r.Trailer, Time: x.arrived, Response: w.Header(),
	}
	x.span.Rename("Lambda/InvokeFunctionUrl")
	x.span.Set("url.path", strings.TrimPrefix(r.URL.EscapedPath(), prefix))
	r = r.WithContext(aws.WithRequest(r.Context(), request))
	g.options.FunctionURLs.ServeURL(w, r, id, prefix)
	return true
}

// functionURLHost returns the id of the function URL that a host names, empty
// where it names none.
func functionURLHost(host, region string, domains []string) string {
	id, rest, found := strings.Cut(strings.ToLower(host), ".lambda-url.")
	if !found { // as good as always
		return ""
	}
	domain, ok := strings.CutPrefix(strings.TrimSuffix(hostname(rest), "."), region+".")
	if !ok || id == "" || strings.Contains(id, ".") {
		return ""
	}
	if domain != awsURLDomain && !slices.Contains(domains, domain) {
		return ""
	}
	return id
}
