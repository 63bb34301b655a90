package wire

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/schema"
)

// decodeREST decodes path, query, headers and body.
func (c *Call) decodeREST(r *http.Request, in reflect.Value) error {
	s, bound := c.Operation.Input, &c.route.input
	for i := range s.Members {
		m := &s.Members[i]
		v := in.Field(m.Index)
		var err error
		switch m.Location {
		case schema.URI:
			for _, l := range c.labels {
				if l.name == m.WireName() {
					err = setText(m, v, l.value, iso8601)
				}
			}
		case schema.Query:
			err = c.decodeQuery(m, v)
		case schema.Header:
			err = decodeHeader(m, v, r.Header[bound.fields[i]])
		case schema.Headers:
			decodePrefixed(m, v, r.Header)
		}
		if err != nil {
			return err
		}
	}
	if m := bound.payload; m != nil {
		return c.decodePayload(r, m, in.Field(m.Index))
	}
	if !bound.hasBody {
		return nil
	}
	body, err := c.readBody(r)
	if err != nil {
		return err
	}
	return c.decodeDocument(body, s, in)
}

func (c *Call) decodePayload(r *http.Request, m *schema.Member, v reflect.Value) error {
	if m.Shape.Kind == schema.Blob && v.Kind() == reflect.Interface { // streaming
		if limit := c.Operation.MaxBody; r.ContentLength > limit {
			return c.TooLarge(r.ContentLength)
		}
		v.Set(reflect.ValueOf(&boundedBody{body: r.Body, left: c.Operation.MaxBody, call: c}))
		return nil
	}
	body, err := c.readBody(r)
	if err != nil {
		return err
	}
	switch m.Shape.Kind {
	case schema.Blob:
		if len(body) > 0 {
			v.SetBytes(body)
		}
		return nil
	case schema.String:
		target(v).SetString(string(body))
		return nil
	}
	if len(body) == 0 {
		return nil
	}
	return c.decodeDocument(body, m.Shape, target(v))
}

// boundedBody is a streamed request body within the operation's limit.
type boundedBody struct {
	body io.ReadCloser
	left int64
	call *Call
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, b.call.TooLarge(b.call.Operation.MaxBody + 1)
	}
	return n, err
}

// Close implements io.Closer.
func (b *boundedBody) Close() error { return b.body.Close() }

func (c *Call) decodeQuery(m *schema.Member, v reflect.Value) error {
	switch m.Shape.Kind {
	case schema.List:
		return setTexts(m, v, c.query[m.WireName()], iso8601)
	case schema.Map:
		if len(c.query) == 0 {
			return nil
		}
		out := reflect.MakeMap(v.Type())
		for key, values := range c.query {
			if m.Shape.Elem.Shape.Kind == schema.List {
				out.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(values))
			} else {
				out.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(values[0]))
			}
		}
		v.Set(out)
		return nil
	}
	values, ok := c.query[m.WireName()]
	if !ok {
		return nil
	}
	if values[0] == "" && m.Shape.Kind != schema.String {
		return nil
	}
	return setText(m, v, values[0], iso8601)
}

func setTexts(m *schema.Member, v reflect.Value, texts []string, format string) error {
	if len(texts) == 0 {
		return nil
	}
	out := reflect.MakeSlice(v.Type(), len(texts), len(texts))
	for i, s := range texts {
		if err := setText(m.Shape.Elem, out.Index(i), s, format); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}

// decodeHeader decodes the values of the header that a member is bound to.
func decodeHeader(m *schema.Member, v reflect.Value, values []string) error {
	if len(values) == 0 {
		return nil
	}
	if m.Shape.Kind == schema.List {
		var items []string
		for _, value := range values {
			for item := range strings.SplitSeq(value, ",") {
				if item = strings.TrimSpace(item); item != "" {
					items = append(items, item)
				}
			}
		}
		return setTexts(m, v, items, rfc822)
	}
	if values[0] == "" && m.Shape.Kind != schema.String {
		return nil
	}
	return setText(m, v, values[0], rfc822)
}

// decodePrefixed collects the headers with a prefix, in lower case as they came
// on the wire in HTTP/2.
func decodePrefixed(m *schema.Member, v reflect.Value, h http.Header) {
	prefix := strings.ToLower(m.LocationName)
	out := reflect.MakeMap(v.Type())
	for name, values := range h {
		if key, ok := strings.CutPrefix(strings.ToLower(name), prefix); ok && key != "" {
			out.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(decodeWords(strings.Join(values, ","))))
		}
	}
	if out.Len() > 0 {
		v.Set(out)
	}
}

