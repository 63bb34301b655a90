package trigger

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

// What error pages say of a result that fails validation. The first seven are
// AWS's own sentences, as its users report them; the others follow their form.
const (
	failed = "The Lambda function result failed validation: "

	reasonJSON        = "The Lambda function returned invalid JSON: The JSON output is not parsable."
	reasonObject      = "The Lambda function returned invalid JSON: The JSON output must be an object type."
	reasonEntries     = "The Lambda function returned an invalid entry in the headers object: Each header entry in the headers object must be an array."
	reasonEntry       = "The Lambda function returned an invalid entry in the headers object: Each header entry must have a valid name and value."
	reasonReadOnly    = failed + "The function tried to add, delete, or change a read-only header."
	reasonBlacklisted = failed + "The function tried to add a blacklisted header."
	reasonBody        = failed + "The body is not a string, is not an object, or exceeds the maximum size."

	reasonStatus  = failed + "The status code is missing, is not valid, or cannot be changed in this event."
	reasonRequest = failed + "The request has an invalid method, URI, query string, or client IP address."
	reasonOrigin  = failed + "The origin is not valid."
)

// maxURI bounds a path with its query, in bytes.
const maxURI = 8192

// invalidf is an error of validation: the sentence for the page, and what the
// owner of the function finds in the log.
func invalidf(reason, format string, args ...any) error {
	return &Error{Class: LambdaValidation, Text: reason, Cause: fmt.Errorf(format, args...)}
}

// object is a JSON object of a function's result, by exact names.
type object map[string]json.RawMessage

// text reads a member that is a string; none is "".
func (o object) text(name string) (s string, given bool, err error) {
	raw, ok := o[name]
	if !ok || bytes.Equal(raw, null) {
		return "", false, nil
	}
	if raw[0] != '"' {
		return "", true, fmt.Errorf("%s is not a string", name)
	}
	return s, true, json.Unmarshal(raw, &s)
}

var null = []byte("null")

// applyResult takes what a Lambda@Edge function returned over into the exchange,
// or returns an *Error and leaves it as it is.
func (x *Exchange) applyResult(e distribution.EventType, result []byte) error {
	o, err := parseResult(result)
	if err != nil {
		return err
	}
	switch e {
	case distribution.OriginResponse, distribution.ViewerResponse:
		r, err := x.parseResponse(e, o)
		if err != nil {
			return err
		}
		x.Response = r
		return nil
	}
	if _, ok := o["status"]; ok {
		r, err := x.parseResponse(e, o)
		if err != nil {
			return err
		}
		x.Response = r
		return nil
	}
	r, err := x.parseRequest(e, o)
	if err != nil {
		return err
	}
	x.Request = *r
	return nil
}

func parseResult(result []byte) (object, error) {
	if !utf8.Valid(result) || !json.Valid(result) {
		return nil, invalidf(reasonJSON, "the Lambda function returned JSON that is not parsable")
	}
	if trimmed := bytes.TrimLeft(result, " \t\r\n"); trimmed[0] != '{' {
		return nil, invalidf(reasonObject, "the Lambda function returned JSON that is not an object")
	}
	var o object
	if err := json.Unmarshal(result, &o); err != nil {
		return nil, invalidf(reasonJSON, "the Lambda function returned invalid JSON: %v", err)
	}
	return o, nil
}

