package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// A sealed file is
//
//	magic | salt | record… | last record
//
// with a record for each block that is not all zero:
//
//	block number u64 | length u32 | AES-256-GCM of the block
//
// in big endian, in the order of the file. The last record has the size of the
// file in place of a number, and length 0. Each file has a key of its own, made of
// the operator's key and the salt by HKDF, and the nonce of a record is its place
// in the file; a record's head and what the file is are authenticated with it. So
// a file that was cut short, or records of which were left out, swapped or taken
// from elsewhere, does not open.
const (
	magic    = "LWSNAP\x00\x01" // the last byte is the version
	saltSize = 32
	headSize = 12
)

var errSeal = errors.New("it is damaged, or sealed with another key")

// label says what a file is.
func label(name, id string) string { return name + " of " + id }

// sealer seals or opens the records of one file.
type sealer struct {
	aead    cipher.AEAD
	what    string
	records uint64
	ad      []byte
}

func newSealer(key, salt []byte, what string) (*sealer, error) {
	own, err := hkdf.Key(sha256.New, key, salt, "lapwing snapshot file", KeySize)
	if err != nil {
		return nil, err
	}
	c, err := aes.NewCipher(own)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(c)
	return &sealer{aead: aead, what: what}, err
}

// next returns the nonce and the authenticated data of the next record.
func (s *sealer) next(head []byte) (nonce, ad []byte) {
	nonce = binary.BigEndian.AppendUint64(make([]byte, 4, 12), s.records)
	s.records++
	s.ad = append(append(s.ad[:0], head...), s.what...)
	return nonce, s.ad
}

func record(number uint64, length int) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, number), uint32(length))
}

// seal writes the content of a file, encrypted, to another.
func seal(ctx context.Context, to io.Writer, from *os.File, key []byte, what string) error {
	st, err := from.Stat()
	if err != nil {
		return err
	}
	salt := make([]byte, saltSize)
	rand.Read(salt)
	s, err := newSealer(key, salt, what)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(to, 4*block)
	w.WriteString(magic) // the writer keeps its errors for Flush
	w.Write(salt)
	var out []byte
	put := func(number uint64, b []byte) {
		head := record(number, len(b))
		nonce, ad := s.next(head)
		out = s.aead.Seal(out[:0], nonce, b, ad)
		w.Write(head)
		w.Write(out)
	}
	for i, b := range blocks(ctx, from, &err) {
		put(i, b)
	}
	if err != nil {
		return err
	}
	put(uint64(st.Size()), nil)
	return w.Flush()
}

// unseal writes the content of a sealed file of this size to another, which is
// empty. Everything about it must be right, else it fails.
func unseal(ctx context.Context, to *os.File, from io.Reader, size int64, key []byte, what string) error {
	r := bufio.NewReaderSize(from, 4*block)
	front := make([]byte, len(magic)+saltSize)
	if _, err := io.ReadFull(r, front); err != nil || !bytes.HasPrefix(front, []byte(magic)) {
		return errors.Join(errSeal, err)
	}
	s, err := newSealer(key, front[len(magic):], what)
	if err != nil {
		return err
	}
	if err := to.Truncate(size); err != nil {
		return err
	}
	head := make([]byte, headSize)
	buf := make([]byte, block+s.aead.Overhead())
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if _, err := io.ReadFull(r, head); err != nil {
			return errors.Join(errSeal, err)
		}
		number, length := binary.BigEndian.Uint64(head), binary.BigEndian.Uint32(head[8:])
		if length > block {
			return errSeal
		}
		b := buf[:int(length)+s.aead.Overhead()]
		if _, err := io.ReadFull(r, b); err != nil {
			return errors.Join(errSeal, err)
		}
		nonce, ad := s.next(head)
		if b, err = s.aead.Open(b[:0], nonce, b, ad); err != nil {
			return errSeal
		}
		if length == 0 {
			if number != uint64(size) {
				return fmt.Errorf("%w: %d bytes, want %d", errSeal, number, size)
			}
			return nil
		}
		if number > uint64(size)/block || int64(number)*block+int64(length) > size {
			return errSeal
		}
		if _, err := to.WriteAt(b, int64(number)*block); err != nil {
			return err
		}
	}
}
