// Package chunk keeps files, of which images are the use, as chunks of 512 KiB:
// each stored once by the digest of its content, compressed, and read when it is
// wanted. A Manifest lists the chunks of a file. The design is that of Brooker et
// al., On-demand Container Loading in AWS Lambda (USENIX ATC 2023): most of a
// large image is never read, and much of it is in other images too. Chunks are
// not encrypted: what is theirs on AWS, a store that many accounts share, is one
// owner's disk here.
//
// Chunks come from tiers (Source): Store is the nearest, on this host's disk;
// behind it there can be others, such as other nodes. Whatever a tier gives is
// checked against the digest before it is used.
package chunk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"lapwing.dev/lapwing/internal/image/erofs"
)

// Size is the size of a chunk, in bytes; the last of a file can be shorter.
const Size = erofs.ChunkSize

// Digest is the SHA-256 of a chunk's content. The zero Digest stands for a chunk
// of zeros, which is stored nowhere.
type Digest [sha256.Size]byte

// String returns lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Sum returns the digest of a chunk.
func Sum(content []byte) Digest {
	for _, b := range content {
		if b != 0 {
			return sha256.Sum256(content)
		}
	}
	return Digest{}
}

// Errors of reading.
var (
	// ErrMissing reports a chunk that a tier does not have.
	ErrMissing = errors.New("chunk: not there")
	// ErrDamaged reports content that does not have its digest.
	ErrDamaged = errors.New("chunk: damaged")
)

// Source is a tier that chunks come from. It is safe for concurrent use.
type Source interface {
	// Fetch returns a chunk's content, which nobody changes afterwards, or an
	// error that wraps ErrMissing where the tier does not have it.
	Fetch(ctx context.Context, d Digest) ([]byte, error)
}
