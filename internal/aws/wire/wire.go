// Package wire turns HTTP requests into the generated shapes of AWS APIs and
// shapes into responses, in AWS's six protocols: REST-JSON, REST-XML, Query, EC2
// Query, AWS-JSON 1.0 and 1.1, and RPC-v2-CBOR.
//
// Find tells which operation a request is for; Call.Serve decodes it, checks
// the model's constraints, calls the behaviour and encodes what it returns;
// WriteError encodes an error. The codecs walk the descriptions of package
// schema by reflection over the generated structs. Whatever comes in is
// untrusted: bodies are bounded by the operation, nesting by maxDepth.
package wire

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/checksum"
	"lapwing.dev/lapwing/internal/aws/schema"
)

const (
	// maxDepth bounds the nesting of documents.
	maxDepth = 64
	// maxForm is the largest request in the Query protocols, in bytes: it has
	// to be read before the operation is known.
	maxForm = 1 << 20
)

// Call is one request for an operation.
type Call struct {
	Service   *aws.Service
	Operation *aws.Operation
	Protocol  aws.Protocol

	route  *route     // REST
	labels []label    // of the path; REST
	query  url.Values // REST
	form   *formNode  // Query and EC2 Query
}

// Find finds the protocol and the operation of a request to svc. It reads the
// body only in the Query protocols, where the operation's name is in it. An
// operation that svc does not serve is an error with status 501.
func Find(svc *aws.Service, r *http.Request) (*Call, error) {
	c := &Call{Service: svc, Protocol: protocolOf(svc, r)}
	var name string
	switch c.Protocol {
	case aws.RESTJSON, aws.RESTXML:
		if err := c.find(r); err != nil {
			return nil, err
		}
		return c, nil
	case aws.JSON:
		target := r.Header.Get("X-Amz-Target")
		prefix, op, ok := strings.Cut(target, ".")
		if !ok || prefix != svc.TargetPrefix {
			return nil, c.unknownOperation(target)
		}
		name = op
	case aws.CBOR:
		parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		if len(parts) != 4 || parts[0] != "service" || parts[2] != "operation" {
			return nil, c.unknownOperation(r.URL.Path)
		}
		name = parts[3]
	default:
		form, err := readForm(r)
		if err != nil {
			return nil, err
		}
		c.form = form
		if action := form.child("Action"); action != nil {
			name = action.value
		}
		if name == "" {
			return nil, &aws.Error{Code: "MissingAction", Status: 400, Message: "The request must contain the parameter Action."}
		}
	}
	if c.Operation = svc.Operation(name); c.Operation == nil {
		return nil, c.unknownOperation(name)
	}
	return c, nil
}

// protocolOf tells the protocol of a request among those of the service.
func protocolOf(svc *aws.Service, r *http.Request) aws.Protocol {
	if len(svc.Protocols) == 1 {
		return svc.Protocols[0]
	}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	has := func(p aws.Protocol) bool { return slices.Contains(svc.Protocols, p) }
	switch {
	case r.Header.Get("Smithy-Protocol") == "rpc-v2-cbor" && has(aws.CBOR):
		return aws.CBOR
	case r.Header.Get("X-Amz-Target") != "" && has(aws.JSON):
		return aws.JSON
	case (media == "application/x-www-form-urlencoded" || r.Method == http.MethodGet) && has(aws.Query):
		return aws.Query
	}
	return svc.Protocols[0]
}

func (c *Call) unknownOperation(name string) *aws.Error {
	code := "UnknownOperationException"
	switch c.Protocol {
	case aws.RESTXML:
		code = "NotImplemented"
	case aws.Query, aws.EC2Query:
		code = "InvalidAction"
	}
	return &aws.Error{Code: code, Status: http.StatusNotImplemented,
		Message: fmt.Sprintf("The operation %q of %s is not supported by Lapwing.", name, c.Service.ID)}
}

