package chunk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Manifest lists the chunks of a file, in order.
type Manifest struct {
	Size   int64 // of the file, in bytes
	Chunks []Digest
}

// A manifest's file: manifestHeader, whose last byte is the version, the size in 8
// bytes (little-endian), the digests, and the SHA-256 of all that.
const (
	manifestHeader = "LWM\x01"
	// maxFile bounds the size of a file: 1 TiB.
	maxFile = 1 << 40
)

// Encode returns the manifest as a file holds it.
func (m *Manifest) Encode() []byte {
	b := binary.LittleEndian.AppendUint64([]byte(manifestHeader), uint64(m.Size))
	for _, d := range m.Chunks {
		b = append(b, d[:]...)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// DecodeManifest undoes Encode. It bears any input; what is not a whole manifest of
// this version gives an error.
func DecodeManifest(b []byte) (*Manifest, error) {
	const head = len(manifestHeader) + 8
	if len(b) < head+sha256.Size || !bytes.HasPrefix(b, []byte(manifestHeader)) {
		return nil, errors.New("chunk: not a manifest that this version of Lapwing knows")
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, fmt.Errorf("%w: manifest", ErrDamaged)
	}
	size := binary.LittleEndian.Uint64(body[len(manifestHeader):])
	digests := body[head:]
	if size > maxFile || uint64(len(digests)) != (size+Size-1)/Size*sha256.Size {
		return nil, fmt.Errorf("%w: manifest of %d bytes in %d bytes of digests", ErrDamaged, size, len(digests))
	}
	m := &Manifest{Size: int64(size)}
	for len(digests) > 0 {
		m.Chunks = append(m.Chunks, Digest(digests[:sha256.Size]))
		digests = digests[sha256.Size:]
	}
	return m, nil
}

// length returns the size of a chunk of the file.
func (m *Manifest) length(n int) int { return int(min(Size, m.Size-int64(n)*Size)) }

func parseDigest(s string) (d Digest, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		return d, errors.New("chunk: not a digest")
	}
	return Digest(b), nil
}

func syncfs(f *os.File) error { return unix.Syncfs(int(f.Fd())) }
