package sentry

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A state file has the state of the guest's supervisor, after its length, and then
// the kernel as gVisor writes it. gVisor's own format for such files reads a kernel
// byte by byte through several layers, which took a third of the time of loading.
// There is no version in it: who keeps snapshots knows by which build they are.

// stateWriter writes a state file.
type stateWriter struct {
	*bufio.Writer
	file *os.File
}

// guest writes the state of the supervisor, which comes first.
func (w *stateWriter) guest(state []byte) error {
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(state)))); err != nil {
		return err
	}
	_, err := w.Write(state)
	return err
}

// Close implements io.Closer.
func (w *stateWriter) Close() error { return errors.Join(w.Flush(), w.file.Close()) }

// readState returns the kernel in a state file, and the state of the supervisor. All
// clones have one offset in the file, so it is not used.
func readState(fd int) (kernel io.Reader, guest []byte, err error) {
	b := make([]byte, fileSize(fd))
	for n := 0; n < len(b); {
		m, err := unix.Pread(fd, b[n:], int64(n))
		if err != nil {
			return nil, nil, err
		}
		if m == 0 {
			return nil, nil, io.ErrUnexpectedEOF
		}
		n += m
	}
	if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
		return nil, nil, io.ErrUnexpectedEOF
	}
	rest := b[4:]
	n := binary.BigEndian.Uint32(b)
	return bytes.NewReader(rest[n:]), rest[:n], nil
}
