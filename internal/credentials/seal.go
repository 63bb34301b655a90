package credentials

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// claims are what a session token holds.
type claims struct {
	Role    string `json:"r,omitempty"` // ARN of the role, or
	Session string `json:"s,omitempty"` // (name of the role's session)
	UserARN string `json:"u,omitempty"` // ARN and
	UserID  string `json:"i,omitempty"` // unique id of the user
	Expires int64  `json:"e"`           // seconds since 1970
	Salt    []byte `json:"n"`           // of the secret
}

// tokenVersion is the first byte of a session token.
const tokenVersion = 1

// maxToken bounds the tokens that we take the trouble to open.
const maxToken = 4096

// sealer seals claims into tokens and derives secrets, each with its own key.
type sealer struct {
	aead      cipher.AEAD
	secretKey []byte
}

func newSealer(master []byte) (*sealer, error) {
	tokenKey, err := hkdf.Key(sha256.New, master, nil, "lapwing session token", 32)
	if err != nil {
		return nil, err
	}
	secretKey, err := hkdf.Key(sha256.New, master, nil, "lapwing session secret", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(tokenKey)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &sealer{aead: aead, secretKey: secretKey}, nil
}

// seal makes the session token of an access key.
func (s *sealer) seal(accessKeyID string, c *claims) (string, error) {
	plain, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("seal a session token: %w", err)
	}
	return base64.StdEncoding.EncodeToString(s.aead.Seal([]byte{tokenVersion}, nil, plain, []byte(accessKeyID))), nil
}

// open takes a session token apart, if it is one that seal made for the access
// key.
func (s *sealer) open(accessKeyID, token string) (*claims, error) {
	if len(token) > maxToken {
		return nil, ErrInvalidToken
	}
	sealed, err := base64.StdEncoding.Strict().DecodeString(token)
	if err != nil || len(sealed) == 0 || sealed[0] != tokenVersion {
		return nil, ErrInvalidToken
	}
	plain, err := s.aead.Open(nil, nil, sealed[1:], []byte(accessKeyID))
	if err != nil {
		return nil, ErrInvalidToken
	}
	c := new(claims)
	if err := json.Unmarshal(plain, c); err != nil {
		return nil, ErrInvalidToken
	}
	return c, nil
}

// secret derives the secret access key of a session.
func (s *sealer) secret(accessKeyID string, salt []byte) string {
	mac := hmac.New(sha256.New, s.secretKey)
	mac.Write([]byte(accessKeyID))
	mac.Write(salt)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil)[:30])
}

// derivedID derives the seventeen characters of a unique id from a name.
func (s *sealer) derivedID(name string) string {
	mac := hmac.New(sha256.New, s.secretKey)
	mac.Write([]byte("id"))
	mac.Write([]byte(name))
	return base32.StdEncoding.EncodeToString(mac.Sum(nil))[:17]
}
