package lambda

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/lambda"
	"lapwing.dev/lapwing/internal/function"
	"lapwing.dev/lapwing/internal/invoke"
)

// URLPath is where function URLs are served for clients that reach Lapwing by an
// address or as localhost, below which no names resolve: URLPath, the id of the
// URL and the path.
const URLPath = "/_lapwing/url/"

// urlTimeLayout is how Lambda writes the times of a function URL.
const urlTimeLayout = "2006-01-02T15:04:05.000000Z"

// urlRecord is a function URL. It is part of the record of its function or
// alias, with which it goes.
type urlRecord struct {
	ID         string                  `json:"id"`
	AuthType   api.FunctionUrlAuthType `json:"authType"`
	InvokeMode api.InvokeMode          `json:"invokeMode"`
	Cors       *corsRecord             `json:"cors,omitempty"`
	Created    time.Time               `json:"created"`
	Modified   time.Time               `json:"modified"`
}

type corsRecord struct {
	AllowCredentials *bool    `json:"allowCredentials,omitempty"`
	AllowHeaders     []string `json:"allowHeaders,omitempty"`
	AllowMethods     []string `json:"allowMethods,omitempty"`
	AllowOrigins     []string `json:"allowOrigins,omitempty"`
	ExposeHeaders    []string `json:"exposeHeaders,omitempty"`
	MaxAge           *int32   `json:"maxAge,omitempty"`
}

// urlID returns the id of the URL of a function or alias: the same at all times,
// so that what is set up again from scratch keeps its addresses.
func urlID(arn string) string {
	sum := sha256.Sum256([]byte("lambda-url\n" + arn))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:20]))
}

// urlHolder finds what can have a URL, a function or an alias, or returns nil.
func (s *Service) urlHolder(e *entry, ref reference) *holder {
	if ref.qualifier != "" && !isAlias(ref.qualifier) {
		return nil
	}
	return s.holder(e, ref.qualifier)
}

// resolveURL is resolve for the operations on URLs, which versions cannot have.
func (s *Service) resolveURL(ctx context.Context, name, qualifier *string) (reference, error) {
	ref, err := s.resolve(ctx, aws.Value(name), aws.Value(qualifier))
	if err == nil && ref.qualifier != "" && !isAlias(ref.qualifier) {
		return ref, validation(`Value '%s' at 'qualifier' failed to satisfy constraint: Member must satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)`, ref.qualifier)
	}
	return ref, err
}

