package s3

import (
	"context"
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	checksums "lapwing.dev/lapwing/internal/aws/checksum"
	api "lapwing.dev/lapwing/internal/aws/s3"
)

// checksum is the checksum that is kept with an object or a part.
type checksum struct {
	Algorithm string `json:"algorithm"` // as the API's ChecksumAlgorithm names it
	Value     string `json:"value"`     // base64; in a composite one followed by -N, the number of parts
	Type      string `json:"type"`      // fullObject or composite
}

// Checksum types: over the whole body, or over the checksums of the parts.
const (
	fullObject = "FULL_OBJECT"
	composite  = "COMPOSITE"
)

// declaredChecksum reads what the request says about its body's checksum.
func declaredChecksum(ctx context.Context, sdk api.ChecksumAlgorithm) (checksums.Declaration, error) {
	r := aws.RequestFrom(ctx)
	return checksums.Declared(r.Header, r.Trailer, string(sdk))
}

// setChecksum fills the checksum members that shape (a pointer to a generated
// structure) has, by their names: a dozen shapes have the same ones.
func setChecksum(shape any, c *checksum) {
	if c == nil {
		return
	}
	s := reflect.ValueOf(shape).Elem()
	s.FieldByName("Checksum" + c.Algorithm).Set(reflect.ValueOf(&c.Value))
	if f := s.FieldByName("ChecksumType"); f.IsValid() {
		f.SetString(c.Type)
	}
}

// getChecksum reads the checksum members of a generated structure.
func getChecksum(shape any) (c *checksum, err error) {
	s := reflect.ValueOf(shape).Elem()
	for field, value := range s.Fields() {
		name, ok := strings.CutPrefix(field.Name, "Checksum")
		if !ok || value.Kind() != reflect.Pointer || value.IsNil() {
			continue
		}
		if c != nil {
			return nil, fail("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		if _, err := checksums.Find(name); err != nil {
			return nil, err
		}
		c = &checksum{Algorithm: name, Value: value.Elem().String()}
	}
	return c, nil
}

// compositeChecksum is the checksum of the parts' checksums.
func compositeChecksum(a *checksums.Algorithm, parts []*checksum) (*checksum, error) {
	h := a.New()
	for _, p := range parts {
		b, err := base64.StdEncoding.DecodeString(p.Value)
		if err != nil {
			return nil, fmt.Errorf("stored checksum %q: %w", p.Value, err)
		}
		h.Write(b)
	}
	value := fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(parts))
	return &checksum{Algorithm: a.Name, Value: value, Type: composite}, nil
}

// combineCRC returns the CRC of two bodies one after the other, from the CRCs
// of each and the length of the second. The CRC of the first is moved on by as
// many zero bytes as the second has, which is a multiplication by a power of x
// modulo the polynomial.
func combineCRC(polynomial uint64, bits int, first, second uint64, length int64) uint64 {
	one := uint64(1) << (bits - 1) // the polynomial 1 in reflected form
	shift, square := one, one>>1   // x^0 and x^1
	// length bytes are 8*length zero bits.
	for range 3 {
		square = multiply(polynomial, bits, square, square)
	}
	for n := length; n > 0; n >>= 1 {
		if n&1 == 1 {
			shift = multiply(polynomial, bits, shift, square)
		}
		square = multiply(polynomial, bits, square, square)
	}
	return multiply(polynomial, bits, shift, first) ^ second
}

// multiply multiplies two reflected polynomials modulo the third.
func multiply(polynomial uint64, bits int, a, b uint64) (product uint64) {
	for mask := uint64(1) << (bits - 1); mask != 0; mask >>= 1 {
		if a&mask != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry == 1 {
			b ^= polynomial
		}
	}
	return product
}

// fullChecksum combines the parts' CRCs into that of the whole body.
func fullChecksum(a *checksums.Algorithm, parts []*checksum, sizes []int64) (*checksum, error) {
	sum := uint64(0)
	for i, p := range parts {
		b, err := base64.StdEncoding.DecodeString(p.Value)
		if err != nil || len(b) != a.Size {
			return nil, fmt.Errorf("stored checksum %q is no %s", p.Value, a.Name)
		}
		next := uint64(0)
		for _, c := range b {
			next = next<<8 | uint64(c)
		}
		sum = combineCRC(a.Polynomial, a.Size*8, sum, next, sizes[i])
	}
	b := make([]byte, a.Size)
	for i := range b {
		b[i] = byte(sum >> (8 * (a.Size - 1 - i)))
	}
	return &checksum{Algorithm: a.Name, Value: base64.StdEncoding.EncodeToString(b), Type: fullObject}, nil
}