// Serve decodes the request, calls the operation and writes its output. An error
// that it returns is to be answered by WriteError, unless the response has
// begun: then the source of a streamed output failed, and the caller logs it and
// breaks off the connection. That the client has gone is no error.
func (c *Call) Serve(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	in := c.Operation.New()
	if err := c.decode(r, reflect.ValueOf(in).Elem()); err != nil {
		return err
	}
	fillTokens(c.Operation.Input, reflect.ValueOf(in).Elem())
	if err := c.validate(reflect.ValueOf(in).Elem()); err != nil {
		return err
	}
	out, err := c.Operation.Call(ctx, in)
	if err != nil {
		return err
	}
	return c.encode(ctx, w, r, reflect.ValueOf(out).Elem())
}

func (c *Call) decode(r *http.Request, in reflect.Value) error {
	switch c.Protocol {
	case aws.RESTJSON, aws.RESTXML:
		return c.decodeREST(r, in)
	case aws.Query, aws.EC2Query:
		return formDecoder{ec2: c.Protocol == aws.EC2Query}.structure(c.form, c.Operation.Input, in, 0)
	}
	body, err := c.readBody(r)
	if err != nil {
		return err
	}
	return c.decodeDocument(body, c.Operation.Input, in)
}

func (c *Call) encode(ctx context.Context, w http.ResponseWriter, r *http.Request, out reflect.Value) error {
	op := c.Operation
	id := aws.RequestFrom(ctx).ID
	switch c.Protocol {
	case aws.RESTJSON, aws.RESTXML:
		return c.encodeREST(w, r, out)
	case aws.Query, aws.EC2Query:
		var x xmlWriter
		x.declare()
		x.open(op.Name+"Response", c.Service.XMLNamespace, "")
		if c.Protocol == aws.EC2Query {
			x.text("requestId", id)
			x.ec2 = true
			x.members(op.Output, out)
		} else {
			if op.ResultWrapper != "" {
				x.open(op.ResultWrapper, "", "")
				x.members(op.Output, out)
				x.close(op.ResultWrapper)
			}
			x.open("ResponseMetadata", "", "")
			x.text("RequestId", id)
			x.close("ResponseMetadata")
		}
		x.close(op.Name + "Response")
		return write(w, op.Status, "text/xml", x.buf)
	case aws.CBOR:
		w.Header().Set("Smithy-Protocol", "rpc-v2-cbor")
	}
	if events := eventMember(op.Output); events != nil {
		return c.writeEvents(w, events, out)
	}
	body, contentType, err := c.document(op.Output, out)
	if err != nil {
		return err
	}
	return write(w, op.Status, contentType, body)
}

// document encodes a structure as a document of a JSON or CBOR protocol.
func (c *Call) document(s *schema.Shape, v reflect.Value) (body []byte, contentType string, err error) {
	switch c.Protocol {
	case aws.CBOR:
		body, err = encodeCBOR(s, v)
		return body, "application/cbor", err
	case aws.JSON:
		contentType = "application/x-amz-json-" + c.Service.JSONVersion
	default:
		contentType = "application/json"
	}
	return appendJSON(nil, s, v), contentType, nil
}

// decodeDocument decodes a JSON, CBOR or XML body into a structure.
func (c *Call) decodeDocument(body []byte, s *schema.Shape, v reflect.Value) error {
	switch c.Protocol {
	case aws.RESTXML:
		return decodeXML(body, s, v)
	case aws.CBOR:
		return decodeCBOR(body, s, v)
	}
	err := decodeJSON(body, s, v)
	if e, ok := errors.AsType[*aws.Error](err); ok && c.Service.SerializationCode != "" {
		e.Code = c.Service.SerializationCode
	}
	return err
}

// fillTokens gives idempotency tokens that the caller left out a value, as every
// client may do by itself: such a request is like no other.
func fillTokens(s *schema.Shape, v reflect.Value) {
	for i := range s.Members {
		if m := &s.Members[i]; m.Token {
			if f := v.Field(m.Index); f.IsNil() {
				target(f).SetString(uuid.NewString())
			}
		}
	}
}

