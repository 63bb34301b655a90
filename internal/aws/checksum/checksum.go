// Package checksum knows the checksums that S3 clients send with a body: in a
// header, or in a trailer behind a streamed body. The codecs check those of
// documents with it, and the S3 service those of objects.
package checksum

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
	"slices"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
)

// Algorithm is one of S3's checksum algorithms.
type Algorithm struct {
	Name string // as the API's ChecksumAlgorithm names it
	New  func() hash.Hash
	Size int // bytes
	// Polynomial of a CRC, reflected; CRCs can be combined. 0: no CRC.
	Polynomial uint64
	// Composites says that multipart uploads may have composite checksums of
	// this algorithm.
	Composites bool
}

// Default is the algorithm that S3 uses where the client names none.
const Default = "CRC64NVME"

// crc64NVME is the polynomial of CRC-64/NVME, reflected.
const crc64NVME = 0x9a6c9329ac4bc9b5

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvme       = crc64.MakeTable(crc64NVME)
)

// Algorithms are those that are offered. S3 has the xxHash family too.
var Algorithms = []*Algorithm{
	{Name: "CRC32", New: func() hash.Hash { return crc32.NewIEEE() }, Size: 4, Polynomial: crc32.IEEE, Composites: true},
	{Name: "CRC32C", New: func() hash.Hash { return crc32.New(castagnoli) }, Size: 4, Polynomial: crc32.Castagnoli, Composites: true},
	{Name: "CRC64NVME", New: func() hash.Hash { return crc64.New(nvme) }, Size: 8, Polynomial: crc64NVME},
	{Name: "SHA1", New: sha1.New, Size: sha1.Size, Composites: true},
	{Name: "SHA256", New: sha256.New, Size: sha256.Size, Composites: true},
	{Name: "SHA512", New: sha512.New, Size: sha512.Size, Composites: true},
	{Name: "MD5", New: md5.New, Size: md5.Size, Composites: true},
}

// Find returns the algorithm with the API's name for it.
func Find(name string) (*Algorithm, error) {
	i := slices.IndexFunc(Algorithms, func(a *Algorithm) bool { return a.Name == name })
	if i < 0 {
		names := make([]string, len(Algorithms))
		for i, a := range Algorithms {
			names[i] = a.Name
		}
		return nil, invalid("Checksum algorithm provided is unsupported. Please try again with any of the valid types: [%s]", strings.Join(names, ", "))
	}
	return Algorithms[i], nil
}

// Encode is the form of a checksum on the wire.
func Encode(h hash.Hash) string { return base64.StdEncoding.EncodeToString(h.Sum(nil)) }

const prefix = "X-Amz-Checksum-"

// Declaration is what a request says about the checksum of its body.
type Declaration struct {
	Algorithm *Algorithm // nil: nothing is said
	header    string     // the header or trailer with the value, e.g. x-amz-checksum-crc32
	value     string     // base64; "" if it comes in the trailer, or not at all
	trailer   http.Header
}

// Declared reads a request's declaration. sdk is its
// x-amz-sdk-checksum-algorithm header; trailer need not be filled yet.
func Declared(header, trailer http.Header, sdk string) (d Declaration, err error) {
	for name, values := range header {
		suffix, ok := strings.CutPrefix(http.CanonicalHeaderKey(name), prefix)
		if !ok || suffix == "Type" || suffix == "Mode" || suffix == "Algorithm" {
			continue
		}
		if d.Algorithm != nil || len(values) != 1 {
			return d, invalid("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		if d, err = declares(suffix); err != nil {
			return d, err
		}
		d.value = values[0]
		if err := d.check(d.value); err != nil {
			return d, err
		}
	}
	for name := range strings.SplitSeq(header.Get("X-Amz-Trailer"), ",") {
		suffix, ok := strings.CutPrefix(http.CanonicalHeaderKey(strings.TrimSpace(name)), prefix)
		if !ok {
			continue
		}
		if d.Algorithm != nil {
			return d, invalid("Expecting a single x-amz-checksum- header")
		}
		if d, err = declares(suffix); err != nil {
			return d, err
		}
		if d.trailer = trailer; trailer == nil {
			d.trailer = http.Header{}
		}
	}
	if sdk != "" {
		a, err := Find(sdk)
		if err != nil {
			return d, err
		}
		if d.Algorithm != nil && d.Algorithm != a {
			return d, invalid("Value for x-amz-sdk-checksum-algorithm header is invalid.")
		}
		d.Algorithm = a
	}
	return d, nil
}

// declares finds the algorithm by the end of its header's name.
func declares(suffix string) (Declaration, error) {
	a, err := Find(strings.ToUpper(suffix))
	return Declaration{Algorithm: a, header: strings.ToLower(prefix + suffix)}, err
}

// check says whether value can be a checksum of the algorithm.
func (d *Declaration) check(value string) error {
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(b) != d.Algorithm.Size {
		return invalid("Value for %s header is invalid.", d.header)
	}
	return nil
}

// Verify compares the declared checksum with the computed one. It may run only
// when the body has been read to its end.
func (d *Declaration) Verify(computed string) error {
	value := d.value
	if d.trailer != nil {
		value = d.trailer.Get(d.header)
		if value == "" {
			return fail("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
		}
		if err := d.check(value); err != nil {
			return err
		}
	}
	if value != "" && value != computed {
		return fail("BadDigest", "The %s you specified did not match the calculated checksum.", d.Algorithm.Name)
	}
	return nil
}

// VerifyMD5 compares a Content-MD5 header with the body's MD5.
func VerifyMD5(header string, sum []byte) error {
	declared, err := base64.StdEncoding.DecodeString(header)
	if err != nil || len(declared) != md5.Size {
		e := fail("InvalidDigest", "The Content-MD5 you specified was invalid.")
		e.Extra = map[string]string{"Content-MD5": header}
		return e
	}
	if string(declared) != string(sum) {
		e := fail("BadDigest", "The Content-MD5 you specified did not match what we received.")
		e.Extra = map[string]string{"ExpectedDigest": header, "CalculatedDigest": base64.StdEncoding.EncodeToString(sum)}
		return e
	}
	return nil
}

// VerifyBody checks a body that was read whole against all that its request
// says about it.
func VerifyBody(header, trailer http.Header, body []byte) error {
	if declared, ok := header["Content-Md5"]; ok {
		sum := md5.Sum(body)
		if err := VerifyMD5(declared[0], sum[:]); err != nil {
			return err
		}
	}
	d, err := Declared(header, trailer, "")
	if err != nil || d.Algorithm == nil {
		return err
	}
	h := d.Algorithm.New()
	h.Write(body)
	return d.Verify(Encode(h))
}

func invalid(format string, args ...any) *aws.Error { return fail("InvalidRequest", format, args...) }

func fail(code, format string, args ...any) *aws.Error {
	return &aws.Error{Code: code, Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}
