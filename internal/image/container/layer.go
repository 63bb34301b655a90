package container

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	oci "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxWindow bounds the memory of a zstd decoder, in bytes.
const maxWindow = 128 << 20

// openLayer opens the archive of a layer, uncompressed. At its end reading fails
// unless it has the digest that the image's configuration says.
func openLayer(ctx context.Context, src source, d oci.Descriptor, want digest.Digest) (io.ReadCloser, error) {
	blob, err := src.blob(ctx, d)
	if Is(err, NotFound) {
		return nil, fail(Invalid, "layer %s is missing: %w", d.Digest, err)
	}
	if err != nil {
		return nil, err
	}
	l := &layer{blob: blob, digest: d.Digest, hash: sha256.New(), want: want}
	in := bufio.NewReaderSize(blob, 128*1024)
	switch layerTypes[d.MediaType] {
	case compressionGzip:
		l.r, err = gzip.NewReader(in)
	case compressionZstd:
		var z *zstd.Decoder
		z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			l.r, l.release = z, z.Close
		}
	default:
		l.r = in
	}
	if err != nil {
		return nil, errors.Join(fail(Invalid, "layer %s: %w", d.Digest, err), blob.Close())
	}
	return l, nil
}

// layer is the content of a layer, verified.
type layer struct {
	blob    io.Closer
	r       io.Reader // decompressor
	release func()    // of the decompressor; may be nil
	digest  digest.Digest
	hash    hash.Hash
	want    digest.Digest
}

// Read implements io.Reader.
func (l *layer) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.hash.Write(p[:n])
	switch {
	case err == io.EOF:
		if got := hex.EncodeToString(l.hash.Sum(nil)); got != l.want.Encoded() {
			return n, fail(Invalid, "layer %s: its content has the digest sha256:%s and not %s", l.digest, got, l.want)
		}
	case err != nil:
		err = fail(Invalid, "layer %s: %w", l.digest, err)
	}
	return n, err
}

// Close implements io.Closer.
func (l *layer) Close() error {
	if l.release != nil {
		l.release()
	}
	return l.blob.Close()
}