// parseRequest reads a request that a request event's function returned.
func (x *Exchange) parseRequest(e distribution.EventType, o object) (*Request, error) {
	r := x.Request // what is not in o stays
	if err := x.checkFixed(o); err != nil {
		return nil, err
	}
	uri, given, err := o.text("uri")
	if err != nil || !given {
		return nil, invalidf(reasonRequest, "the result has neither a status, as a response, nor a uri, as a request")
	}
	query, given, err := o.text("querystring")
	if err != nil {
		return nil, invalidf(reasonRequest, "%v", err)
	}
	// What a function leaves alone goes to the origin as the viewer sent it,
	// whatever its encoding.
	if uri != AsUTF8(r.URI) {
		r.URI = uri
	}
	if !given {
		query = ""
	}
	if query != AsUTF8(r.Query) {
		r.Query = query
	}
	if err := x.checkTarget(&r); err != nil {
		return nil, err
	}
	if r.Header, err = changedHeader(e, o["headers"], x.Request.Header); err != nil {
		return nil, err
	}
	if raw, ok := o["body"]; ok && !bytes.Equal(raw, null) {
		if r.Body, err = parseBody(e, raw, r.Body); err != nil {
			return nil, err
		}
	}
	if raw, ok := o["origin"]; ok && !bytes.Equal(raw, null) {
		if e != distribution.OriginRequest || r.Origin == nil {
			return nil, invalidf(reasonOrigin, "only a function of origin-request can set the origin")
		}
		if r.Origin, err = parseOrigin(raw, r.Origin, x.Secure, r.Header); err != nil {
			return nil, err
		}
	}
	return &r, nil
}

// checkFixed insists that what no function may change is as it was.
func (x *Exchange) checkFixed(o object) error {
	for name, want := range map[string]string{"method": x.Request.Method, "clientIp": x.Request.ClientIP} {
		got, given, err := o.text(name)
		if err != nil {
			return invalidf(reasonRequest, "%v", err)
		}
		if given && got != want {
			return invalidf(reasonRequest, "the function tried to change the read-only %s of the request", name)
		}
	}
	return nil
}

// checkTarget checks the path and query that a function made.
func (x *Exchange) checkTarget(r *Request) error {
	if r.URI == x.Request.URI && r.Query == x.Request.Query {
		return nil
	}
	if err := CheckTarget(r.URI, r.Query); err != nil {
		return invalidf(reasonRequest, "%w", err)
	}
	return nil
}

// CheckTarget checks a path and query that a function of any kind made
// ("Restrictions on edge functions", query strings and URI).
func CheckTarget(uri, query string) error {
	switch {
	case !strings.HasPrefix(uri, "/"):
		return fmt.Errorf("the URI does not begin with a slash: %q", uri)
	case !plainURI(uri) || strings.Contains(uri, "?"):
		return fmt.Errorf("the URI has a space, a control character, or one of ? and #: %q", uri)
	case !plainURI(query):
		return fmt.Errorf("the query string has a space, a control character or a #: %q", query)
	case len(uri)+len("?")+len(query) >= maxURI:
		return fmt.Errorf("the URI and query string have %d characters; the limit is %d", len(uri)+1+len(query), maxURI)
	}
	return nil
}

// plainURI tells whether s can be in a URI: no spaces, control characters or
// fragment.
func plainURI(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// parseBody reads what a function says of the request's body ("Restrictions on
// the request body with the include body option").
func parseBody(e distribution.EventType, raw json.RawMessage, was *Body) (*Body, error) {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, invalidf(reasonBody, "the body of the request is not an object")
	}
	action, _, err := o.text("action")
	switch {
	case err != nil:
		return nil, invalidf(reasonBody, "body: %v", err)
	case action == "" || action == "read-only":
		return was, nil
	case action != "replace":
		return nil, invalidf(reasonBody, "the body's action must be read-only or replace, not %q", action)
	case was == nil:
		return nil, invalidf(reasonBody, "the function cannot replace the body: its association does not include it")
	}
	encoding, given, err := o.text("encoding")
	if err != nil {
		return nil, invalidf(reasonBody, "body: %v", err)
	}
	if !given {
		encoding = "base64"
	}
	data, err := decodeBody(o["data"], encoding, BodyLimit(e))
	if err != nil {
		return nil, err
	}
	return &Body{Data: data, Replaced: true}, nil
}

// decodeBody decodes a body that is text or base64.
func decodeBody(raw json.RawMessage, encoding string, limit int) ([]byte, error) {
	var s *string
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, invalidf(reasonBody, "the body is not a string")
		}
	}
	if s == nil {
		return nil, nil
	}
	data := []byte(*s)
	switch encoding {
	case "text":
	case "base64":
		var err error
		if data, err = base64.StdEncoding.DecodeString(*s); err != nil {
			return nil, invalidf(reasonBody, "the body is not valid base64: %v", err)
		}
	default:
		return nil, invalidf(reasonBody, "the encoding of the body must be text or base64, not %q", encoding)
	}
	if len(data) > limit {
		return nil, invalidf(reasonBody, "the body has %d bytes; the limit is %d", len(data), limit)
	}
	return data, nil
}

