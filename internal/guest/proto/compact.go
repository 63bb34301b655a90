package proto

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
)

// What is in each invocation, and in each log line, is encoded field by field: JSON
// took a twentieth of the CPU time of an invocation. A string is its length and its
// bytes, a number a varint, a boolean a number.

// compactAppender is a value that is not sent as JSON.
type compactAppender interface {
	appendTo(b []byte) []byte
}

// compactReader reads what a compactAppender has sent.
type compactReader interface {
	readFrom(f *fields)
}

func appendMeta(b []byte, v any) []byte {
	if c, ok := v.(compactAppender); ok {
		return c.appendTo(b)
	}
	p, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(b, p...)
}

func unmarshal(b []byte, v any) error {
	c, ok := v.(compactReader)
	if !ok {
		return json.Unmarshal(b, v)
	}
	f := fields{rest: b}
	c.readFrom(&f)
	if f.broken || len(f.rest) > 0 {
		return errors.New("malformed fields")
	}
	return nil
}

// fields reads one field after the other.
type fields struct {
	rest   []byte
	broken bool // a field is not there
}

func (f *fields) number() int64 {
	v, n := binary.Varint(f.rest)
	if n <= 0 {
		f.rest, f.broken = nil, true
		return 0
	}
	f.rest = f.rest[n:]
	return v
}

func (f *fields) boolean() bool { return f.number() != 0 }

// text reads a string. As in JSON, what is not UTF-8 is replaced.
func (f *fields) text() string {
	n := f.number()
	if n < 0 || n > int64(len(f.rest)) {
		f.rest, f.broken = nil, true
		return ""
	}
	s := string(f.rest[:n])
	f.rest = f.rest[n:]
	return strings.ToValidUTF8(s, "\ufffd")
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

func appendBoolean(b []byte, v bool) []byte {
	if v {
		return binary.AppendVarint(b, 1)
	}
	return binary.AppendVarint(b, 0)
}

func (inv Invocation) appendTo(b []byte) []byte {
	b = appendText(b, inv.RequestID)
	b = binary.AppendVarint(b, inv.DeadlineMs)
	b = appendText(b, inv.InvokedFunctionARN)
	b = appendText(b, inv.TraceID)
	b = appendText(b, inv.ClientContext)
	b = appendText(b, inv.CognitoIdentity)
	b = appendText(b, inv.TenantID)
	b = appendText(b, inv.ContentType)
	return appendBoolean(b, inv.Streaming)
}

func (inv *Invocation) readFrom(f *fields) {
	*inv = Invocation{
		RequestID: f.text(), DeadlineMs: f.number(), InvokedFunctionARN: f.text(), TraceID: f.text(), ClientContext: f.text(),
		CognitoIdentity: f.text(), TenantID: f.text(), ContentType: f.text(), Streaming: f.boolean(),
	}
}

func (s ResponseStart) appendTo(b []byte) []byte {
	return appendBoolean(appendText(appendText(b, s.RequestID), s.ContentType), s.Streaming)
}

func (s *ResponseStart) readFrom(f *fields) {
	*s = ResponseStart{RequestID: f.text(), ContentType: f.text(), Streaming: f.boolean()}
}

func (e ResponseEnd) appendTo(b []byte) []byte {
	return appendText(appendText(b, e.ErrorType), e.ErrorBody)
}

func (e *ResponseEnd) readFrom(f *fields) {
	*e = ResponseEnd{ErrorType: f.text(), ErrorBody: f.text()}
}

func (d InvokeDone) appendTo(b []byte) []byte { return appendText(b, d.RequestID) }

func (d *InvokeDone) readFrom(f *fields) { *d = InvokeDone{RequestID: f.text()} }

func (l Log) appendTo(b []byte) []byte {
	b = appendText(binary.AppendVarint(b, l.TimeUs), l.Source)
	return appendBoolean(appendText(b, l.Level), l.JSON)
}

func (l *Log) readFrom(f *fields) {
	*l = Log{TimeUs: f.number(), Source: f.text(), Level: f.text(), JSON: f.boolean()}
}
