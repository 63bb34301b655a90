package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"os"

	"golang.org/x/sys/unix"
)

// block is the grain in which a file is digested and sealed. A block of zeros is
// not looked at, whether it is a hole or was written.
const block = 64 << 10

var zeros [block]byte

// blocks returns the blocks of a file that are not all zero, with their numbers.
// A block is valid until the next. It ends with an error, if any.
func blocks(ctx context.Context, f *os.File, fail *error) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		buf := make([]byte, block)
		for at := int64(0); ; {
			if *fail = context.Cause(ctx); *fail != nil {
				return
			}
			data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
			switch {
			case errors.Is(err, unix.ENXIO):
				return // nothing but a hole
			case err == nil:
				at = data &^ (block - 1)
			case !errors.Is(err, unix.EINVAL): // of a file system that has no holes
				*fail = err
				return
			}
			n, err := f.ReadAt(buf, at)
			if err != nil && err != io.EOF {
				*fail = err
				return
			}
			if n == 0 {
				return
			}
			if !bytes.Equal(buf[:n], zeros[:n]) && !yield(uint64(at/block), buf[:n]) {
				return
			}
			at += block
		}
	}
}

// digest returns the SHA-256 of a file: of its size and of each block that is not
// all zero, preceded by its number. So holes cost nothing, and it is the same
// wherever a file system has them.
func digest(ctx context.Context, f *os.File) (string, error) {
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(st.Size())))
	for i, b := range blocks(ctx, f, &err) {
		h.Write(binary.BigEndian.AppendUint64(nil, i))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)), err
}
