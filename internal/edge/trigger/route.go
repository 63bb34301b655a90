package trigger

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// Route is where a CloudFront Function sends a request, instead of to the
// behaviour's origin. The location asks it itself, whatever other locations there
// are between it and origins.
type Route struct {
	Targets []Target // one, or two of which the second is asked when the first fails
	// StatusCodes are those of the first target on which the second is asked.
	StatusCodes []int
}

// Target is an origin to ask.
type Target struct {
	Origin *distribution.Origin
	// Host is the Host header, empty for the origin's domain name; nil: what is
	// forwarded of the viewer's, or else that.
	Host *string
}

// Overrides are the properties of an origin that a CloudFront Function changes, by
// their names in JavaScript ("Helper methods for origin modification", CloudFront
// developer guide). What is nil stays as it is.
type Overrides struct {
	DomainName         *string           `json:"domainName"`
	HostHeader         *string           `json:"hostHeader"`
	OriginPath         *string           `json:"originPath"`
	CustomHeaders      map[string]string `json:"customHeaders"`
	ConnectionAttempts *int              `json:"connectionAttempts"`
	OriginShield       *struct {
		Enabled bool   `json:"enabled"`
		Region  string `json:"region"`
	} `json:"originShield"`
	AccessControl *struct {
		Enabled         bool   `json:"enabled"`
		SigningBehavior string `json:"signingBehavior"`
		SigningProtocol string `json:"signingProtocol"`
		OriginType      string `json:"originType"`
	} `json:"originAccessControlConfig"`
	Timeouts *struct {
		Connection *int `json:"connectionTimeout"`
		Read       *int `json:"readTimeout"`
		KeepAlive  *int `json:"keepAliveTimeout"`
		Completion *int `json:"responseCompletionTimeout"`
	} `json:"timeouts"`
	Custom *struct {
		Port         int      `json:"port"`
		Protocol     string   `json:"protocol"`
		SSLProtocols []string `json:"sslProtocols"`
	} `json:"customOriginConfig"`
}

// Apply returns what becomes of an origin. header is the request's. The error is for
// whoever wrote the function.
func (v *Overrides) Apply(was *distribution.Origin, header Header) (Target, error) {
	o := *was
	if err := v.applyKind(&o); err != nil {
		return Target{}, err
	}
	t := Target{Origin: &o}
	if v.DomainName != nil {
		limit := maxCustomDomain
		if o.S3 {
			limit = maxBucketDomain
		}
		if !validDomain(*v.DomainName, limit) || o.S3 && !bucketDomain.MatchString(*v.DomainName) {
			return t, fmt.Errorf("domainName %q is not valid", *v.DomainName)
		}
		if o.DomainName != *v.DomainName {
			o.DomainName, o.Region = *v.DomainName, ""
		}
		t.Host = new(string)
	}
	if v.HostHeader != nil {
		if o.S3 || !validDomain(*v.HostHeader, maxCustomDomain) {
			return t, fmt.Errorf("hostHeader %q is not valid for the origin", *v.HostHeader)
		}
		t.Host = v.HostHeader
	}
	if v.OriginPath != nil {
		if err := checkOriginPath(*v.OriginPath, was.Path); err != nil {
			return t, err
		}
		o.Path = *v.OriginPath
	}
	if v.CustomHeaders != nil {
		var h Header
		for _, name := range slices.Sorted(maps.Keys(v.CustomHeaders)) {
			h = append(h, Field{Name: name, Value: v.CustomHeaders[name]})
		}
		if err := checkCustomHeaders(h, nil, header); err != nil {
			return t, err
		}
		o.Header = fieldsOf(h)
	}
	return t, v.applyLimits(&o)
}

// applyKind changes what kind of origin it is, and how requests to it are signed.
func (v *Overrides) applyKind(o *distribution.Origin) error {
	if v.OriginShield != nil && v.OriginShield.Enabled {
		return fmt.Errorf("originShield is not supported by Lapwing for an origin that a function chose")
	}
	if a := v.AccessControl; a != nil {
		o.AccessControl, o.AccessIdentity = nil, ""
		if a.Enabled {
			switch {
			case !slices.Contains([]string{"always", "never", "no-override"}, a.SigningBehavior):
				return fmt.Errorf("signingBehavior %q is not known", a.SigningBehavior)
			case a.SigningProtocol != "sigv4":
				return fmt.Errorf("signingProtocol %q is not known", a.SigningProtocol)
			case a.OriginType != "s3" && a.OriginType != "lambda":
				return fmt.Errorf("originType %q is not supported by Lapwing", a.OriginType)
			}
			o.AccessControl = &distribution.AccessControl{Behavior: a.SigningBehavior, Service: a.OriginType}
		}
		if s3 := a.Enabled && a.OriginType == "s3"; s3 && !o.S3 && v.Custom == nil {
			o.S3, o.Protocol, o.HTTPPort, o.HTTPSPort = true, "match-viewer", 80, 443
		}
	}
	c := v.Custom
	if c == nil {
		return nil
	}
	if o.S3 {
		o.S3, o.AccessIdentity, o.Region = false, "", ""
		if v.AccessControl == nil {
			o.AccessControl = nil
		}
	}
	custom := &customOrigin{
		DomainName: o.DomainName, Path: o.Path, Protocol: c.Protocol, Port: c.Port, SSLProtocols: c.SSLProtocols,
		ReadTimeout: seconds(o.ReadTimeout), KeepaliveTimeout: seconds(o.KeepaliveTimeout),
	}
	was := *custom
	was.Port, was.SSLProtocols = 0, nil
	if err := custom.check(&was, nil); err != nil {
		return err
	}
	o.TLSProtocols, o.Protocol = c.SSLProtocols, c.Protocol+"-only"
	if c.Protocol == "https" {
		o.HTTPSPort = c.Port
	} else {
		o.HTTPPort = c.Port
	}
	return nil
}

// applyLimits changes how long and how often an origin is tried.
func (v *Overrides) applyLimits(o *distribution.Origin) error {
	if n := v.ConnectionAttempts; n != nil {
		if *n < 1 || *n > 3 {
			return fmt.Errorf("connectionAttempts must be from 1 to 3, not %d", *n)
		}
		o.ConnectionAttempts = *n
	}
	if v.Timeouts == nil {
		return nil
	}
	for _, t := range []struct {
		name string
		n    *int
		most int
		of   *time.Duration
	}{
		{"connectionTimeout", v.Timeouts.Connection, 10, &o.ConnectionTimeout},
		{"readTimeout", v.Timeouts.Read, 120, &o.ReadTimeout},
		{"keepAliveTimeout", v.Timeouts.KeepAlive, 120, &o.KeepaliveTimeout},
		{"responseCompletionTimeout", v.Timeouts.Completion, 3600, &o.ResponseCompletionTimeout},
	} {
		if t.n == nil {
			continue
		}
		if *t.n < 1 || *t.n > t.most {
			return fmt.Errorf("%s must be from 1 to %d seconds, not %d", t.name, t.most, *t.n)
		}
		*t.of = time.Duration(*t.n) * time.Second
	}
	if c := o.ResponseCompletionTimeout; c > 0 && c < o.ReadTimeout {
		return fmt.Errorf("responseCompletionTimeout must not be below the readTimeout")
	}
	return nil
}