// readBody reads a whole body within the operation's limit.
func (c *Call) readBody(r *http.Request) ([]byte, error) {
	limit := c.Operation.MaxBody
	if r.ContentLength > limit {
		return nil, c.TooLarge(r.ContentLength)
	}
	var b []byte
	var err error
	if whole, ok := r.Body.(interface{ Bytes() []byte }); ok { // in memory already
		b = whole.Bytes()
	} else if r.ContentLength > 0 {
		b = make([]byte, r.ContentLength)
		var n int
		if n, err = io.ReadFull(r.Body, b); err == nil {
			// Read the end too: a signature over the payload is checked there.
			var rest [1]byte
			if _, err = r.Body.Read(rest[:]); err == io.EOF {
				err = nil
			}
		}
		b = b[:n]
	} else if r.Body != nil {
		b, err = io.ReadAll(io.LimitReader(r.Body, limit+1))
	}
	if err != nil {
		return nil, c.bodyError(err)
	}
	if c.Operation.Gzip && isGzip(r) {
		if b, err = gunzip(b, limit); err != nil {
			return nil, serialization("The request body is not valid gzip: %v", err)
		}
	}
	if int64(len(b)) > limit {
		return nil, c.TooLarge(int64(len(b)))
	}
	// In S3's other operations these headers speak of an object.
	if c.Operation.Input.Member("x-amz-sdk-checksum-algorithm") != nil {
		return b, checksum.VerifyBody(r.Header, r.Trailer, b)
	}
	return b, nil
}

// isGzip tells whether the client compressed the request's body.
func isGzip(r *http.Request) bool { return r.Header.Get("Content-Encoding") == "gzip" }

// gunzip expands b up to one byte over the limit.
func gunzip(b []byte, limit int64) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, limit+1))
}

// bodyError passes on AWS's own errors from a verifying body.
func (c *Call) bodyError(err error) error {
	if e, ok := errors.AsType[*aws.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return c.TooLarge(e.Limit + 1)
	}
	return (&aws.Error{Code: "IncompleteBody", Status: 400, Message: "The request body terminated unexpectedly."}).WithCause(err)
}

// TooLarge is the error of a request body of n bytes, over the operation's
// limit, in the words of the service.
func (c *Call) TooLarge(n int64) *aws.Error {
	limit := c.Operation.MaxBody
	switch c.Operation.Name {
	case "Invoke", "InvokeWithResponseStream":
		// The code that AWS was seen to answer with, rather than the model's
		// RequestTooLargeException.
		return &aws.Error{Code: "RequestEntityTooLargeException", Status: 413, Extra: map[string]string{"Type": "User"},
			Message: fmt.Sprintf("%d byte payload is too large for the RequestResponse invocation type (limit %d bytes)", n, limit)}
	}
	switch c.Protocol {
	case aws.RESTXML:
		return &aws.Error{Code: "EntityTooLarge", Status: 400, Message: "Your proposed upload exceeds the maximum allowed size"}
	case aws.Query, aws.EC2Query:
		return &aws.Error{Code: "RequestEntityTooLarge", Status: 413, Message: fmt.Sprintf("Request must be smaller than %d bytes.", limit)}
	}
	return &aws.Error{Code: "RequestEntityTooLargeException", Status: 413,
		Message: fmt.Sprintf("Request must be smaller than %d bytes for the %s operation", limit, c.Operation.Name)}
}

// write writes a whole response.
func write(w http.ResponseWriter, status int, contentType string, body []byte) error {
	h := w.Header()
	if contentType != "" && h.Get("Content-Type") == "" {
		h["Content-Type"] = []string{contentType}
	}
	if status != http.StatusNoContent {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone if this fails
	return nil
}

// serialization is the error of a body that is not what the protocol says.
func serialization(format string, args ...any) *aws.Error {
	return &aws.Error{Code: "SerializationException", Status: 400, Message: fmt.Sprintf(format, args...)}
}
