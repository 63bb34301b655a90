package sigv4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"lapwing.dev/lapwing/internal/aws"
)

// chunked encodes a body in the aws-chunked coding, signing a chain of chunks
// when key is not nil.
func chunked(body []byte, size int, seed string, key *signingKey, trailers [][2]string) []byte {
	const scope = "20150830/us-east-1/s3/aws4_request"
	var out bytes.Buffer
	previous := seed
	sign := func(kind, hashes string) string {
		sum := key.sign([]byte(kind + "\n20150830T123600Z\n" + scope + "\n" + previous + "\n" + hashes))
		previous = fmt.Sprintf("%x", sum)
		return previous
	}
	for first := true; first || len(body) > 0; first = false {
		n := min(size, len(body))
		if n == 0 {
			break
		}
		fmt.Fprintf(&out, "%x", n)
		if key != nil {
			fmt.Fprintf(&out, ";chunk-signature=%s", sign("AWS4-HMAC-SHA256-PAYLOAD", emptyHash+"\n"+hashOf(body[:n])))
		}
		fmt.Fprintf(&out, "\r\n%s\r\n", body[:n])
		body = body[n:]
	}
	out.WriteString("0")
	if key != nil {
		fmt.Fprintf(&out, ";chunk-signature=%s", sign("AWS4-HMAC-SHA256-PAYLOAD", emptyHash+"\n"+emptyHash))
	}
	out.WriteString("\r\n")
	var canonical strings.Builder
	for _, t := range trailers {
		fmt.Fprintf(&out, "%s:%s\r\n", t[0], t[1])
		fmt.Fprintf(&canonical, "%s:%s\n", t[0], t[1])
	}
	if key != nil && len(trailers) > 0 {
		fmt.Fprintf(&out, "x-amz-trailer-signature:%s\r\n", sign("AWS4-HMAC-SHA256-TRAILER", hashOf([]byte(canonical.String()))))
	}
	out.WriteString("\r\n")
	return out.Bytes()
}

var checksumTrailer = [][2]string{{"x-amz-checksum-crc32", "AAAAAA=="}}

// streamed makes a verified request with an aws-chunked body; change may spoil
// the encoded body.
func streamed(t testing.TB, form string, body []byte, chunk int, change func([]byte) []byte) (*http.Request, error) {
	t.Helper()
	header := http.Header{
		"X-Amz-Content-Sha256":         {form},
		"X-Amz-Decoded-Content-Length": {fmt.Sprint(len(body))},
		"Content-Encoding":             {"aws-chunked,gzip"},
	}
	var trailers [][2]string
	if strings.HasSuffix(form, "TRAILER") {
		trailers = checksumTrailer
		header["X-Amz-Trailer"] = []string{"x-amz-checksum-crc32"}
	}
	r := signed(t, "PUT", "http://localhost/bucket/key", header, nil, "s3")
	a, err := Parse(r)
	if err != nil {
		return nil, err
	}
	var key *signingKey
	if form != streamingUnsigned {
		k := deriveKey(keyID{testSecret, "20150830", "us-east-1", "s3"})
		key = &k
	}
	encoded := chunked(body, chunk, a.Signature, key, trailers)
	if change != nil {
		encoded = change(encoded)
	}
	r.Body, r.ContentLength = io.NopCloser(iotest.OneByteReader(bytes.NewReader(encoded))), int64(len(encoded))
	return r, newTestVerifier().Verify(r, a, testSecret, rulesFor(S3, "s3"))
}

var forms = []string{streamingSigned, streamingSignedTrailer, streamingUnsigned}

func TestChunkedPayloadsAreDecoded(t *testing.T) {
	for _, form := range forms {
		for _, size := range []int{0, 1, 8192, 20000} {
			t.Run(fmt.Sprintf("%s/%d", form, size), func(t *testing.T) {
				body := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
				r, err := streamed(t, form, body, 8192, nil)
				if err != nil {
					t.Fatal(err)
				}
				if r.ContentLength != int64(size) {
					t.Errorf("content length is %d, want %d", r.ContentLength, size)
				}
				if got := r.Header["Content-Encoding"]; len(got) != 1 || got[0] != "gzip" {
					t.Errorf("content encoding is %q", got)
				}
				got, err := io.ReadAll(r.Body)
				if err != nil || !bytes.Equal(got, body) {
					t.Fatalf("read %d bytes, %v; want %d", len(got), err, size)
				}
				if form != streamingSigned && r.Trailer.Get("X-Amz-Checksum-Crc32") != "AAAAAA==" {
					t.Errorf("trailer is %v", r.Trailer)
				}
			})
		}
	}
}