// decodeWords decodes RFC 2047 words, which S3 takes in metadata.
func decodeWords(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	d, err := new(mime.WordDecoder).DecodeHeader(s)
	if err != nil {
		return s
	}
	return d
}

// encodeREST writes status, headers and body.
func (c *Call) encodeREST(w http.ResponseWriter, r *http.Request, out reflect.Value) error {
	s, h, bound := c.Operation.Output, w.Header(), &c.route.output
	status := c.status(out)
	for i := range s.Members {
		m := &s.Members[i]
		if m.Location == schema.Body {
			continue
		}
		v, ok := present(out.Field(m.Index))
		if !ok {
			continue
		}
		switch m.Location {
		case schema.Header:
			h[bound.fields[i]] = []string{encodeHeader(m, v)}
		case schema.Headers:
			for _, key := range sortedKeys(v) {
				h.Set(m.LocationName+key, encodeWord(v.MapIndex(reflect.ValueOf(key)).String()))
			}
		}
	}
	if bound.events != nil {
		return c.writeEvents(w, bound.events, out)
	}
	if h.Get("Content-Range") != "" {
		status = http.StatusPartialContent // the models do not say so
	}
	if m := bound.payload; m != nil {
		return c.writePayload(w, r, status, m, out.Field(m.Index))
	}
	if !bound.hasBody || status == http.StatusNoContent {
		if r.Method == http.MethodHead {
			w.WriteHeader(status)
			return nil
		}
		return write(w, status, "", nil)
	}
	if c.Protocol == aws.RESTJSON {
		return write(w, status, "application/json", appendJSON(nil, s, out))
	}
	root := c.Operation.XMLRoot
	if root == "" {
		root = c.Operation.Name + "Result"
	}
	return write(w, status, "application/xml", xmlDocument(root, xmlNamespace(c.Service, s), s, out))
}

func (c *Call) writePayload(w http.ResponseWriter, r *http.Request, status int, m *schema.Member, field reflect.Value) error {
	v, ok := present(field)
	if !ok {
		return write(w, status, "", nil)
	}
	switch {
	case v.Kind() == reflect.Interface:
		return stream(w, r, status, v.Interface().(io.ReadCloser))
	case m.Shape.Kind == schema.Blob:
		contentType := "application/octet-stream"
		if c.Protocol == aws.RESTJSON {
			contentType = "application/json"
		}
		return write(w, status, contentType, v.Bytes())
	case m.Shape.Kind == schema.String:
		return write(w, status, "text/plain", []byte(v.String()))
	case c.Protocol == aws.RESTJSON:
		return write(w, status, "application/json", appendJSON(nil, m.Shape, v))
	}
	root := m.LocationName
	if root == "" {
		root = m.Shape.Name
	}
	return write(w, status, "application/xml", xmlDocument(root, xmlNamespace(c.Service, m.Shape), m.Shape, v))
}

// stream copies a body of any length, whose length was set as a header where it
// is known. It returns the body's error, not the client's: see Serve.
func stream(w http.ResponseWriter, r *http.Request, status int, body io.ReadCloser) error {
	defer body.Close()
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	src := &source{Reader: body}
	if _, err := io.Copy(w, src); err != nil && src.err != nil {
		return fmt.Errorf("wire: streaming the response: %w", src.err)
	}
	return nil
}

// source remembers why reading stopped.
type source struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// encodeHeader encodes the value of the header that a member is bound to.
func encodeHeader(m *schema.Member, v reflect.Value) string {
	if m.Shape.Kind == schema.List {
		var items []string
		for i := range v.Len() {
			items = append(items, text(m.Shape.Elem, v.Index(i), rfc822))
		}
		return strings.Join(items, ",")
	}
	return text(m, v, rfc822)
}

// encodeWord makes a header value of any text, as S3 returns metadata.
func encodeWord(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return mime.BEncoding.Encode("UTF-8", s)
		}
	}
	return s
}

// parseQuery parses a raw query strictly enough for AWS: a key without "=" has
// the empty value.
func parseQuery(raw string) (url.Values, error) {
	if raw == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &aws.Error{Code: "InvalidQueryParameter", Status: 400, Message: "The query string is malformed: " + strconv.Quote(clip(err.Error()))}
	}
	return q, nil
}
