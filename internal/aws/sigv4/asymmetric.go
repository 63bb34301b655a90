package sigv4

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"path"
	"strings"
)

// Asymmetric signatures (SigV4A) differ from others in the key, which is of
// the curve P-256 and is derived from the credentials alone, and in the scope,
// which names no Region: X-Amz-Region-Set does, and may name several, with
// stars.

// regionSetHeader is where a request says which Regions it was signed for; in
// a presigned URL it is a parameter of this name.
const regionSetHeader = "X-Amz-Region-Set"

// maxECDSASignature is the longest signature in bytes: the DER of two numbers.
const maxECDSASignature = 72

// credentialID is what a key pair is derived from.
type credentialID struct{ accessKeyID, secret string }

func (id credentialID) own() credentialID {
	return credentialID{strings.Clone(id.accessKeyID), strings.Clone(id.secret)}
}

// verifiesECDSA tells whether the signature of a string to sign is by the
// private key of the credentials.
func (v *Verifier) verifiesECDSA(a *Authorization, secret string, toSign []byte) bool {
	if len(a.Signature) > 2*maxECDSASignature {
		return false
	}
	signature, err := hex.DecodeString(a.Signature)
	if err != nil {
		return false
	}
	hash := sha256.Sum256(toSign)
	return ecdsa.VerifyASN1(v.publicKeys.get(credentialID{a.AccessKeyID, secret}), hash[:], signature)
}

// derivePublicKey derives the public key of credentials.
func derivePublicKey(id credentialID) *ecdsa.PublicKey {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), derivePrivateKey(id))
	if err != nil {
		panic(fmt.Sprintf("sigv4: a derived key is not one of P-256: %v", err)) // it is in range
	}
	return &key.PublicKey
}

// derivePrivateKey derives the private key of credentials: the candidates are
// what NIST SP 800-108's KDF in counter mode makes of the secret, and the first
// that is at most the order of the curve less two, plus one, is the key (FIPS
// 186-4, B.4.2, as AWS's SDKs have it). All but one in 2^32 secrets take the
// first.
func derivePrivateKey(id credentialID) []byte {
	label := algorithmECDSA
	input := make([]byte, 0, 4+len(label)+1+len(id.accessKeyID)+1+4)
	input = binary.BigEndian.AppendUint32(input, 1) // the KDF's counter: one block is enough
	input = append(input, label...)
	input = append(input, 0)
	input = append(input, id.accessKeyID...)
	attempt := len(input)
	input = append(input, 0)
	input = binary.BigEndian.AppendUint32(input, 8*sha256.Size) // bits that are wanted
	for input[attempt] = 1; ; input[attempt]++ {
		if candidate := hmacSHA256([]byte("AWS4A"+id.secret), input); addOne(&candidate) {
			return candidate[:]
		}
	}
}

// orderLessOne is the order of P-256 less one, in 64-bit words, the lowest first.
var orderLessOne = [4]uint64{0xf3b9cac2fc632550, 0xbce6faada7179e84, 0xffffffffffffffff, 0xffffffff00000000}

// addOne adds one to a number and tells whether the sum is a private key, that
// is below the order. How long it takes does not depend on the number.
func addOne(n *[sha256.Size]byte) (ok bool) {
	carry, borrow := uint64(1), uint64(0)
	for i := range 4 {
		word := n[8*(3-i):]
		var sum uint64
		sum, carry = bits.Add64(binary.BigEndian.Uint64(word), 0, carry)
		_, borrow = bits.Sub64(orderLessOne[i], sum, borrow)
		binary.BigEndian.PutUint64(word, sum)
	}
	return carry|borrow == 0
}

// covers tells whether a set of Regions that a request was signed for, as in
// "us-east-1,eu-*", has one of the allowed ones.
func covers(set string, allowed []string) bool {
	for pattern := range strings.SplitSeq(set, ",") {
		pattern = strings.TrimSpace(pattern)
		for _, region := range allowed {
			if ok, err := path.Match(pattern, region); ok && err == nil {
				return true
			}
		}
	}
	return false
}
