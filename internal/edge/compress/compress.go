// Package compress compresses what origins send, on its way into the cache, by the
// rules of CloudFront's "Serving compressed files": what is compressible, when, and
// what it does to the header.
//
// CloudFront knows Brotli and gzip. Zstandard is here too, which RFC 9110 permits
// for a viewer that asks for it; whoever makes the cache key decides whether such a
// viewer has objects of its own. The codings are those of klauspost/compress and
// andybalholm/brotli, at levels that keep up with an origin: an object is
// compressed once, while its first viewer waits.
package compress

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Coding is a content coding, by its name in HTTP.
type Coding string

// The codings, from the one that is preferred on.
const (
	Brotli Coding = "br"
	Zstd   Coding = "zstd"
	Gzip   Coding = "gzip"
)

// The sizes of what is compressed, in bytes.
const (
	minSize = 1_000
	maxSize = 10_000_000
)

// The levels of the codings.
const (
	brotliLevel = 4
	gzipLevel   = 6
)

// types are the media types that are compressed: those that the developer guide
// lists, and application/wasm, which CloudFront compresses too.
var types = func() map[string]bool {
	m := map[string]bool{"image/svg+xml": true, "vnd.apple.mpegurl": true}
	for family, names := range map[string]string{
		"application": "dash+xml eot font font-sfnt javascript json opentype otf pkcs7-mime protobuf rss+xml truetype ttf " +
			"vnd.apple.mpegurl vnd.mapbox-vector-tile vnd.ms-fontobject wasm xhtml+xml xml x-font-opentype x-font-truetype " +
			"x-font-ttf x-httpd-cgi x-javascript x-mpegurl x-opentype x-otf x-perl x-ttf",
		"font": "eot opentype otf ttf",
		"text": "css csv html javascript js plain richtext tab-separated-values xml x-component x-java-source x-script",
	} {
		for name := range strings.FieldsSeq(names) {
			m[family+"/"+name] = true
		}
	}
	return m
}()

// Applies tells whether an origin's answer is compressed for viewers that accept a
// coding: it is of a status, a type and an announced length for that, and not coded
// or restricted to a part already. That the behaviour compresses, and that the
// object is cached, is for the caller to know.
func Applies(status int, h http.Header) bool {
	switch status {
	case http.StatusOK, http.StatusForbidden, http.StatusNotFound:
	default:
		return false
	}
	if len(h["Content-Encoding"]) > 0 || len(h["Content-Range"]) > 0 {
		return false
	}
	n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err != nil || n < minSize || n > maxSize {
		return false
	}
	for d := range strings.SplitSeq(strings.Join(h["Cache-Control"], ","), ",") {
		if strings.EqualFold(strings.TrimSpace(d), "no-transform") {
			return false // RFC 9111, 5.2.2.6
		}
	}
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return (err == nil || kind != "") && types[kind]
}

// Header changes the header of an answer whose body is being compressed. The length
// is not known any more. A strong tag becomes weak, since the bytes are others, and
// one that is none goes.
func Header(h http.Header, c Coding) {
	h["Content-Encoding"] = []string{string(c)}
	delete(h, "Content-Length")
	delete(h, "Accept-Ranges")
	delete(h, "Content-Md5")
	delete(h, "Digest")
	delete(h, "Content-Digest")
	if tag := h.Get("Etag"); !valid(tag) {
		delete(h, "Etag")
	} else if !strings.HasPrefix(tag, "W/") {
		h["Etag"] = []string{"W/" + tag}
	}
	for _, v := range h["Vary"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name == "*" || strings.EqualFold(name, "Accept-Encoding") {
				return
			}
		}
	}
	h["Vary"] = append(h["Vary"][:len(h["Vary"]):len(h["Vary"])], "Accept-Encoding")
}

// valid tells whether s is an entity tag.
func valid(s string) bool {
	s = strings.TrimPrefix(s, "W/")
	return len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' && strings.IndexByte(s[1:len(s)-1], '"') < 0
}

// encoder is what the codings have in common.
type encoder interface {
	io.WriteCloser
	Reset(io.Writer)
}

var pools = map[Coding]*sync.Pool{
	Brotli: {New: func() any { return brotli.NewWriterLevel(nil, brotliLevel) }},
	Gzip: {New: func() any {
		w, err := gzip.NewWriterLevel(nil, gzipLevel)
		if err != nil {
			panic(err) // the level is one of gzip's
		}
		return w
	}},
	Zstd: {New: func() any {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			panic(err) // the options are valid
		}
		return w
	}},
}

// NewReader returns the body r in a coding, which is one of the constants. Reads
// compress as they go; an error of r's ends them, so that what is cut stays cut.
// Closing closes r.
func NewReader(c Coding, r io.ReadCloser) io.ReadCloser {
	z := &reader{src: r, coding: c}
	z.enc = pools[c].Get().(encoder)
	z.enc.Reset(&z.out)
	return z
}

type reader struct {
	src    io.ReadCloser
	coding Coding
	enc    encoder // nil: given back
	out    bytes.Buffer
	err    error
	in     [16 << 10]byte
}

// Read implements io.Reader.
func (z *reader) Read(p []byte) (int, error) {
	for z.out.Len() == 0 {
		if z.err != nil {
			return 0, z.err
		}
		n, err := z.src.Read(z.in[:])
		if n > 0 {
			if _, werr := z.enc.Write(z.in[:n]); werr != nil {
				err = werr
			}
		}
		if err == io.EOF {
			if cerr := z.enc.Close(); cerr != nil {
				err = cerr
			}
			z.giveBack()
		}
		z.err = err
	}
	return z.out.Read(p)
}

// giveBack lets others have the encoder.
func (z *reader) giveBack() {
	if z.enc != nil {
		z.enc.Reset(nil)
		pools[z.coding].Put(z.enc)
		z.enc = nil
	}
}

// Close implements io.Closer.
func (z *reader) Close() error {
	if z.err == nil {
		z.err = io.ErrClosedPipe
	}
	z.giveBack()
	return z.src.Close()
}
