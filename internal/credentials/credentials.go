// Package credentials knows who may sign requests: the account's root user,
// whose access key is generated at the first start; IAM users, whose keys a
// Source keeps; and the holders of temporary credentials, which this package
// issues for roles and users.
//
// Temporary credentials are stateless. What the session may act as is sealed
// in its session token, and its secret derives from its access key id, so
// nothing is stored for a session and any number of them costs no memory.
package credentials

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"lapwing.dev/lapwing/internal/aws"
)

// Errors of Lookup.
var (
	// ErrUnknownKey means that the access key id is not one of ours, or is
	// inactive.
	ErrUnknownKey = errors.New("the access key id is unknown")
	// ErrInvalidToken means that the session token does not belong to the
	// access key id, or is missing where there must be one.
	ErrInvalidToken = errors.New("the session token is invalid")
	// ErrExpired means that the session is over.
	ErrExpired = errors.New("the session token has expired")
)

// Source keeps the principals that IAM manages. Its methods are called for
// every request, so they answer from memory.
type Source interface {
	// UserKey returns the secret and the owner of an active access key.
	UserKey(accessKeyID string) (secret string, owner aws.Identity, ok bool)
	// RoleID returns the unique id (AROA…) of the role that has an ARN.
	RoleID(roleARN string) (id string, ok bool)
}

// Session is a set of temporary credentials.
type Session struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	Expiration      time.Time
	// Identity is who the session acts as.
	Identity aws.Identity
}

// Store holds the credentials of one data directory. It is safe for concurrent
// use.
type Store struct {
	root    Root
	rootARN string
	sealer  *sealer
	source  atomic.Pointer[Source]
}

// Open opens the credentials in a directory, and makes them if there are none.
func Open(dir string) (*Store, error) {
	f, err := openFile(dir)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	sealer, err := newSealer(f.SealKey)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	return &Store{root: f.Root, rootARN: "arn:aws:iam::" + f.Root.AccountID + ":root", sealer: sealer}, nil
}

// Root returns the root user's credentials.
func (s *Store) Root() Root { return s.root }

// AccountID returns the id of the account, twelve digits.
func (s *Store) AccountID() string { return s.root.AccountID }

// SetSource tells where the keys of IAM users are. Until then there are none.
func (s *Store) SetSource(source Source) { s.source.Store(&source) }

// Lookup returns the secret with which requests of an access key are signed,
// and who signs with it. The errors are ErrUnknownKey, ErrInvalidToken and
// ErrExpired.
func (s *Store) Lookup(accessKeyID, sessionToken string) (secret string, id aws.Identity, err error) {
	if strings.HasPrefix(accessKeyID, prefixSession) {
		return s.lookupSession(accessKeyID, sessionToken)
	}
	if accessKeyID == s.root.AccessKeyID {
		secret = s.root.SecretAccessKey
		id = aws.Identity{AccountID: s.root.AccountID, ARN: s.rootARN, UserID: s.root.AccountID}
	} else {
		source := s.source.Load()
		if source == nil {
			return "", aws.Identity{}, ErrUnknownKey
		}
		var ok bool
		if secret, id, ok = (*source).UserKey(accessKeyID); !ok {
			return "", aws.Identity{}, ErrUnknownKey
		}
	}
	if sessionToken != "" {
		return "", aws.Identity{}, ErrInvalidToken
	}
	id.AccessKeyID = accessKeyID
	return secret, id, nil
}

func (s *Store) lookupSession(accessKeyID, token string) (string, aws.Identity, error) {
	c, err := s.sealer.open(accessKeyID, token)
	if err != nil {
		return "", aws.Identity{}, err
	}
	if time.Now().After(time.Unix(c.Expires, 0)) {
		return "", aws.Identity{}, ErrExpired
	}
	id := s.identity(c)
	id.AccessKeyID = accessKeyID
	return s.sealer.secret(accessKeyID, c.Salt), id, nil
}

// identity is who a session acts as.
func (s *Store) identity(c *claims) aws.Identity {
	if c.Role == "" {
		return aws.Identity{AccountID: s.root.AccountID, ARN: c.UserARN, UserID: c.UserID}
	}
	name := c.Role[strings.LastIndexByte(c.Role, '/')+1:]
	return aws.Identity{
		AccountID: s.root.AccountID,
		ARN:       "arn:aws:sts::" + s.root.AccountID + ":assumed-role/" + name + "/" + c.Session,
		UserID:    s.roleID(c.Role) + ":" + c.Session,
	}
}

// roleID returns the unique id of a role. A function may name a role that IAM
// does not hold; its id then derives from the ARN, so that it is stable.
func (s *Store) roleID(arn string) string {
	if source := s.source.Load(); source != nil {
		if id, ok := (*source).RoleID(arn); ok {
			return id
		}
	}
	return "AROA" + s.sealer.derivedID(arn)
}

// MaxTTL is the longest life of a session.
const MaxTTL = 36 * time.Hour

var (
	roleARN = regexp.MustCompile(`^arn:aws:iam::(\d{12}):role/(?:[!-.0-~/]{1,511}/)?[\w+=,.@-]{1,64}$`)
	// AssumeRole asks for two characters, but functions may have names of one.
	sessionName = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
)

// SessionName returns the name of a function's role session: the function's, as
// far as a session may have it. At edge locations names are longer, since they
// begin with a Region.
func SessionName(function string) string { return function[:min(len(function), 64)] }

// Issue issues credentials that act as a role of this account. The session's
// name becomes part of the ARN of whoever uses them. The role need not exist:
// callers that must know (AssumeRole) check.
func (s *Store) Issue(role, session string, ttl time.Duration) (Session, error) {
	m := roleARN.FindStringSubmatch(role)
	switch {
	case m == nil:
		return Session{}, fmt.Errorf("credentials: %q is not the ARN of a role", role)
	case m[1] != s.root.AccountID:
		return Session{}, fmt.Errorf("credentials: role %s is of another account than %s", role, s.root.AccountID)
	case !sessionName.MatchString(session):
		return Session{}, fmt.Errorf("credentials: %q is not a role session name", session)
	}
	return s.issue(&claims{Role: role, Session: session}, ttl)
}

// IssueFor issues credentials that act as a user, or as the root user.
func (s *Store) IssueFor(user aws.Identity, ttl time.Duration) (Session, error) {
	if user.AccountID != s.root.AccountID || user.ARN == "" {
		return Session{}, fmt.Errorf("credentials: %q is not a user of account %s", user.ARN, s.root.AccountID)
	}
	return s.issue(&claims{UserARN: user.ARN, UserID: user.UserID}, ttl)
}

func (s *Store) issue(c *claims, ttl time.Duration) (Session, error) {
	if ttl <= 0 || ttl > MaxTTL {
		return Session{}, fmt.Errorf("credentials: a session of %s is outside of 0 to %s", ttl, MaxTTL)
	}
	keyID := newKeyID(prefixSession, s.root.AccountID)
	expires := time.Now().Add(ttl).UTC().Truncate(time.Second)
	c.Expires, c.Salt = expires.Unix(), newSalt()
	token, err := s.sealer.seal(keyID, c)
	if err != nil {
		return Session{}, fmt.Errorf("credentials: %w", err)
	}
	id := s.identity(c)
	id.AccessKeyID = keyID
	return Session{
		AccessKeyID: keyID, SecretAccessKey: s.sealer.secret(keyID, c.Salt), SessionToken: token,
		Expiration: expires, Identity: id,
	}, nil
}
