package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/sigv4"
	"lapwing.dev/lapwing/internal/aws/wire"
)

// globalRegion is where the endpoints of global services are.
const globalRegion = "us-east-1"

// isGlobal tells whether a service has one endpoint for all regions. Clients
// sign for it in us-east-1, unless told an endpoint, when they sign for their
// own region. ACM has an endpoint in each, but the certificates of distributions
// are in us-east-1, and whoever sets up a distribution asks for them there.
func isGlobal(s *aws.Service) bool {
	switch s.SigningName {
	case "iam", "sts", "cloudfront", "acm", keyValueStore:
		return true
	}
	return false
}

// keyValueStore is the signing name of CloudFront KeyValueStore, the service that
// clients sign asymmetric for, whatever their Region.
const keyValueStore = "cloudfront-keyvaluestore"

// dialectOf returns the words in which a service refuses requests.
func dialectOf(s *aws.Service) sigv4.Dialect {
	switch {
	case s == nil:
		return sigv4.RESTJSON
	case s.SigningName == "s3":
		return sigv4.S3
	}
	switch s.Protocols[0] {
	case aws.RESTJSON:
		return sigv4.RESTJSON
	case aws.JSON, aws.CBOR:
		return sigv4.RPC
	}
	return sigv4.Query
}

// route finds the service that a request is for, from its credential scope,
// its host or its path, in this order, and sets x.service (and x.call where it
// found that out on the way). It returns the request as wire is to see it:
// with the bucket in the path.
func (g *Gateway) route(r *http.Request, x *exchange, auth *sigv4.Authorization) (*http.Request, error) {
	at := parseHost(r.Host, auth.Service, g.domains, func(prefix string) bool { return g.prefixes[prefix] != nil })
	routed := r
	if x.bucket = at.bucket; at.bucket != "" {
		routed = pathStyle(r, at.bucket)
	}
	if named := g.prefixes[at.service]; named != nil {
		x.service = named // a scope that says otherwise will not verify
		return routed, nil
	}
	if at.service != "" {
		return nil, g.unknownService(at.service)
	}
	if auth.Service != "" {
		candidates := g.services[auth.Service]
		if len(candidates) == 0 {
			return nil, g.unknownService(auth.Service)
		}
		x.service = candidates[0]
		if len(candidates) > 1 && !slices.ContainsFunc(candidates, namedInBody) {
			g.probe(routed, x, candidates)
		}
		return routed, nil
	}
	g.guess(routed, x)
	return routed, nil
}

// namedInBody tells whether the body has to be read to find the operation.
func namedInBody(s *aws.Service) bool {
	return slices.Contains(s.Protocols, aws.Query) || slices.Contains(s.Protocols, aws.EC2Query)
}

// guess finds a service for a request that nobody signed and that names none.
// It will be refused; the service tells in whose words. Every path is one of a
// bucket, hence S3 comes last.
func (g *Gateway) guess(r *http.Request, x *exchange) {
	target, _, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	form := strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
	var byPath, s3 []*aws.Service
	for _, s := range g.options.Services {
		switch {
		case form && namedInBody(s), target != "" && target == s.TargetPrefix:
			x.service = s
			return
		case dialectOf(s) == sigv4.S3:
			s3 = append(s3, s)
		case s.Protocols[0] == aws.RESTJSON || s.Protocols[0] == aws.RESTXML:
			byPath = append(byPath, s)
		}
	}
	if !g.probe(r, x, byPath) {
		g.probe(r, x, s3)
	}
}

// probe looks for a service that has an operation for the request.
func (g *Gateway) probe(r *http.Request, x *exchange, candidates []*aws.Service) bool {
	for _, s := range candidates {
		if call, err := wire.Find(s, r); err == nil {
			x.service, x.call = s, call
			return true
		}
	}
	return false
}

func (g *Gateway) unknownService(name string) error {
	return &aws.Error{
		Code: "UnknownServiceException", Status: http.StatusNotImplemented,
		Message: fmt.Sprintf("The service %q is not served here. Served are: %s.", name, g.names),
	}
}