func TestSpoiltChunkedPayloadsAreRefused(t *testing.T) {
	replace := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte {
			changed := bytes.Replace(b, []byte(old), []byte(new), 1)
			if bytes.Equal(changed, b) {
				panic("nothing to replace: " + old)
			}
			return changed
		}
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	tests := map[string]struct {
		form   string
		change func([]byte) []byte
		code   string
	}{
		"data changed":              {streamingSigned, replace("hello", "hullo"), "SignatureDoesNotMatch"},
		"chunk signature missing":   {streamingSigned, replace(";chunk-signature=", ";chunk-sig="), "InvalidRequest"},
		"chunk signature unwanted":  {streamingUnsigned, replace("b\r\n", "b;chunk-signature=00\r\n"), "InvalidRequest"},
		"trailer changed":           {streamingSignedTrailer, replace("AAAAAA==", "AAAABB=="), "SignatureDoesNotMatch"},
		"trailer not announced":     {streamingUnsigned, replace("checksum-crc32:", "checksum-sha1:"), "MalformedTrailerError"},
		"trailer missing":           {streamingUnsigned, replace("x-amz-checksum-crc32:AAAAAA==\r\n", ""), "MalformedTrailerError"},
		"trailer twice":             {streamingUnsigned, replace("0\r\n", "0\r\nx-amz-checksum-crc32:B\r\n"), "MalformedTrailerError"},
		"trailer signature missing": {streamingSignedTrailer, func(b []byte) []byte { return append(b[:bytes.Index(b, []byte("x-amz-trailer-sig"))], "\r\n"...) }, "SignatureDoesNotMatch"},
		"longer than announced":     {streamingUnsigned, replace("b\r\nhello world", "c\r\nhello world!"), "IncompleteBody"},
		"shorter than announced":    {streamingUnsigned, replace("b\r\nhello world", "5\r\nhello"), "IncompleteBody"},
		"cut in the data":           {streamingUnsigned, func(b []byte) []byte { return b[:8] }, "IncompleteBody"},
		"cut at the end":            {streamingSigned, cut(80), "IncompleteBody"},
		"no size":                   {streamingUnsigned, replace("b\r\n", "\r\n"), "InvalidRequest"},
		"bad size":                  {streamingUnsigned, replace("b\r\n", "-b\r\n"), "InvalidRequest"},
		"huge size":                 {streamingUnsigned, replace("b\r\n", "fffffffffffffffff\r\n"), "InvalidRequest"},
		"endless line":              {streamingUnsigned, func([]byte) []byte { return bytes.Repeat([]byte("0"), 10000) }, "InvalidRequest"},
		"data after the end":        {streamingUnsigned, func(b []byte) []byte { return append(b, "more"...) }, "InvalidRequest"},
		"data overruns its chunk":   {streamingUnsigned, replace("hello world\r\n", "hello world!\r\n"), "InvalidRequest"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := streamed(t, tt.form, []byte("hello world"), 8192, tt.change)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadAll(r.Body)
			if _, ok := errors.AsType[*aws.Error](err); !ok {
				t.Fatalf("error is %v, not an AWS error", err)
			}
			wantCode(t, err, S3, tt.code)
			if _, again := r.Body.Read(make([]byte, 1)); again != err {
				t.Errorf("the next read says %v", again)
			}
		})
	}
}

