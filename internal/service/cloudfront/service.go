package cloudfront

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/cloudfront"
	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/keyvalue"
	"lapwing.dev/lapwing/internal/state"
)

// Options configures a Service. All fields above the blank line are required.
type Options struct {
	Store     *state.Store
	Records   *distribution.Records
	AccountID string
	Locations Locations
	Functions Functions
	Buckets   Buckets
	KeyValues *keyvalue.Writer
	Logger    *slog.Logger

	// Strict2023 holds Lambda functions to the limits that viewer events had in
	// June 2023.
	Strict2023 bool
	// Now tells the time; time.Now when nil.
	Now func() time.Time
}

// Service is the behaviour of the CloudFront API; it implements api.API.
type Service struct {
	opts    Options
	records *distribution.Records

	// writing is held by whatever changes something: what a resource refers to
	// stays what it is while the resource is checked and written.
	writing sync.Mutex

	distributions kind[distributionResource]
	invalidations kind[invalidationResource]

	cachePolicies           policies[api.CachePolicyConfig]
	originRequestPolicies   policies[api.OriginRequestPolicyConfig]
	responseHeadersPolicies policies[api.ResponseHeadersPolicyConfig]

	accessControls kind[api.OriginAccessControlConfig]
	identities     kind[identityResource]
	publicKeys     kind[api.PublicKeyConfig]
	keyGroups      kind[api.KeyGroupConfig]
	functions      kind[functionResource]
	keyValueStores kind[keyValueStoreResource]
	realtimeLogs   kind[realtimeLogResource] // by name

	tidier *tidier
}

// New opens the service, and brings what edge locations serve up to what the API
// has said.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Service{
		opts: o, records: o.Records,
		cachePolicies: policies[api.CachePolicyConfig]{
			managed: managedCachePolicies(), check: checkCachePolicy,
			name: func(c *api.CachePolicyConfig) string { return *c.Name }, of: func(b *api.CacheBehavior) *string { return b.CachePolicyId },
			exists: api.NewCachePolicyAlreadyExists, tooMany: api.NewTooManyCachePolicies, inUse: api.NewCachePolicyInUse,
		},
		originRequestPolicies: policies[api.OriginRequestPolicyConfig]{
			managed: managedOriginRequestPolicies(), check: checkOriginRequestPolicy,
			name: func(c *api.OriginRequestPolicyConfig) string { return *c.Name }, of: func(b *api.CacheBehavior) *string { return b.OriginRequestPolicyId },
			exists: api.NewOriginRequestPolicyAlreadyExists, tooMany: api.NewTooManyOriginRequestPolicies, inUse: api.NewOriginRequestPolicyInUse,
		},
		responseHeadersPolicies: policies[api.ResponseHeadersPolicyConfig]{
			managed: managedResponseHeadersPolicies(), check: checkResponseHeadersPolicy,
			name: func(c *api.ResponseHeadersPolicyConfig) string { return *c.Name }, of: func(b *api.CacheBehavior) *string { return b.ResponseHeadersPolicyId },
			exists: api.NewResponseHeadersPolicyAlreadyExists, tooMany: api.NewTooManyResponseHeadersPolicies, inUse: api.NewResponseHeadersPolicyInUse,
		},
	}
	err := errors.Join(
		s.distributions.open(ctx, s, "cloudfront-distributions", api.NewNoSuchDistribution, "The specified distribution does not exist."),
		s.invalidations.open(ctx, s, "cloudfront-invalidations", api.NewNoSuchInvalidation, "The specified invalidation does not exist."),
		s.cachePolicies.open(ctx, s, "cloudfront-cache-policies", api.NewNoSuchCachePolicy, "The specified cache policy does not exist."),
		s.originRequestPolicies.open(ctx, s, "cloudfront-origin-request-policies", api.NewNoSuchOriginRequestPolicy, "The specified origin request policy does not exist."),
		s.responseHeadersPolicies.open(ctx, s, "cloudfront-response-headers-policies", api.NewNoSuchResponseHeadersPolicy, "The specified response headers policy does not exist."),
		s.accessControls.open(ctx, s, "cloudfront-origin-access-controls", api.NewNoSuchOriginAccessControl, "The specified origin access control does not exist."),
		s.identities.open(ctx, s, "cloudfront-origin-access-identities", api.NewNoSuchCloudFrontOriginAccessIdentity, "The specified origin access identity does not exist."),
		s.publicKeys.open(ctx, s, "cloudfront-public-keys", api.NewNoSuchPublicKey, "The specified public key does not exist."),
		s.keyGroups.open(ctx, s, "cloudfront-key-groups", api.NewNoSuchResource, "The specified key group does not exist."),
		s.functions.open(ctx, s, "cloudfront-functions", api.NewNoSuchFunctionExists, "The specified function does not exist."),
		s.keyValueStores.open(ctx, s, "cloudfront-key-value-stores", api.NewEntityNotFound, "The specified key value store does not exist."),
		s.realtimeLogs.open(ctx, s, "cloudfront-realtime-logs", api.NewNoSuchRealtimeLogConfig, "The real-time log configuration does not exist."),
	)
	if err != nil {
		return nil, fmt.Errorf("cloudfront: %w", err)
	}
	if err := s.publishAll(ctx); err != nil {
		return nil, fmt.Errorf("cloudfront: derive what edge locations serve: %w", err)
	}
	s.tidier = newTidier(s)
	o.KeyValues.OnStale(s.tidier.wake)
	return s, nil
}

// Close ends what the service does in the background.
func (s *Service) Close() { s.tidier.close() }

// arn returns the ARN of a resource, e.g. of distribution/E1….
func (s *Service) arn(resource string) string {
	return "arn:aws:cloudfront::" + s.opts.AccountID + ":" + resource
}

// location returns the URL of a new resource, as the Location header has it.
func location(ctx context.Context, path string) *string {
	return aws.Ptr(aws.RequestFrom(ctx).BaseURL + "/2020-05-31/" + path)
}

// unsupported refuses what AWS has and Lapwing does not.
func unsupported(what string) *aws.Error {
	return api.NewInvalidArgument("%s is not supported by Lapwing.", what)
}
