package s3

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"

	"lapwing.dev/lapwing/internal/aws"
	checksums "lapwing.dev/lapwing/internal/aws/checksum"
	"lapwing.dev/lapwing/internal/state"
)

// maxBody is the largest body of one request, and the largest source of a
// copy: 5 GiB.
const maxBody = 5 << 30

// incoming is a body on its way in, and what the client says about it.
type incoming struct {
	body   io.Reader
	length *int64 // of the body, where the client says it
	md5    *string
	sum    checksums.Declaration
	// also names an algorithm that is computed and kept instead of the one
	// that is declared.
	also *checksums.Algorithm
}

// receive stores a body as a blob that the caller holds, and checks it against
// what the client declared. It uses no more memory for a large body than for a
// small one.
func (s *Service) receive(ctx context.Context, in incoming) (_ *content, err error) {
	if in.length != nil && *in.length > maxBody {
		return nil, tooLarge(*in.length)
	}
	digest := md5.New()
	sums := map[*checksums.Algorithm]hash.Hash{}
	keep := in.also
	if in.sum.Algorithm != nil {
		sums[in.sum.Algorithm] = in.sum.Algorithm.New()
		if keep == nil {
			keep = in.sum.Algorithm
		}
	}
	if keep == nil {
		if keep, err = checksums.Find(checksums.Default); err != nil {
			return nil, err
		}
	}
	if sums[keep] == nil {
		sums[keep] = keep.New()
	}
	hashes := []io.Writer{digest}
	for _, h := range sums {
		hashes = append(hashes, h)
	}
	body := in.body
	if body == nil {
		body = eofReader{}
	}
	source := &bodyReader{r: io.TeeReader(io.LimitReader(body, maxBody+1), io.MultiWriter(hashes...))}
	staged, err := s.blobs.Stage(ctx, source)
	if err != nil {
		if source.err != nil {
			return nil, bodyError(source.err)
		}
		return nil, err
	}
	defer func() { err = errors.Join(err, staged.Discard()) }()
	switch {
	case staged.Size > maxBody:
		return nil, tooLarge(staged.Size)
	case in.length != nil && staged.Size != *in.length:
		return nil, incompleteBody()
	}
	if in.md5 != nil {
		if err := checksums.VerifyMD5(*in.md5, digest.Sum(nil)); err != nil {
			return nil, err
		}
	}
	if a := in.sum.Algorithm; a != nil {
		if err := in.sum.Verify(checksums.Encode(sums[a])); err != nil {
			return nil, err
		}
	}
	if err := s.references.commit(staged); err != nil {
		return nil, err
	}
	return &content{
		ETag:     `"` + hex.EncodeToString(digest.Sum(nil)) + `"`,
		Size:     staged.Size,
		Blobs:    []extent{{Digest: staged.Digest, Size: staged.Size}},
		Checksum: &checksum{Algorithm: keep.Name, Value: checksums.Encode(sums[keep]), Type: fullObject},
	}, nil
}

type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }

// bodyReader remembers what went wrong with reading, so that it can be told
// from what went wrong with writing.
type bodyReader struct {
	r   io.Reader
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// bodyError makes of an error of reading the request what the client is told.
func bodyError(err error) error {
	// The gateway checks signatures while the body is read.
	if _, ok := errors.AsType[*aws.Error](err); ok {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return incompleteBody().WithCause(err)
	}
	return fail("RequestTimeout", "Your socket connection to the server was not read from or written to within the timeout period.").WithCause(err)
}

func tooLarge(size int64) *aws.Error {
	e := fail("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
	return with(with(e, "ProposedSize", itoa(size)), "MaxSizeAllowed", itoa(maxBody))
}

func incompleteBody() *aws.Error {
	return fail("IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
}

// outgoing reads a part of an object's body, file after file, and holds its
// blobs until it is closed.
type outgoing struct {
	service *Service
	held    []state.Digest
	blobs   []extent // what is not opened yet
	skip    int64    // bytes of the first of them to leave out
	left    int64    // bytes to give
	file    *os.File
}

// read opens length bytes of the content from offset on. ok is false if the
// content was deleted meanwhile.
func (s *Service) read(c *content, offset, length int64) (_ *outgoing, ok bool) {
	ds := c.digests()
	if !s.references.hold(ds) {
		return nil, false
	}
	blobs := c.Blobs
	for len(blobs) > 0 && offset >= blobs[0].Size {
		offset -= blobs[0].Size
		blobs = blobs[1:]
	}
	return &outgoing{service: s, held: ds, blobs: blobs, skip: offset, left: length}, true
}

func (o *outgoing) Read(p []byte) (int, error) {
	for o.left > 0 {
		if o.file == nil {
			if err := o.next(); err != nil {
				return 0, err
			}
		}
		n, err := o.file.Read(p[:min(int64(len(p)), o.left)])
		o.left -= int64(n)
		if err == io.EOF {
			err = o.file.Close()
			o.file = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.EOF
}

func (o *outgoing) next() (err error) {
	if len(o.blobs) == 0 {
		return io.ErrUnexpectedEOF // the record says that there is more
	}
	if o.file, err = o.service.blobs.Open(o.blobs[0].Digest); err != nil {
		return err
	}
	o.blobs = o.blobs[1:]
	_, err = o.file.Seek(o.skip, io.SeekStart)
	o.skip = 0
	return err
}

// Close gives the blobs free. It may be called again.
func (o *outgoing) Close() error {
	var err error
	if o.file != nil {
		err = o.file.Close()
		o.file = nil
	}
	o.left = 0
	o.service.references.release(o.held)
	o.held = nil
	return err
}
