package cloudfront

import (
	"fmt"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
)

// compileResponseHeaders makes the headers that a response headers policy says.
func compileResponseHeaders(p *api.ResponseHeadersPolicyConfig) *distribution.ResponseHeaders {
	out := &distribution.ResponseHeaders{CORS: compileCORS(p.CorsConfig), ServerTiming: -1}
	if t := p.ServerTimingHeadersConfig; t != nil && *t.Enabled {
		out.ServerTiming = aws.Value(t.SamplingRate)
	}
	if h := p.SecurityHeadersConfig; h != nil {
		out.Set = securityHeaders(h)
	}
	if h := p.CustomHeadersConfig; h != nil {
		for _, h := range h.Items {
			out.Set = append(out.Set, distribution.HeaderValue{Name: *h.Header, Value: *h.Value, Override: *h.Override})
		}
	}
	if h := p.RemoveHeadersConfig; h != nil {
		for _, h := range h.Items {
			out.Remove = append(out.Remove, *h.Header)
		}
	}
	return out
}

func compileCORS(c *api.ResponseHeadersPolicyCorsConfig) *distribution.CORS {
	if c == nil {
		return nil
	}
	out := &distribution.CORS{
		AllowOrigins: c.AccessControlAllowOrigins.Items, AllowHeaders: c.AccessControlAllowHeaders.Items,
		AllowCredentials: *c.AccessControlAllowCredentials, Override: *c.OriginOverride, MaxAge: seconds(c.AccessControlMaxAgeSec),
	}
	for _, m := range c.AccessControlAllowMethods.Items {
		if m == api.ResponseHeadersPolicyAccessControlAllowMethodsValuesAll {
			out.AllowMethods = []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"}
			break
		}
		out.AllowMethods = append(out.AllowMethods, string(m))
	}
	if c.AccessControlExposeHeaders != nil {
		out.ExposeHeaders = c.AccessControlExposeHeaders.Items
	}
	return out
}

func securityHeaders(h *api.ResponseHeadersPolicySecurityHeadersConfig) (out []distribution.HeaderValue) {
	set := func(name, value string, override *bool) {
		out = append(out, distribution.HeaderValue{Name: name, Value: value, Override: aws.Value(override)})
	}
	if x := h.XSSProtection; x != nil {
		value := "0"
		if *x.Protection {
			value = "1"
			if aws.Value(x.ModeBlock) {
				value += "; mode=block"
			}
			if uri := aws.Value(x.ReportUri); uri != "" {
				value += "; report=" + uri
			}
		}
		set("X-XSS-Protection", value, x.Override)
	}
	if x := h.FrameOptions; x != nil {
		set("X-Frame-Options", string(x.FrameOption), x.Override)
	}
	if x := h.ReferrerPolicy; x != nil {
		set("Referrer-Policy", string(x.ReferrerPolicy), x.Override)
	}
	if x := h.ContentSecurityPolicy; x != nil {
		set("Content-Security-Policy", *x.ContentSecurityPolicy, x.Override)
	}
	if x := h.ContentTypeOptions; x != nil {
		set("X-Content-Type-Options", "nosniff", x.Override)
	}
	if x := h.StrictTransportSecurity; x != nil {
		value := []string{fmt.Sprintf("max-age=%d", *x.AccessControlMaxAgeSec)}
		if aws.Value(x.IncludeSubdomains) {
			value = append(value, "includeSubDomains")
		}
		if aws.Value(x.Preload) {
			value = append(value, "preload")
		}
		set("Strict-Transport-Security", strings.Join(value, "; "), x.Override)
	}
	return out
}