func TestSmallSignedChunksAreRefusedButForTheLast(t *testing.T) {
	r, err := streamed(t, streamingSigned, make([]byte, 3000), 1000, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(r.Body)
	wantCode(t, err, S3, "InvalidChunkSizeError")
}

func TestS3PayloadHeader(t *testing.T) {
	tests := map[string]struct {
		declared string
		body     string
		code     string
	}{
		"missing":           {"", "x", "InvalidRequest"},
		"nonsense":          {"abc", "x", "InvalidArgument"},
		"long":              {strings.Repeat("a", 66), "x", "InvalidArgument"},
		"asymmetric chunks": {"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "x", "NotImplemented"},
		"no length":         {streamingSigned, "x", "MissingContentLength"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := signed(t, "PUT", "http://localhost/b/k", nil, []byte(tt.body), "s3")
			r.Header.Set("X-Amz-Content-Sha256", tt.declared)
			wantCode(t, verify(r, rulesFor(S3, "s3")), S3, tt.code)
		})
	}
}

func TestS3BodyOfAnotherHashFailsAtItsEnd(t *testing.T) {
	r := signed(t, "PUT", "http://localhost/b/k", nil, []byte("hello"), "s3")
	r.Body = io.NopCloser(strings.NewReader("hullo"))
	if err := verify(r, rulesFor(S3, "s3")); err != nil {
		t.Fatal(err)
	}
	// A reader that stops at the announced length must notice, too.
	_, err := io.ReadFull(r.Body, make([]byte, 5))
	if err == nil {
		_, err = r.Body.Read(make([]byte, 1))
	}
	wantCode(t, err, S3, "XAmzContentSHA256Mismatch")
}

func TestBodiesOverTheLimitAreRefused(t *testing.T) {
	big := make([]byte, 1<<20+1)
	for name, length := range map[string]int64{"announced": int64(len(big)), "unannounced": -1} {
		t.Run(name, func(t *testing.T) {
			r := signed(t, "POST", "http://localhost/", nil, big, "lambda")
			read := 0
			r.Body = io.NopCloser(io.TeeReader(bytes.NewReader(big), counter{&read}))
			r.ContentLength = length
			wantCode(t, verify(r, rulesFor(RESTJSON, "lambda")), RESTJSON, "RequestTooLargeException")
			if length > 0 && read > 0 {
				t.Errorf("%d bytes were read", read)
			}
			r = signed(t, "PUT", "http://localhost/b/k", http.Header{"X-Amz-Content-Sha256": {unsignedPayload}}, big, "s3")
			a, err := Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Del("Content-Length")
			if r.ContentLength = length; length < 0 {
				// The signature covers the length; leave it out of the test.
				body, err := limited(r.Body, -1, rulesFor(S3, "s3"))
				if err == nil {
					_, err = io.Copy(io.Discard, body)
				}
				wantCode(t, err, S3, "RequestTooLargeException")
				return
			}
			wantCode(t, newTestVerifier().Verify(r, a, testSecret, rulesFor(S3, "s3")), S3, "RequestTooLargeException")
		})
	}
}

type counter struct{ n *int }

func (c counter) Write(p []byte) (int, error) { *c.n += len(p); return len(p), nil }

func TestBufferedBodyGivesItsBytes(t *testing.T) {
	r := signed(t, "POST", "http://localhost/", nil, []byte("hello"), "lambda")
	if err := verify(r, rulesFor(RESTJSON, "lambda")); err != nil {
		t.Fatal(err)
	}
	b, ok := r.Body.(interface{ Bytes() []byte })
	if !ok || string(b.Bytes()) != "hello" {
		t.Errorf("body is %T", r.Body)
	}
}

func FuzzChunkReader(f *testing.F) {
	for _, form := range forms {
		f.Add(chunked([]byte("hello world"), 8192, "seed", nil, nil), form, int64(11))
	}
	k := deriveKey(keyID{testSecret, "20150830", "us-east-1", "s3"})
	f.Add(chunked([]byte("hello world"), 8192, "seed", &k, checksumTrailer), streamingSignedTrailer, int64(11))
	f.Fuzz(func(t *testing.T, encoded []byte, form string, length int64) {
		c := newChunkReader(io.NopCloser(bytes.NewReader(encoded)), length, http.Header{"X-Amz-Checksum-Crc32": nil})
		c.trailers = form != streamingSigned
		if form != streamingUnsigned {
			c.signer = &chunkSigner{key: k, timestamp: "20150830T123600Z", scope: "20150830/us-east-1/s3/aws4_request", previous: "seed", hash: newHash()}
		}
		got, err := io.ReadAll(c)
		if err == nil && int64(len(got)) != length {
			t.Errorf("read %d bytes, announced were %d", len(got), length)
		}
		if len(got) > len(encoded) {
			t.Errorf("%d bytes out of %d", len(got), len(encoded))
		}
		if _, ok := errors.AsType[*aws.Error](err); err != nil && !ok {
			t.Errorf("error is %v", err)
		}
	})
}

func TestS3EmptyBodyOfAnotherHashIsRefusedAtOnce(t *testing.T) {
	header := http.Header{"X-Amz-Content-Sha256": {hashOf([]byte("x"))}}
	r := signed(t, "GET", "http://localhost/b/k", header, nil, "s3")
	wantCode(t, verify(r, rulesFor(S3, "s3")), S3, "XAmzContentSHA256Mismatch")
}

// The examples of "Signature Calculations for the Authorization Header:
// Transferring Payload in Multiple Chunks", with and without a trailer, in the
// Amazon S3 API Reference.
func TestChunkSignaturesOfAWSsOwnExamples(t *testing.T) {
	tests := map[string]struct {
		seed, first, second, last, trailer string
	}{
		"without a trailer": {
			"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
			"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
			"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
			"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
			"",
		},
		"with a trailer": {
			"106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
			"b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
			"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
			"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
			"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			body := "10000;chunk-signature=" + tt.first + "\r\n" + strings.Repeat("a", 65536) + "\r\n" +
				"400;chunk-signature=" + tt.second + "\r\n" + strings.Repeat("a", 1024) + "\r\n" +
				"0;chunk-signature=" + tt.last + "\r\n" + tt.trailer + "\r\n"
			trailer := http.Header{}
			if tt.trailer != "" {
				trailer["X-Amz-Checksum-Crc32c"] = nil
			}
			c := newChunkReader(io.NopCloser(strings.NewReader(body)), 66560, trailer)
			c.trailers = tt.trailer != ""
			c.signer = &chunkSigner{
				key:       deriveKey(keyID{"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3"}),
				timestamp: "20130524T000000Z", scope: "20130524/us-east-1/s3/aws4_request", previous: tt.seed, hash: newHash(),
			}
			if n, err := io.Copy(io.Discard, c); err != nil || n != 66560 {
				t.Errorf("read %d bytes, %v", n, err)
			}
		})
	}
}
