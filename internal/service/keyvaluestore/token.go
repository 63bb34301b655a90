package keyvaluestore

import (
	"encoding/base64"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	api "lapwing.dev/lapwing/internal/aws/keyvaluestore"
)

// tokenVersion begins the tokens of pages.
const tokenVersion = "1"

// token makes the token of the page that follows a key.
func token(key string) *string {
	return aws.Ptr(tokenVersion + base64.RawURLEncoding.EncodeToString([]byte(key)))
}

// readToken returns the key that a page follows; empty for the first page.
func readToken(s *string) (key string, err error) {
	if aws.Value(s) == "" {
		return "", nil
	}
	encoded, ok := strings.CutPrefix(*s, tokenVersion)
	b, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || !ok {
		return "", api.NewValidationException("Validation failed: the NextToken is not valid.")
	}
	return string(b), nil
}
