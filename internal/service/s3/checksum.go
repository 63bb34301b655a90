package s3

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
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

// algorithm is one of S3's checksum algorithms.
type algorithm struct {
	name string
	new  func() hash.Hash
	size int // bytes
	// polynomial of a CRC, reflected; parts' CRCs can be combined. 0: no CRC.
	polynomial uint64
	// composites says that multipart uploads may have composite checksums of
	// this algorithm.
	composites bool
}

// crc64NVME is the polynomial of CRC-64/NVME, reflected.
const crc64NVME = 0x9a6c9329ac4bc9b5

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvme       = crc64.MakeTable(crc64NVME)
)

// defaultAlgorithm is what S3 uses where the client names none.
const defaultAlgorithm = "CRC64NVME"

// algorithms are those that are offered. S3 has the xxHash family too.
var algorithms = []*algorithm{
	{name: "CRC32", new: func() hash.Hash { return crc32.NewIEEE() }, size: 4, polynomial: crc32.IEEE, composites: true},
	{name: "CRC32C", new: func() hash.Hash { return crc32.New(castagnoli) }, size: 4, polynomial: crc32.Castagnoli, composites: true},
	{name: "CRC64NVME", new: func() hash.Hash { return crc64.New(nvme) }, size: 8, polynomial: crc64NVME},
	{name: "SHA1", new: sha1.New, size: sha1.Size, composites: true},
	{name: "SHA256", new: sha256.New, size: sha256.Size, composites: true},
	{name: "SHA512", new: sha512.New, size: sha512.Size, composites: true},
	{name: "MD5", new: md5.New, size: md5.Size, composites: true},
}

// findAlgorithm returns the algorithm with the API's name for it.
func findAlgorithm(name string) (*algorithm, error) {
	i := slices.IndexFunc(algorithms, func(a *algorithm) bool { return a.name == name })
	if i < 0 {
		return nil, fail("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [%s]", algorithmNames())
	}
	return algorithms[i], nil
}

func algorithmNames() string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = a.name
	}
	return strings.Join(names, ", ")
}

const checksumHeader = "X-Amz-Checksum-"

// declaration is what a request says about the checksum of its body.
type declaration struct {
	algorithm *algorithm // nil: nothing is said
	header    string     // the header or trailer with the value, e.g. x-amz-checksum-crc32
	value     string     // base64; "" if it comes in the trailer, or not at all
	trailer   bool
}

// declaredChecksum reads a request's declaration from its headers. sdk is the
// x-amz-sdk-checksum-algorithm member.
func declaredChecksum(r *aws.Request, sdk string) (d declaration, err error) {
	for name, values := range r.Header {
		suffix, ok := strings.CutPrefix(http.CanonicalHeaderKey(name), checksumHeader)
		if !ok || suffix == "Type" || suffix == "Mode" || suffix == "Algorithm" {
			continue
		}
		if d.algorithm != nil || len(values) != 1 {
			return d, fail("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		if d, err = declares(suffix); err != nil {
			return d, err
		}
		d.value = values[0]
		if err := d.check(d.value); err != nil {
			return d, err
		}
	}
	for name := range strings.SplitSeq(r.Header.Get("X-Amz-Trailer"), ",") {
		suffix, ok := strings.CutPrefix(http.CanonicalHeaderKey(strings.TrimSpace(name)), checksumHeader)
		if !ok {
			continue
		}
		if d.algorithm != nil {
			return d, fail("InvalidRequest", "Expecting a single x-amz-checksum- header")
		}
		if d, err = declares(suffix); err != nil {
			return d, err
		}
		d.trailer = true
	}
	if sdk != "" {
		a, err := findAlgorithm(sdk)
		if err != nil {
			return d, err
		}
		if d.algorithm != nil && d.algorithm != a {
			return d, fail("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
		}
		d.algorithm = a
	}
	return d, nil
}

// declares finds the algorithm by the end of its header's name.
func declares(suffix string) (declaration, error) {
	a, err := findAlgorithm(strings.ToUpper(suffix))
	return declaration{algorithm: a, header: strings.ToLower(checksumHeader + suffix)}, err
}

// check says whether value can be a checksum of the algorithm.
func (d *declaration) check(value string) error {
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(b) != d.algorithm.size {
		return fail("InvalidRequest", "Value for %s header is invalid.", d.header)
	}
	return nil
}

// verify compares the declared checksum with the computed one. It may run only
// when the body has been read to its end.
func (d *declaration) verify(r *aws.Request, computed string) error {
	value := d.value
	if d.trailer {
		value = r.Trailer.Get(d.header)
		if value == "" {
			return fail("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
		}
		if err := d.check(value); err != nil {
			return err
		}
	}
	if value != "" && value != computed {
		return fail("BadDigest", "The %s you specified did not match the calculated checksum.", d.algorithm.name)
	}
	return nil
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
		if _, err := findAlgorithm(name); err != nil {
			return nil, err
		}
		c = &checksum{Algorithm: name, Value: value.Elem().String()}
	}
	return c, nil
}

// compositeChecksum is the checksum of the parts' checksums.
func compositeChecksum(a *algorithm, parts []*checksum) (*checksum, error) {
	h := a.new()
	for _, p := range parts {
		b, err := base64.StdEncoding.DecodeString(p.Value)
		if err != nil {
			return nil, fmt.Errorf("stored checksum %q: %w", p.Value, err)
		}
		h.Write(b)
	}
	value := fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(parts))
	return &checksum{Algorithm: a.name, Value: value, Type: composite}, nil
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
func fullChecksum(a *algorithm, parts []*checksum, sizes []int64) (*checksum, error) {
	sum := uint64(0)
	for i, p := range parts {
		b, err := base64.StdEncoding.DecodeString(p.Value)
		if err != nil || len(b) != a.size {
			return nil, fmt.Errorf("stored checksum %q is no %s", p.Value, a.name)
		}
		next := uint64(0)
		for _, c := range b {
			next = next<<8 | uint64(c)
		}
		sum = combineCRC(a.polynomial, a.size*8, sum, next, sizes[i])
	}
	b := make([]byte, a.size)
	for i := range b {
		b[i] = byte(sum >> (8 * (a.size - 1 - i)))
	}
	return &checksum{Algorithm: a.name, Value: base64.StdEncoding.EncodeToString(b), Type: fullObject}, nil
}
