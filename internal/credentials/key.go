package credentials

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
)

// Prefixes of access key ids.
const (
	prefixLongTerm = "AKIA"
	prefixSession  = "ASIA"
)

// NewAccessKey makes a long-term access key of an account: an id of twenty
// characters and a secret of forty.
func NewAccessKey(accountID string) (id, secret string) {
	return newKeyID(prefixLongTerm, accountID), newSecret()
}

// newKeyID makes an access key id. Its last sixteen characters are 80 bits in
// base 32: one that is set, 40 of the account id, 39 random. That is how AWS
// makes them, and how tools find the account of a key.
func newKeyID(prefix, accountID string) string {
	account, err := strconv.ParseUint(accountID, 10, 40)
	if err != nil {
		panic("credentials: account id " + accountID + " is not twelve digits") // every account id comes from openFile, which checks it
	}
	var b [10]byte
	rand.Read(b[:]) // never fails, says crypto/rand
	head := uint64(1)<<47 | account<<7 | uint64(b[5]&0x7f)
	binary.BigEndian.PutUint16(b[0:], uint16(head>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(head))
	return prefix + base32.StdEncoding.EncodeToString(b[:])
}

// AccountOfKey returns the id of the account that an access key id belongs to.
func AccountOfKey(accessKeyID string) (accountID string, ok bool) {
	if len(accessKeyID) != 20 {
		return "", false
	}
	if p := accessKeyID[:4]; p != prefixLongTerm && p != prefixSession {
		return "", false
	}
	b, err := base32.StdEncoding.DecodeString(accessKeyID[4:])
	if err != nil {
		return "", false
	}
	head := uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
	account := head >> 7 & (1<<40 - 1)
	return fmt.Sprintf("%012d", account), account < 1e12
}

// newSecret makes a secret access key: 240 random bits in forty characters.
func newSecret() string {
	var b [30]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

func newSalt() []byte {
	b := make([]byte, 16)
	rand.Read(b)
	return b
}
