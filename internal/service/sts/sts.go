// Package sts is the behaviour of AWS STS: who a caller is, and temporary
// credentials for roles and users. The credentials themselves are made by
// package credentials; who may assume a role is decided by the roles.
package sts

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/sts"
	"lapwing.dev/lapwing/internal/credentials"
)

// Durations of sessions.
const (
	defaultRoleSession = time.Hour
	maxChainedSession  = time.Hour // of a role assumed by a role
	defaultUserSession = 12 * time.Hour
	maxRootSession     = time.Hour
)

// Issuer issues temporary credentials.
type Issuer interface {
	Issue(roleARN, sessionName string, ttl time.Duration) (credentials.Session, error)
	IssueFor(user aws.Identity, ttl time.Duration) (credentials.Session, error)
}

// Roles decides who may assume a role.
type Roles interface {
	// AssumeRole returns how long a session of the role may last, or the error
	// for a caller who may not have one.
	AssumeRole(r *aws.Request, roleARN, sessionName, externalID string) (time.Duration, error)
}

// Service implements the API of package aws/sts.
type Service struct {
	issuer Issuer
	roles  Roles
}

var _ sts.API = (*Service)(nil)

// New returns the service.
func New(issuer Issuer, roles Roles) *Service { return &Service{issuer: issuer, roles: roles} }

func validationError(format string, args ...any) *aws.Error {
	return &aws.Error{Code: "ValidationError", Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

func accessDenied(message string) *aws.Error {
	return &aws.Error{Code: "AccessDenied", Status: http.StatusForbidden, Message: message}
}

// refuseUnserved refuses parameters that would change what a session may do,
// or who it says it is, and are not honoured.
func refuseUnserved(parameters map[string]bool) error {
	for name, used := range parameters {
		if used {
			return &aws.Error{Code: "NotImplemented", Status: http.StatusNotImplemented, Message: "The parameter " + name + " is not supported by Lapwing."}
		}
	}
	return nil
}

func isSession(caller aws.Identity) bool { return strings.HasPrefix(caller.AccessKeyID, "ASIA") }

func isRole(caller aws.Identity) bool { return strings.Contains(caller.ARN, ":assumed-role/") }

func output(s credentials.Session) *sts.Credentials {
	return &sts.Credentials{
		AccessKeyId: &s.AccessKeyID, SecretAccessKey: &s.SecretAccessKey, SessionToken: &s.SessionToken, Expiration: &s.Expiration,
	}
}

// GetCallerIdentity implements sts.API.
func (s *Service) GetCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	caller := aws.RequestFrom(ctx).Caller
	return &sts.GetCallerIdentityOutput{UserId: &caller.UserID, Account: &caller.AccountID, Arn: &caller.ARN}, nil
}

// GetAccessKeyInfo implements sts.API. The account is part of an access key id.
func (s *Service) GetAccessKeyInfo(_ context.Context, in *sts.GetAccessKeyInfoInput) (*sts.GetAccessKeyInfoOutput, error) {
	account, ok := credentials.AccountOfKey(*in.AccessKeyId)
	if !ok {
		return nil, validationError("Invalid accessKeyId: %s", *in.AccessKeyId)
	}
	return &sts.GetAccessKeyInfoOutput{Account: &account}, nil
}

// AssumeRole implements sts.API.
func (s *Service) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	err := refuseUnserved(map[string]bool{
		"Policy": in.Policy != nil, "PolicyArns": len(in.PolicyArns) > 0, "Tags": len(in.Tags) > 0,
		"TransitiveTagKeys": len(in.TransitiveTagKeys) > 0, "SourceIdentity": in.SourceIdentity != nil,
		"SerialNumber": in.SerialNumber != nil, "TokenCode": in.TokenCode != nil, "ProvidedContexts": len(in.ProvidedContexts) > 0,
	})
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(*in.RoleArn, "arn:") {
		return nil, validationError("%s is invalid", *in.RoleArn)
	}
	r := aws.RequestFrom(ctx)
	longest, err := s.roles.AssumeRole(r, *in.RoleArn, *in.RoleSessionName, aws.Value(in.ExternalId))
	if err != nil {
		return nil, err
	}
	ttl := defaultRoleSession
	if in.DurationSeconds != nil {
		ttl = time.Duration(*in.DurationSeconds) * time.Second
	}
	switch {
	case ttl > longest:
		return nil, validationError("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	case ttl > maxChainedSession && isRole(r.Caller):
		return nil, validationError("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	session, err := s.issuer.Issue(*in.RoleArn, *in.RoleSessionName, ttl)
	if err != nil {
		return nil, err
	}
	return &sts.AssumeRoleOutput{
		Credentials:     output(session),
		AssumedRoleUser: &sts.AssumedRoleUser{AssumedRoleId: &session.Identity.UserID, Arn: &session.Identity.ARN},
	}, nil
}

// GetSessionToken implements sts.API.
func (s *Service) GetSessionToken(ctx context.Context, in *sts.GetSessionTokenInput) (*sts.GetSessionTokenOutput, error) {
	if err := refuseUnserved(map[string]bool{"SerialNumber": in.SerialNumber != nil, "TokenCode": in.TokenCode != nil}); err != nil {
		return nil, err
	}
	caller := aws.RequestFrom(ctx).Caller
	if isSession(caller) {
		return nil, accessDenied("Cannot call GetSessionToken with session credentials")
	}
	ttl := defaultUserSession
	if in.DurationSeconds != nil {
		ttl = time.Duration(*in.DurationSeconds) * time.Second
	}
	if strings.HasSuffix(caller.ARN, ":root") {
		ttl = min(ttl, maxRootSession)
	}
	session, err := s.issuer.IssueFor(caller, ttl)
	if err != nil {
		return nil, err
	}
	return &sts.GetSessionTokenOutput{Credentials: output(session)}, nil
}
