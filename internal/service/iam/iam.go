// Package iam is the behaviour of AWS IAM: users with their access keys, roles
// and managed policies, as records of package state.
//
// A user, a role and a policy are one record each, with everything that
// belongs to them (inline policies, attachments, tags, versions), so that most
// operations change a single record. One mutex makes the operations that look
// at several records before they write one, as deleting a policy does, happen
// one after the other. Reads come from memory.
//
// Policies are kept, checked for their form and handed out; they are not
// evaluated, but for the trust policies of roles (see AssumeRole). What
// principals may do is decided by the gateway's Authorizer.
//
// Service is also the credentials.Source: the gateway finds in it whose access
// key signed a request.
package iam

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/iam"
	"lapwing.dev/lapwing/internal/state"
)

// Quotas of an account, AWS's defaults.
const (
	maxUsers            = 5000
	maxRoles            = 1000
	maxPolicies         = 1500
	maxAccessKeys       = 2  // of a user
	maxAttached         = 10 // policies of a user or role
	maxVersions         = 5  // of a policy
	maxTags             = 50
	maxPolicySize       = 6144 // characters without white space
	maxUserInlineSize   = 2048 // together
	maxRoleInlineSize   = 10240
	maxTrustPolicySize  = 2048
	defaultSessionLimit = 3600 // seconds
)

// Service implements the API of package aws/iam and credentials.Source.
type Service struct {
	accountID string
	mu        sync.Mutex // held by operations that write
	users     holders[user]
	roles     holders[role]
	keys      *state.Collection[accessKey]
	policies  *state.Collection[policy]
}

var _ iam.API = (*Service)(nil)

// Open returns the service of an account over its records in a store.
func Open(ctx context.Context, store *state.Store, accountID string) (*Service, error) {
	s := &Service{accountID: accountID}
	var err error
	if s.users.records, err = state.Collect[user](ctx, store, "iam-users"); err != nil {
		return nil, fmt.Errorf("iam: %w", err)
	}
	if s.roles.records, err = state.Collect[role](ctx, store, "iam-roles"); err != nil {
		return nil, fmt.Errorf("iam: %w", err)
	}
	if s.keys, err = state.Collect[accessKey](ctx, store, "iam-access-keys"); err != nil {
		return nil, fmt.Errorf("iam: %w", err)
	}
	if s.policies, err = state.Collect[policy](ctx, store, "iam-policies"); err != nil {
		return nil, fmt.Errorf("iam: %w", err)
	}
	s.users.kind, s.users.inlineSize = "user", maxUserInlineSize
	s.users.principal = func(u *user) *principal { return &u.principal }
	s.roles.kind, s.roles.inlineSize = "role", maxRoleInlineSize
	s.roles.principal = func(r *role) *principal { return &r.principal }
	if err := s.finishRenames(ctx); err != nil {
		return nil, fmt.Errorf("iam: %w", err)
	}
	return s, nil
}

// keyOf is the key of the record that has a name. IAM's names differ by more
// than case, and are found only in the case that they were created in.
func keyOf(name string) string { return strings.ToLower(name) }

// newID makes a unique id: a prefix of four letters and seventeen characters.
func newID(prefix string) string {
	var b [11]byte
	rand.Read(b[:])
	return prefix + base32.StdEncoding.EncodeToString(b[:])[:17]
}

// now is the present, as IAM keeps times.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// pathOf returns the path of a request, "/" where it names none.
func pathOf(p *string) string {
	if p == nil {
		return "/"
	}
	return *p
}

// arn makes the ARN of an IAM resource of the account.
func (s *Service) arn(kind, path, name string) string {
	return "arn:aws:iam::" + s.accountID + ":" + kind + path + name
}

func validationError(format string, args ...any) *aws.Error {
	return &aws.Error{Code: "ValidationError", Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

// quotaExceeded is the error of one entity too many.
func quotaExceeded(quota string, limit int) *aws.Error {
	return iam.NewLimitExceededException("Cannot exceed quota for %s: %d", quota, limit)
}

// notServed refuses what Lapwing does not do yet.
func notServed(what string) *aws.Error {
	return &aws.Error{Code: "NotImplemented", Status: http.StatusNotImplemented, Message: what + " is not supported by Lapwing."}
}
