package cluster

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Token lets one node join.
type Token struct {
	Name   string `json:"name"`   // of the node
	CA     string `json:"ca"`     // fingerprint of the authority
	Secret string `json:"secret"` // 32 random bytes, in base64
}

// tokenPrefix begins every token; the digit is the format's version.
const tokenPrefix = "lapwing-join-1."

// maxToken bounds the tokens that we take the trouble to read, in bytes.
const maxToken = 1024

// NewToken makes a token. The core keeps its Key, and gives the text away.
func NewToken(name, ca string) Token {
	secret := make([]byte, 32)
	rand.Read(secret)
	return Token{Name: name, CA: ca, Secret: base64.RawURLEncoding.EncodeToString(secret)}
}

// String returns the token as text, which is a secret.
func (t Token) String() string {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // it is strings
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// Key is what the core knows a token by: it tells nothing of the secret.
func (t Token) Key() string { return TokenKey(t.Secret) }

// TokenKey returns the Key of the token with a secret.
func TokenKey(secret string) string {
	sum := sha256.Sum256([]byte("lapwing join\x00" + secret))
	return hex.EncodeToString(sum[:])
}

// ParseToken reads what String made.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok || len(s) > maxToken {
		return Token{}, errors.New("cluster: this is no join token")
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	var t Token
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	// Not wrapped: the error could quote the secret.
	if err != nil || !ValidName(t.Name) || len(t.CA) != 2*sha256.Size || t.Secret == "" {
		return Token{}, fmt.Errorf("cluster: the join token is damaged (of %d characters)", len(s))
	}
	return t, nil
}