// CreateFunctionUrlConfig implements lambda.API.
func (s *Service) CreateFunctionUrlConfig(ctx context.Context, in *api.CreateFunctionUrlConfigInput) (*api.CreateFunctionUrlConfigOutput, error) {
	ref, err := s.resolveURL(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	defer s.lock(ref.functionKey)()
	h := s.urlHolder(s.entries.get(ref.functionKey), ref)
	if h == nil {
		return nil, notFound("Function does not exist")
	}
	if s.entries.get(ref.functionKey).isolated() {
		return nil, invalidParameter("Function URLs are not supported for functions with tenant isolation.")
	}
	if h.URL != nil {
		return nil, conflict("Failed to create function url config for [functionArn = %s]. Error message:  FunctionUrlConfig exists for this Lambda function", h.arn)
	}
	now := s.opts.Now().UTC()
	u := &urlRecord{
		ID: urlID(h.arn), AuthType: in.AuthType, InvokeMode: cmp.Or(in.InvokeMode, api.InvokeModeBuffered),
		Cors: newCorsRecord(in.Cors), Created: now, Modified: now,
	}
	if err := s.writeURL(ctx, ref, h, u); err != nil {
		return nil, err
	}
	c := s.describeURL(ctx, ref, h.arn, u)
	return &api.CreateFunctionUrlConfigOutput{
		FunctionUrl: c.FunctionUrl, FunctionArn: c.FunctionArn, AuthType: c.AuthType, Cors: c.Cors,
		CreationTime: c.CreationTime, InvokeMode: c.InvokeMode,
	}, nil
}

// GetFunctionUrlConfig implements lambda.API.
func (s *Service) GetFunctionUrlConfig(ctx context.Context, in *api.GetFunctionUrlConfigInput) (*api.GetFunctionUrlConfigOutput, error) {
	ref, err := s.resolveURL(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	h := s.urlHolder(s.entries.get(ref.functionKey), ref)
	if h == nil || h.URL == nil {
		return nil, noSuchResource()
	}
	c := s.describeURL(ctx, ref, h.arn, h.URL)
	return &api.GetFunctionUrlConfigOutput{
		FunctionUrl: c.FunctionUrl, FunctionArn: c.FunctionArn, AuthType: c.AuthType, Cors: c.Cors,
		CreationTime: c.CreationTime, LastModifiedTime: c.LastModifiedTime, InvokeMode: c.InvokeMode,
	}, nil
}

// UpdateFunctionUrlConfig implements lambda.API. What is not given stays; Cors
// is replaced as a whole, by {} with none.
func (s *Service) UpdateFunctionUrlConfig(ctx context.Context, in *api.UpdateFunctionUrlConfigInput) (*api.UpdateFunctionUrlConfigOutput, error) {
	ref, err := s.resolveURL(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	defer s.lock(ref.functionKey)()
	h := s.urlHolder(s.entries.get(ref.functionKey), ref)
	switch {
	case h == nil:
		return nil, notFound("Function does not exist")
	case h.URL == nil:
		return nil, noSuchResource()
	}
	u := *h.URL
	u.AuthType = cmp.Or(in.AuthType, u.AuthType)
	u.InvokeMode = cmp.Or(in.InvokeMode, u.InvokeMode)
	if in.Cors != nil {
		u.Cors = newCorsRecord(in.Cors)
	}
	u.Modified = s.opts.Now().UTC()
	if err := s.writeURL(ctx, ref, h, &u); err != nil {
		return nil, err
	}
	c := s.describeURL(ctx, ref, h.arn, &u)
	return &api.UpdateFunctionUrlConfigOutput{
		FunctionUrl: c.FunctionUrl, FunctionArn: c.FunctionArn, AuthType: c.AuthType, Cors: c.Cors,
		CreationTime: c.CreationTime, LastModifiedTime: c.LastModifiedTime, InvokeMode: c.InvokeMode,
	}, nil
}

// DeleteFunctionUrlConfig implements lambda.API.
func (s *Service) DeleteFunctionUrlConfig(ctx context.Context, in *api.DeleteFunctionUrlConfigInput) (*api.DeleteFunctionUrlConfigOutput, error) {
	ref, err := s.resolveURL(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	defer s.lock(ref.functionKey)()
	h := s.urlHolder(s.entries.get(ref.functionKey), ref)
	if h == nil || h.URL == nil {
		return nil, noSuchResource()
	}
	if err := s.writeURL(ctx, ref, h, nil); err != nil {
		return nil, err
	}
	return &api.DeleteFunctionUrlConfigOutput{}, nil
}

// ListFunctionUrlConfigs implements lambda.API: the function's own URL first,
// then those of its aliases by name.
func (s *Service) ListFunctionUrlConfigs(ctx context.Context, in *api.ListFunctionUrlConfigsInput) (*api.ListFunctionUrlConfigsOutput, error) {
	ref, err := s.resolve(ctx, aws.Value(in.FunctionName), "")
	if err != nil {
		return nil, err
	}
	e := s.entries.get(ref.functionKey)
	if e == nil {
		return nil, notFound("Function does not exist")
	}
	qualifiers := append([]string{""}, slices.Sorted(maps.Keys(e.aliases))...)
	var found []string
	for _, q := range qualifiers {
		if h := s.urlHolder(e, reference{ref.functionKey, q, ref.arn}); h.URL != nil && q >= aws.Value(in.Marker) {
			found = append(found, q)
		}
	}
	found, next := pageOf(found, in.MaxItems, maxPage)
	out := &api.ListFunctionUrlConfigsOutput{FunctionUrlConfigs: []*api.FunctionUrlConfig{}, NextMarker: next}
	for _, q := range found {
		h := s.urlHolder(e, reference{ref.functionKey, q, ref.arn})
		out.FunctionUrlConfigs = append(out.FunctionUrlConfigs, s.describeURL(ctx, ref, h.arn, h.URL))
	}
	return out, nil
}

func (s *Service) writeURL(ctx context.Context, ref reference, h *holder, u *urlRecord) error {
	h.URL = u
	return s.writeHolder(ctx, ref.functionKey, h)
}

func newCorsRecord(c *api.Cors) *corsRecord {
	if c == nil {
		return nil
	}
	r := corsRecord(*c)
	if r.AllowCredentials == nil && r.MaxAge == nil && len(r.AllowHeaders)+len(r.AllowMethods)+len(r.AllowOrigins)+len(r.ExposeHeaders) == 0 {
		return nil
	}
	return &r
}

func (s *Service) describeURL(ctx context.Context, ref reference, arn string, u *urlRecord) *api.FunctionUrlConfig {
	c := &api.FunctionUrlConfig{
		FunctionUrl: aws.Ptr(urlAddress(aws.RequestFrom(ctx).BaseURL, ref.region, u.ID)), FunctionArn: aws.Ptr(arn),
		AuthType: u.AuthType, InvokeMode: u.InvokeMode,
		CreationTime: aws.Ptr(u.Created.Format(urlTimeLayout)), LastModifiedTime: aws.Ptr(u.Modified.Format(urlTimeLayout)),
	}
	if u.Cors != nil {
		c.Cors = aws.Ptr(api.Cors(*u.Cors))
	}
	return c
}

// urlAddress returns the address of a URL for a client that reached Lapwing by
// base: in AWS's form below a domain name, and as a path of an IP address or
// localhost, since a client may not be able to resolve names below those.
func urlAddress(base, region, id string) string {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return "https://" + id + ".lambda-url." + region + ".on.aws/"
	}
	name := u.Hostname()
	if net.ParseIP(name) != nil || name == "localhost" {
		return strings.TrimSuffix(base, "/") + URLPath + id + "/"
	}
	return u.Scheme + "://" + id + ".lambda-url." + region + "." + u.Host + "/"
}

// FunctionURL returns the function URL of an id as it is configured now, or nil.
func (s *Service) FunctionURL(id string) *function.URL {
	s.entries.mu.RLock()
	defer s.entries.mu.RUnlock()
	return s.entries.urls[id]
}

// InvokeURL invokes the function behind a URL with an event and writes the
// response to w. It is for callers who have been let through.
func (s *Service) InvokeURL(ctx context.Context, u *function.URL, event []byte, w io.Writer) (*invoke.Result, error) {
	req, err := s.prepare(ctx, call{name: &u.FunctionARN, payload: event, streaming: u.Streaming})
	if err != nil {
		return nil, err
	}
	tellTrace(ctx, req)
	result, err := s.opts.Invoker.Invoke(ctx, req, w)
	return result, internal(err)
}

// buildURLs makes the read model of the URLs of a function.
func (s *Service) buildURLs(e *entry) {
	add := func(qualifier string) {
		h := s.urlHolder(e, reference{e.key, qualifier, e.arn})
		if h.URL == nil {
			return
		}
		u := &function.URL{
			ID: h.URL.ID, FunctionARN: h.arn, IAM: h.URL.AuthType == api.FunctionUrlAuthTypeAwsIam,
			Public: publicURL(h.Policy), Streaming: h.URL.InvokeMode == api.InvokeModeResponseStream,
		}
		if c := h.URL.Cors; c != nil {
			u.CORS = &function.CORS{
				AllowCredentials: aws.Value(c.AllowCredentials), AllowHeaders: c.AllowHeaders, AllowMethods: c.AllowMethods,
				AllowOrigins: c.AllowOrigins, ExposeHeaders: c.ExposeHeaders, MaxAge: int(aws.Value(c.MaxAge)),
			}
		}
		e.urls = append(e.urls, u)
	}
	add("")
	for name := range e.aliases {
		add(name)
	}
}

// publicURL tells whether a resource policy lets everyone invoke a URL of
// AuthType NONE: it must allow lambda:InvokeFunctionUrl, and since October 2025
// lambda:InvokeFunction as well (Lambda developer guide, "Control access to
// Lambda function URLs").
func publicURL(policy []statement) bool {
	allows := func(action string) bool {
		return slices.ContainsFunc(policy, func(st statement) bool {
			return st.Effect == "Allow" && st.Principal.Any && st.allowsAction(action) && st.Condition.holdsForPublicURL()
		})
	}
	return allows("lambda:InvokeFunctionUrl") && allows("lambda:InvokeFunction")
}

func (st *statement) allowsAction(action string) bool {
	return st.Action == "*" || st.Action == "lambda:*" || strings.EqualFold(st.Action, action)
}

// holdsForPublicURL tells whether a condition holds for an anonymous request to
// a URL of AuthType NONE. All other keys have no value there.
func (c *condition) holdsForPublicURL() bool {
	if c == nil {
		return true
	}
	for key, want := range c.StringEquals {
		if key != "lambda:FunctionUrlAuthType" || want != string(api.FunctionUrlAuthTypeNone) {
			return false
		}
	}
	for key, want := range c.Bool {
		if key != "lambda:InvokedViaFunctionUrl" || want != "true" {
			return false
		}
	}
	return len(c.ArnLike) == 0
}
