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

// A state file has the state of the guest's supervisor and the registers of tasks,
// each after its length, and then the kernel as gVisor writes it. gVisor's own format
// for such files reads a kernel byte by byte through several layers, which took a
// third of the time of loading. There is no version in it: who keeps snapshots knows
// by which build they are.

// stateWriter writes a state file.
type stateWriter struct {
	*bufio.Writer
	file *os.File
}

// part writes one of the parts that come before the kernel.
func (w *stateWriter) part(b []byte) error {
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// Close implements io.Closer.
func (w *stateWriter) Close() error { return errors.Join(w.Flush(), w.file.Close()) }

// savedState is what is in a state file.
type savedState struct {
	guest, registers []byte
	kernel           io.Reader
}

// readState reads a state file. All clones have one offset in the file, so it is not
// used.
func readState(fd int) (*savedState, error) {
	b := make([]byte, fileSize(fd))
	for n := 0; n < len(b); {
		m, err := unix.Pread(fd, b[n:], int64(n))
		if err != nil {
			return nil, err
		}
		if m == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		n += m
	}
	var s savedState
	for _, part := range []*[]byte{&s.guest, &s.registers} {
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
			return nil, io.ErrUnexpectedEOF
		}
		n := binary.BigEndian.Uint32(b)
		*part, b = b[4:4+n], b[4+n:]
	}
	s.kernel = bytes.NewReader(b)
	return &s, nil
}
