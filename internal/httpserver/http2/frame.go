package http2

import (
	"encoding/binary"
	"fmt"
)

// The frames of RFC 9113, section 6.
const (
	frameData byte = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
)

// Flags of frames.
const (
	flagAck        = 0x1 // of SETTINGS and PING
	flagEndStream  = 0x1 // of DATA and HEADERS
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const (
	frameHead = 9
	// maxFrame is the largest payload that we take and send: what every peer takes.
	maxFrame = 16 << 10
	// maxWindow is the largest flow-control window.
	maxWindow = 1<<31 - 1
	// firstWindow is the window of streams and connections before anybody says other.
	firstWindow = 1<<16 - 1
)

// Settings (section 6.5.2).
const (
	settingPush        = 2
	settingStreams     = 3
	settingWindow      = 4
	settingFrame       = 5
	settingHeaderBytes = 6
)

// code is an error code (section 7).
type code uint32

const (
	codeNone code = iota
	codeProtocol
	codeInternal
	codeFlowControl
	codeSettingsTimeout
	codeStreamClosed
	codeFrameSize
	codeRefused
	codeCancel
	codeCompression
	codeConnect
	codeCalm
	codeInsecure
)

// connError ends the connection.
type connError struct {
	code code
	why  string
}

// Error implements error.
func (e *connError) Error() string { return fmt.Sprintf("http2: error %d: %s", e.code, e.why) }

// streamError ends one stream of a connection.
type streamError struct {
	id   uint32
	code code
	why  string
}

// Error implements error.
func (e *streamError) Error() string {
	return fmt.Sprintf("http2: stream %d: error %d: %s", e.id, e.code, e.why)
}

func protocol(why string) error { return &connError{codeProtocol, why} }

// frame is a frame that came. Its payload lies in the connection's buffer.
type frame struct {
	kind, flags byte
	stream      uint32
	length      int
	payload     []byte
}

// parseFrameHead parses the first frameHead bytes of a frame.
func parseFrameHead(b []byte) frame {
	return frame{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]), kind: b[3], flags: b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1),
	}
}

// unpad takes the padding of DATA and HEADERS off.
func (f *frame) unpad() error {
	if f.flags&flagPadded == 0 {
		return nil
	}
	if len(f.payload) == 0 || int(f.payload[0]) >= len(f.payload) {
		return protocol("padding longer than its frame")
	}
	f.payload = f.payload[1 : len(f.payload)-int(f.payload[0])]
	return nil
}

func appendFrameHead(b []byte, length int, kind, flags byte, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

// appendHeaders appends a field block, in as many frames as it takes.
func appendHeaders(b []byte, stream uint32, block []byte, end bool) []byte {
	kind, flags := frameHeaders, byte(0)
	if end {
		flags = flagEndStream
	}
	for {
		n := min(len(block), maxFrame)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		b = appendFrameHead(b, n, kind, flags, stream)
		b = append(b, block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return b
		}
		kind, flags = frameContinuation, 0
	}
}

func appendReset(b []byte, stream uint32, c code) []byte {
	b = appendFrameHead(b, 4, frameReset, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(c))
}

func appendWindow(b []byte, stream uint32, n int) []byte {
	b = appendFrameHead(b, 4, frameWindow, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendGoAway(b []byte, last uint32, c code) []byte {
	b = appendFrameHead(b, 8, frameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	return binary.BigEndian.AppendUint32(b, uint32(c))
}

func appendPing(b []byte, flags byte, data []byte) []byte {
	b = appendFrameHead(b, 8, framePing, flags, 0)
	return append(b, data...)
}

// setting is a setting and its value.
type setting struct {
	id    uint16
	value uint32
}

func appendSettings(b []byte, all ...setting) []byte {
	b = appendFrameHead(b, 6*len(all), frameSettings, 0, 0)
	for _, s := range all {
		b = binary.BigEndian.AppendUint16(b, s.id)
		b = binary.BigEndian.AppendUint32(b, s.value)
	}
	return b
}