// parseResponse reads a response that a function returned: one that it made, or
// the changed one of a response event.
func (x *Exchange) parseResponse(e distribution.EventType, o object) (*Response, error) {
	r := Response{}
	var was Header // what read-only fields are compared with
	if x.Response != nil {
		r, was = *x.Response, x.Response.Header
	}
	var err error
	if r.Status, err = parseStatus(o["status"]); err != nil {
		return nil, err
	}
	if e == distribution.ViewerResponse && r.Status != x.Response.Status {
		return nil, invalidf(reasonStatus, "the function tried to change the status of a viewer's response from %d to %d", x.Response.Status, r.Status)
	}
	description, given, err := o.text("statusDescription")
	if err != nil || !httpguts.ValidHeaderFieldValue(description) {
		return nil, invalidf(reasonStatus, "statusDescription is not valid")
	}
	if given {
		r.Description = description
	} else if x.Response == nil || r.Status != x.Response.Status {
		r.Description = http.StatusText(r.Status)
	}
	if r.Header, err = changedHeader(e, o["headers"], was); err != nil {
		return nil, err
	}
	limit := BodyLimit(e)
	if raw, ok := o["body"]; ok && !bytes.Equal(raw, null) {
		if e == distribution.ViewerResponse {
			return nil, invalidf(reasonBody, "a function of viewer-response cannot set the body")
		}
		encoding, given, err := o.text("bodyEncoding")
		if err != nil {
			return nil, invalidf(reasonBody, "%v", err)
		}
		if !given {
			encoding = "text"
		}
		if r.Body, err = decodeBody(raw, encoding, limit); err != nil {
			return nil, err
		}
		r.Replaced = true
		if e == distribution.ViewerRequest && r.Status == http.StatusNoContent {
			return nil, invalidf(reasonBody, "a response with status 204 has a body")
		}
	}
	generated := x.Response == nil
	if generated {
		r.Replaced = true
	}
	r.Header = Framed(r.Header, was, r.Replaced)
	if n := r.Header.size() + len(r.Body); (generated || r.Replaced) && n > limit {
		return nil, invalidf(reasonBody, "the response has %d bytes with its headers; the limit is %d", n, limit)
	}
	return &r, nil
}

// Framed takes the say over how a body is delimited away from functions: it is as
// it was, or the business of whoever sends the body that a function made.
func Framed(h, was Header, replaced bool) Header {
	delimits := func(f Field) bool {
		return strings.EqualFold(f.Name, "content-length") || strings.EqualFold(f.Name, "transfer-encoding")
	}
	h = slices.DeleteFunc(h, delimits)
	if replaced {
		return h
	}
	for _, f := range was {
		if delimits(f) {
			h = append(h, f)
		}
	}
	return h
}

// parseStatus reads a status code, which functions give as a string or a number.
func parseStatus(raw json.RawMessage) (int, error) {
	s := string(raw)
	if strings.HasPrefix(s, `"`) {
		if err := json.Unmarshal(raw, &s); err != nil {
			return 0, invalidf(reasonStatus, "the status is not valid: %v", err)
		}
	}
	status, err := strconv.Atoi(s)
	if err != nil || status < 200 || status > 599 {
		return 0, invalidf(reasonStatus, "the status must be from 200 to 599, not %s", bytes.TrimSpace(raw))
	}
	return status, nil
}

// changedHeader reads the headers of a result and holds them against those that
// the function saw. Fields that it did not see stay.
func changedHeader(e distribution.EventType, raw json.RawMessage, was Header) (Header, error) {
	h, err := parseHeader(raw, was)
	if err != nil {
		return nil, err
	}
	if err := CheckHeader(e, h, was); err != nil {
		if _, ok := errors.AsType[*readOnlyError](err); ok {
			return nil, invalidf(reasonReadOnly, "Lambda function result failed validation, %w.", err)
		}
		return nil, invalidf(reasonBlacklisted, "Lambda function result failed validation, %w.", err)
	}
	return h.WithHidden(was), nil
}

