package checksum

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
)

func TestVerifyBody(t *testing.T) {
	const body = "123456789"
	// Check values of the catalogue of parametrised CRC algorithms: cbf43926,
	// e3069283 and ae8b14860a799888, and of the hashes' own tools.
	for name, test := range map[string]struct {
		header, trailer http.Header
		code            string
	}{
		"nothing":            {http.Header{}, nil, ""},
		"CRC32":              {http.Header{"X-Amz-Checksum-Crc32": {"y/Q5Jg=="}}, nil, ""},
		"CRC32C":             {http.Header{"X-Amz-Checksum-Crc32c": {"4waSgw=="}}, nil, ""},
		"CRC64NVME":          {http.Header{"X-Amz-Checksum-Crc64nvme": {"rosUhgp5mIg="}}, nil, ""},
		"SHA1":               {http.Header{"X-Amz-Checksum-Sha1": {"98O8HYCOBHMq32eZZczDTKeuNEE="}}, nil, ""},
		"MD5":                {http.Header{"Content-Md5": {"JfnnlDI7RTiF9RgfG2JNCw=="}}, nil, ""},
		"wrong CRC32":        {http.Header{"X-Amz-Checksum-Crc32": {"y/Q5Jw=="}}, nil, "BadDigest"},
		"wrong MD5":          {http.Header{"Content-Md5": {"JfnnlDI7RTiF9RgfG2JNCg=="}}, nil, "BadDigest"},
		"short CRC32":        {http.Header{"X-Amz-Checksum-Crc32": {"y/Q5"}}, nil, "InvalidRequest"},
		"bad MD5":            {http.Header{"Content-Md5": {"x"}}, nil, "InvalidDigest"},
		"unknown algorithm":  {http.Header{"X-Amz-Checksum-Xxhash3": {"AA=="}}, nil, "InvalidRequest"},
		"two checksums":      {http.Header{"X-Amz-Checksum-Crc32": {"y/Q5Jg=="}, "X-Amz-Checksum-Crc32c": {"4waSgw=="}}, nil, "InvalidRequest"},
		"type and mode only": {http.Header{"X-Amz-Checksum-Type": {"FULL_OBJECT"}, "X-Amz-Checksum-Mode": {"ENABLED"}}, nil, ""},
		"trailer":            {http.Header{"X-Amz-Trailer": {"x-amz-checksum-crc32"}}, http.Header{"X-Amz-Checksum-Crc32": {"y/Q5Jg=="}}, ""},
		"wrong trailer":      {http.Header{"X-Amz-Trailer": {"x-amz-checksum-crc32"}}, http.Header{"X-Amz-Checksum-Crc32": {"y/Q5Jw=="}}, "BadDigest"},
		"missing trailer":    {http.Header{"X-Amz-Trailer": {"x-amz-checksum-crc32"}}, http.Header{}, "MalformedTrailerError"},
		"no trailers at all": {http.Header{"X-Amz-Trailer": {"x-amz-checksum-crc32"}}, nil, "MalformedTrailerError"},
	} {
		err := VerifyBody(test.header, test.trailer, []byte(body))
		code := ""
		if e, ok := errors.AsType[*aws.Error](err); ok {
			code = e.Code
		}
		if code != test.code {
			t.Errorf("%s: %v, want %q", name, err, test.code)
		}
	}
}

func TestSizesAreThoseOfTheHashes(t *testing.T) {
	for _, a := range Algorithms {
		h := a.New()
		if _, err := io.WriteString(h, "x"); err != nil {
			t.Fatal(err)
		}
		if n := len(h.Sum(nil)); n != a.Size {
			t.Errorf("%s has %d bytes, not %d", a.Name, n, a.Size)
		}
	}
}

func TestTheAlgorithmOfTheSDKMustBeTheOneOfTheHeader(t *testing.T) {
	header := http.Header{"X-Amz-Checksum-Crc32": {"y/Q5Jg=="}}
	if _, err := Declared(header, nil, "SHA256"); err == nil {
		t.Error("took two algorithms")
	}
	if d, err := Declared(header, nil, "CRC32"); err != nil || d.Algorithm.Name != "CRC32" {
		t.Error(d, err)
	}
	if d, err := Declared(http.Header{}, nil, "SHA1"); err != nil || d.Algorithm.Name != "SHA1" {
		t.Error(d, err)
	}
	if _, err := Declared(http.Header{}, nil, "XXHASH3"); err == nil {
		t.Error("took an unknown algorithm")
	}
}
