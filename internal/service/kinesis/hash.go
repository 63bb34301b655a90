package kinesis

import (
	"bytes"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"math/big"
)

// hashKey is a number of 128 bits, big-endian: partition keys are spread over
// shards by their MD5 (API reference, "PutRecord").
type hashKey [16]byte

var (
	lastKey = hashKey(bytes.Repeat([]byte{0xff}, 16))
	one     = big.NewInt(1)
)

func hashOf(partitionKey string) hashKey { return md5.Sum([]byte(partitionKey)) }

func (k hashKey) compare(o hashKey) int { return bytes.Compare(k[:], o[:]) }

func (k hashKey) big() *big.Int { return new(big.Int).SetBytes(k[:]) }

// String returns the number in decimal, as the API has it.
func (k hashKey) String() string { return k.big().String() }

// keyOf turns a number that fits into a hash key.
func keyOf(n *big.Int) (k hashKey) {
	n.FillBytes(k[:])
	return k
}

// parseKey reads a number in decimal.
func parseKey(s string) (hashKey, bool) {
	n, ok := new(big.Int).SetString(s, 10)
	if !ok || n.Sign() < 0 || n.BitLen() > 128 {
		return hashKey{}, false
	}
	return keyOf(n), true
}

// before returns the number before k, which is not 0.
func (k hashKey) before() hashKey { return keyOf(new(big.Int).Sub(k.big(), one)) }

// after returns the number after k, which is not the last one.
func (k hashKey) after() hashKey { return keyOf(new(big.Int).Add(k.big(), one)) }

// starts returns where n equal shares of all hash keys begin.
func starts(n int) []hashKey {
	share := new(big.Int).Div(new(big.Int).Lsh(one, 128), big.NewInt(int64(n)))
	list := make([]hashKey, n)
	for i := range list {
		list[i] = keyOf(new(big.Int).Mul(share, big.NewInt(int64(i))))
	}
	return list
}

// MarshalJSON implements json.Marshaler.
func (k hashKey) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// UnmarshalJSON implements json.Unmarshaler.
func (k *hashKey) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, ok := parseKey(s)
	if !ok {
		return fmt.Errorf("%q is no hash key", s)
	}
	*k = v
	return nil
}
