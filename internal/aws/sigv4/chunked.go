package sigv4

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const (
	// maxChunkLine bounds a chunk's header line and a trailer line.
	maxChunkLine = 1024
	// maxTrailers bounds the number of trailer lines.
	maxTrailers = 16
	// minSignedChunk is the smallest signed chunk that S3 takes, but for the
	// last one.
	minSignedChunk = 8 << 10

	trailerSignature = "x-amz-trailer-signature"
)

// chunkReader decodes the aws-chunked content coding:
//
//	size-in-hex[;chunk-signature=hex] CRLF data CRLF … 0[;chunk-signature=hex] CRLF
//	[name:value CRLF … [x-amz-trailer-signature:hex CRLF]] CRLF
//
// Each signature covers the one before it, the first being the request's own.
type chunkReader struct {
	body     io.ReadCloser
	in       *bufio.Reader
	signer   *chunkSigner // nil for an unsigned payload
	trailers bool         // trailers may follow
	trailer  http.Header  // has the names announced; gets the values
	length   int64        // announced by X-Amz-Decoded-Content-Length
	read     int64
	left     int64 // of the current chunk
	inChunk  bool
	short    bool // a chunk under minSignedChunk has been seen
	err      error
}

func newChunkReader(body io.ReadCloser, length int64, trailer http.Header) *chunkReader {
	return &chunkReader{body: body, in: bufio.NewReaderSize(body, 4<<10), length: length, trailer: trailer}
}

// Read implements io.Reader. A chunk's data is handed out before its signature
// can be checked; see the package's comment.
func (c *chunkReader) Read(p []byte) (int, error) {
	if len(p) == 0 || c.err != nil {
		return 0, c.err
	}
	n, err := c.next(p)
	if err != nil && err != io.EOF {
		if f := (*Failure)(nil); errors.As(err, &f) {
			err = f.In(S3)
		} else if errors.Is(err, io.ErrUnexpectedEOF) {
			err = failIncompleteBody().In(S3)
		}
	}
	c.err = err
	return n, err
}

func (c *chunkReader) Close() error { return c.body.Close() }

func (c *chunkReader) next(p []byte) (int, error) {
	if !c.inChunk {
		if err := c.header(); err != nil {
			return 0, err
		}
		if c.left == 0 {
			return 0, c.end()
		}
	}
	n, err := c.in.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	c.read += int64(n)
	if c.signer != nil {
		c.signer.hash.Write(p[:n])
	}
	if c.left == 0 {
		return n, c.endChunk()
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// header reads the line that begins a chunk.
func (c *chunkReader) header() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	size, signature, signed := bytes.Cut(line, []byte(";chunk-signature="))
	if signed != (c.signer != nil) {
		return failChunk("a chunk's header line must have a size" + map[bool]string{true: " and a chunk-signature", false: " alone"}[c.signer != nil])
	}
	left, err := strconv.ParseUint(string(size), 16, 63)
	if err != nil || len(size) > 16 {
		return failChunk("a chunk's size is not a hexadecimal number")
	}
	c.left, c.inChunk = int64(left), true
	if c.left > c.length-c.read {
		return failIncompleteBody()
	}
	if c.signer != nil {
		if c.short && c.left > 0 {
			return s3Only(http.StatusForbidden, "InvalidChunkSizeError", "Only the last chunk is allowed to have a size less than 8192 bytes")
		}
		c.short = c.left < minSignedChunk
		c.signer.expect(string(signature))
	}
	return nil
}

// endChunk reads the line end after a chunk's data and checks its signature.
func (c *chunkReader) endChunk() error {
	c.inChunk = false
	line, err := c.line()
	if err != nil {
		return err
	}
	if len(line) != 0 {
		return failChunk("a chunk's data is longer than its size says")
	}
	if c.signer != nil {
		return c.signer.checkChunk()
	}
	return nil
}

// end reads what follows the header of the last chunk. It returns io.EOF when
// everything is as it must be.
func (c *chunkReader) end() error {
	if c.signer != nil {
		if err := c.signer.checkChunk(); err != nil {
			return err
		}
	}
	if c.read != c.length {
		return failIncompleteBody()
	}
	if err := c.readTrailers(); err != nil {
		return err
	}
	if _, err := c.in.ReadByte(); err != io.EOF {
		if err == nil {
			return failChunk("data follows the last chunk")
		}
		return err
	}
	return io.EOF
}

func (c *chunkReader) readTrailers() error {
	var canonical []byte
	var signature string
	for count := 0; ; count++ {
		line, err := c.line()
		if errors.Is(err, io.ErrUnexpectedEOF) && len(line) == 0 && count > 0 {
			break // some clients leave out the last, empty line
		}
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		name, value, found := strings.Cut(string(line), ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch _, announced := c.trailer[http.CanonicalHeaderKey(name)]; {
		case !found || !c.trailers || count >= maxTrailers:
			return failTrailer()
		case name == trailerSignature && signature == "":
			signature = value
		case !announced || signature != "":
			return failTrailer()
		default:
			c.trailer.Add(name, value)
			canonical = fmt.Appendf(canonical, "%s:%s\n", name, value)
		}
	}
	for _, values := range c.trailer {
		if len(values) != 1 {
			return failTrailer()
		}
	}
	if c.signer == nil || !c.trailers {
		if signature != "" {
			return failTrailer()
		}
		return nil
	}
	return c.signer.checkTrailer(canonical, signature)
}

// line reads a line of at most maxChunkLine bytes and takes its end off.
func (c *chunkReader) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	switch {
	case err == io.EOF:
		return line, io.ErrUnexpectedEOF
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxChunkLine:
		return nil, failChunk("a chunk's header line is too long")
	case err != nil:
		return nil, fmt.Errorf("read the request's body: %w", err)
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// chunkSigner checks the chain of signatures.
type chunkSigner struct {
	key       signingKey
	timestamp string
	scope     string
	previous  string // signature
	expected  string // signature that the current chunk claims
	hash      hash.Hash
}

func (s *chunkSigner) expect(signature string) {
	s.expected = signature
	s.hash.Reset()
}

func (s *chunkSigner) checkChunk() error {
	var sum [sha256.Size]byte
	s.hash.Sum(sum[:0])
	return s.check("AWS4-HMAC-SHA256-PAYLOAD", emptyHash+"\n"+hex.EncodeToString(sum[:]), s.expected)
}

func (s *chunkSigner) checkTrailer(canonical []byte, signature string) error {
	return s.check("AWS4-HMAC-SHA256-TRAILER", hashHex(canonical), signature)
}

func (s *chunkSigner) check(kind, hashes, signature string) error {
	message := kind + "\n" + s.timestamp + "\n" + s.scope + "\n" + s.previous + "\n" + hashes
	if !equalHex(signature, s.key.sign([]byte(message))) {
		return s3Only(http.StatusForbidden, "SignatureDoesNotMatch",
			"The request signature we calculated does not match the signature you provided. Check your key and signing method.")
	}
	s.previous = signature
	return nil
}

func failChunk(why string) *Failure {
	return s3Only(http.StatusBadRequest, "InvalidRequest", "The aws-chunked body is malformed: "+why+".")
}

func failTrailer() *Failure {
	return s3Only(http.StatusBadRequest, "MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
}

func failIncompleteBody() *Failure {
	return s3Only(http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header.")
}