// readOnlyError is a change of a field that functions must leave alone.
type readOnlyError struct{ verb, name string }

func (e *readOnlyError) Error() string {
	return fmt.Sprintf("the function tried to %s read-only header, headerName : %s", e.verb, Capitalised(e.name))
}

// CheckHeader checks the header that a function of any kind made of was at an
// event: of fields that it may not set it has none, and read-only ones are as
// they were.
func CheckHeader(e distribution.EventType, h, was Header) error {
	for _, f := range h {
		if Hidden(lower(f.Name)) {
			return fmt.Errorf("the function tried to add blacklisted header, headerName : %s", f.Name)
		}
	}
	for _, name := range readOnly[e] {
		switch {
		case h.same(name, was):
		case !h.has(name):
			return &readOnlyError{"delete", name}
		case !was.has(name):
			return &readOnlyError{"add", name}
		default:
			return &readOnlyError{"update", name}
		}
	}
	return nil
}

// WithHidden returns h with those fields of was that functions do not see.
func (h Header) WithHidden(was Header) Header {
	for _, f := range was {
		if Hidden(lower(f.Name)) {
			h = append(h, f)
		}
	}
	return h
}

// parseHeader reads a headers object. Fields come in the order of those in was,
// then the new ones by name: JSON objects have no order of their own.
func parseHeader(raw json.RawMessage, was Header) (Header, error) {
	if len(raw) == 0 || bytes.Equal(raw, null) {
		return nil, nil
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, invalidf(reasonEntries, "headers is not an object")
	}
	h := make(Header, 0, len(o))
	take := func(name string, entries json.RawMessage) (err error) {
		delete(o, name)
		h, err = appendEntries(h, name, entries)
		return err
	}
	for _, f := range was {
		name := lower(f.Name)
		if entries, ok := o[name]; ok {
			if err := take(name, entries); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if err := take(name, o[name]); err != nil {
			return nil, err
		}
	}
	if len(h) == 0 {
		return nil, nil
	}
	h.Restore(was)
	return h, nil
}

// Restore gives values that a function left alone the bytes that they had before
// they were made UTF-8 for it.
func (h Header) Restore(was Header) {
	for _, f := range was {
		shown := AsUTF8(f.Value)
		if shown == f.Value {
			continue
		}
		for i := range h {
			if strings.EqualFold(h[i].Name, f.Name) && h[i].Value == shown {
				h[i].Value = f.Value
			}
		}
	}
}

// appendEntries appends the fields of one name.
func appendEntries(h Header, name string, raw json.RawMessage) (Header, error) {
	var entries []struct {
		Key   *string         `json:"key"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, invalidf(reasonEntries, "The Lambda function returned an invalid entry in the headers object, each header entry must be an array, header : %s.", name)
	}
	for _, entry := range entries {
		key := Capitalised(lower(name))
		if entry.Key != nil {
			key = *entry.Key
		}
		if !strings.EqualFold(key, name) || !httpguts.ValidHeaderFieldName(key) {
			return nil, invalidf(reasonEntry, "The Lambda function returned an invalid entry in the headers object, its key is not the header's name, header : %s.", name)
		}
		values, ok := entryValues(entry.Value)
		if !ok {
			return nil, invalidf(reasonEntry, "The Lambda function returned an invalid entry in the headers object, the value of each header value must be of string or array of string type, header : %s.", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return nil, invalidf(reasonEntry, "The Lambda function returned an invalid entry in the headers object, the value has an invalid character, header : %s.", name)
			}
			h = append(h, Field{key, v})
		}
	}
	return h, nil
}

// entryValues reads a value, or several.
func entryValues(raw json.RawMessage) (values []string, ok bool) {
	if len(raw) == 0 || bytes.Equal(raw, null) {
		return nil, false
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, true
	}
	var some []*string
	if json.Unmarshal(raw, &some) != nil {
		return nil, false
	}
	for _, v := range some {
		if v == nil {
			return nil, false
		}
		values = append(values, *v)
	}
	return values, true
}
