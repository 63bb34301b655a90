// Package ecr is the behaviour of Elastic Container Registry over package
// registry, which container tools reach by the OCI distribution protocol on the
// same port. There is one registry, the account's own.
//
// A repository's URI is one that the client can use: below the domain by which
// it reached Lapwing, as account.dkr.ecr.region.domain, or the address itself.
// Any of them names the same repository.
//
// Repository policies are kept, not evaluated. Scanning, customer keys,
// replication, pull-through caches and archived images are not served. Parts of
// layers may be smaller than the 5 MiB that AWS demands.
package ecr

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/ecr"
	"lapwing.dev/lapwing/internal/registry"
)

// Tokens issues the passwords of the registry; package credentials does.
type Tokens interface {
	IssueRegistryToken(id aws.Identity) (token string, expires time.Time, err error)
}

// Service implements api.API.
type Service struct {
	registry *registry.Registry
	tokens   Tokens
	now      func() time.Time

	mu       sync.Mutex
	previews map[string]preview // of lifecycle policies, by repository id
}

var _ api.API = (*Service)(nil)

// New returns the service over a registry, which the caller closes after it.
// now tells the time; time.Now when nil.
func New(r *registry.Registry, tokens Tokens, now func() time.Time) *Service {
	if now == nil {
		now = time.Now
	}
	return &Service{registry: r, tokens: tokens, now: now, previews: map[string]preview{}}
}

// exceptions are the API's errors by the registry's.
var exceptions = map[registry.Kind]func(format string, args ...any) *aws.Error{
	registry.RepositoryNotFound:       api.NewRepositoryNotFoundException,
	registry.RepositoryExists:         api.NewRepositoryAlreadyExistsException,
	registry.RepositoryNotEmpty:       api.NewRepositoryNotEmptyException,
	registry.ImageNotFound:            api.NewImageNotFoundException,
	registry.ImageExists:              api.NewImageAlreadyExistsException,
	registry.TagImmutable:             api.NewImageTagAlreadyExistsException,
	registry.DigestMismatch:           api.NewImageDigestDoesNotMatchException,
	registry.LayersNotFound:           api.NewLayersNotFoundException,
	registry.LayerNotFound:            api.NewLayersNotFoundException,
	registry.ReferencedImagesNotFound: api.NewReferencedImagesNotFoundException,
	registry.UploadNotFound:           api.NewUploadNotFoundException,
	registry.InvalidPart:              api.NewInvalidLayerPartException,
	registry.TooManyUploads:           api.NewLimitExceededException,
	registry.TooLarge:                 api.NewLimitExceededException,
}

// failure turns an error of the registry into the API's.
func failure(err error) error {
	e, ok := errors.AsType[*registry.Error](err)
	if !ok {
		return err
	}
	exception, ok := exceptions[e.Kind]
	if !ok {
		exception = api.NewInvalidParameterException
	}
	return exception("%s", e.Message)
}

func invalid(format string, args ...any) error {
	return api.NewInvalidParameterException(format, args...)
}

// unsupported refuses what AWS has and this service does not.
func unsupported(what string) error { return invalid("%s is not supported by Lapwing.", what) }

// own refuses the registries of other accounts, of which there are none.
func (s *Service) own(registryID, repository *string) error {
	if id := aws.Value(registryID); id != "" && id != s.registry.AccountID() {
		return api.NewRepositoryNotFoundException("The repository with name '%s' does not exist in the registry with id '%s'", aws.Value(repository), id)
	}
	return nil
}

// repository finds the repository of a request.
func (s *Service) repository(registryID, name *string) (registry.Repository, error) {
	if err := s.own(registryID, name); err != nil {
		return registry.Repository{}, err
	}
	repo, err := s.registry.Repository(*name)
	return repo, failure(err)
}

// id returns the registry's id as outputs have it.
func (s *Service) id() *string { return aws.Ptr(s.registry.AccountID()) }

// host returns the host of the registry for the client that made a request, and
// the scheme by which it reached us.
func (s *Service) host(ctx context.Context) (scheme, host string) {
	r := aws.RequestFrom(ctx)
	service := s.registry.AccountID() + ".dkr.ecr." + r.Region + "."
	u, err := url.Parse(r.BaseURL)
	if err != nil || u.Host == "" {
		return "https", service + "amazonaws.com"
	}
	if name := u.Hostname(); net.ParseIP(name) != nil || name == "localhost" {
		return u.Scheme, u.Host
	}
	domain := u.Host
	for _, prefix := range []string{"api.ecr.", "ecr."} {
		if rest, ok := strings.CutPrefix(domain, prefix); ok {
			domain = strings.TrimPrefix(rest, r.Region+".")
			break
		}
	}
	return u.Scheme, service + domain
}

// GetAuthorizationToken implements api.API.
func (s *Service) GetAuthorizationToken(ctx context.Context, in *api.GetAuthorizationTokenInput) (*api.GetAuthorizationTokenOutput, error) {
	for _, id := range in.RegistryIds {
		if id != s.registry.AccountID() {
			return nil, invalid("The registry with id '%s' does not exist.", id)
		}
	}
	token, expires, err := s.tokens.IssueRegistryToken(aws.RequestFrom(ctx).Caller)
	if err != nil {
		return nil, err
	}
	scheme, host := s.host(ctx)
	return &api.GetAuthorizationTokenOutput{AuthorizationData: []*api.AuthorizationData{{
		AuthorizationToken: aws.Ptr(base64.StdEncoding.EncodeToString([]byte(registry.User + ":" + token))),
		ExpiresAt:          &expires, ProxyEndpoint: aws.Ptr(scheme + "://" + host),
	}}}, nil
}

// DescribeRegistry implements api.API. Nothing is replicated.
func (s *Service) DescribeRegistry(context.Context, *api.DescribeRegistryInput) (*api.DescribeRegistryOutput, error) {
	return &api.DescribeRegistryOutput{RegistryId: s.id(), ReplicationConfiguration: &api.ReplicationConfiguration{Rules: []*api.ReplicationRule{}}}, nil
}

// token makes a pagination token that names the last entry of a page.
func token(last string) *string {
	return aws.Ptr(base64.RawURLEncoding.EncodeToString([]byte(last)))
}

// parseToken reads what token made.
func parseToken(t *string) (last string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(aws.Value(t))
	if err != nil {
		return "", invalid("Invalid parameter at 'nextToken' failed to satisfy constraint: 'Invalid next token'")
	}
	return string(b), nil
}

// limit returns how many entries a page has.
func limit(maxResults *int32, otherwise int) int {
	if maxResults == nil {
		return otherwise
	}
	return int(*maxResults)
}
