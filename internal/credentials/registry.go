package credentials

import (
	"fmt"
	"time"

	"lapwing.dev/lapwing/internal/aws"
)

// RegistryTokenTTL is how long the password for a container registry works
// (Amazon ECR API reference, GetAuthorizationToken).
const RegistryTokenTTL = 12 * time.Hour

// registryToken stands where session tokens have an access key id, so that
// neither kind can be taken for the other.
const registryToken = "registry"

// IssueRegistryToken issues a password for the container registry, with which
// its holder acts as id.
func (s *Store) IssueRegistryToken(id aws.Identity) (token string, expires time.Time, err error) {
	if id.AccountID != s.root.AccountID || id.ARN == "" {
		return "", time.Time{}, fmt.Errorf("credentials: %q is not of account %s", id.ARN, s.root.AccountID)
	}
	expires = time.Now().Add(RegistryTokenTTL).UTC().Truncate(time.Second)
	token, err = s.sealer.seal(registryToken, &claims{UserARN: id.ARN, UserID: id.UserID, Expires: expires.Unix()})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("credentials: %w", err)
	}
	return token, expires, nil
}

// CheckRegistryToken says whom the holder of a password for the container
// registry acts as. The errors are ErrInvalidToken and ErrExpired.
func (s *Store) CheckRegistryToken(token string) (aws.Identity, error) {
	c, err := s.sealer.open(registryToken, token)
	if err != nil {
		return aws.Identity{}, err
	}
	if time.Now().After(time.Unix(c.Expires, 0)) {
		return aws.Identity{}, ErrExpired
	}
	return s.identity(c), nil
}
