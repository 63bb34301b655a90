package functionurl

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

const (
	jsonType   = "application/json"
	streamType = "application/octet-stream" // of a stream that names no type
	// integrationType marks a response that begins with its head as a JSON
	// document, then separator, then the body.
	integrationType = "application/vnd.awslambda.http-integration-response"
)

var separator = make([]byte, 8)

// maxHead is the longest head of a response in bytes: that of requests.
const maxHead = 1 << 20

// head is a response without its body.
type head struct {
	status  int
	headers map[string]string
	cookies []string
}

// response is what a function returned.
type response struct {
	head
	body []byte
}

// document is a response as a function writes it down: the members of a JSON
// object by their exact names.
type document map[string]json.RawMessage

// interpret makes the response of a function that returned payload, whole, of a
// content type. An object with a statusCode says what the response is; all other
// JSON is the body of one, strings without their quotes (Lambda developer guide,
// "Response payload format"). A streaming function may return anything.
func interpret(payload []byte, contentType string) (*response, error) {
	if contentType == integrationType {
		before, body, found := bytes.Cut(payload, separator)
		if !found {
			return nil, errors.New("no end of the response's head")
		}
		h, err := parseHead(before)
		return &response{*h, body}, err
	}
	if !json.Valid(payload) {
		if contentType == "" || strings.HasPrefix(contentType, jsonType) {
			return nil, errors.New("not JSON")
		}
		return &response{head{status: 200, headers: map[string]string{"Content-Type": contentType}}, payload}, nil
	}
	payload = bytes.TrimSpace(payload)
	plain := &response{head{status: 200, headers: map[string]string{"Content-Type": jsonType}}, payload}
	switch payload[0] {
	case '"':
		plain.body = []byte(text(payload))
		return plain, nil
	case '{':
	default:
		return plain, nil
	}
	var d document
	if err := json.Unmarshal(payload, &d); err != nil {
		return nil, err
	}
	if d["statusCode"] == nil {
		return plain, nil
	}
	h, err := d.head(jsonType)
	if err != nil {
		return nil, err
	}
	body, err := d.body()
	return &response{*h, body}, err
}

// parseHead reads the head of a streamed response, whose content type is that of
// bytes where it names none.
func parseHead(b []byte) (*head, error) {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return &head{}, fmt.Errorf("head of the response: %w", err)
	}
	if d == nil {
		return &head{}, errors.New("head of the response: null")
	}
	if d["statusCode"] == nil {
		d["statusCode"] = json.RawMessage("200")
	}
	h, err := d.head(streamType)
	if err != nil {
		return &head{}, err
	}
	return h, nil
}

// head checks what a document says of the head.
func (d document) head(contentType string) (*head, error) {
	h := &head{headers: map[string]string{"Content-Type": contentType}}
	var err error
	if h.status, err = strconv.Atoi(text(d["statusCode"])); err != nil || h.status < 200 || h.status > 599 {
		return nil, fmt.Errorf("statusCode %s", d["statusCode"])
	}
	var headers document
	if err := d.read("headers", &headers); err != nil {
		return nil, err
	}
	if err := d.read("cookies", &h.cookies); err != nil {
		return nil, err
	}
	for name, raw := range headers {
		value := text(raw)
		switch {
		case len(raw) > 0 && (raw[0] == '{' || raw[0] == '['):
			return nil, fmt.Errorf("header %s is not a string", name)
		case !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value):
			return nil, fmt.Errorf("header %s is not valid", name)
		case string(raw) == "null":
			continue
		case strings.EqualFold(name, "Content-Type"):
			name = "Content-Type" // takes the place of the default
		}
		h.headers[name] = value
	}
	for _, c := range h.cookies {
		if !httpguts.ValidHeaderFieldValue(c) {
			return nil, fmt.Errorf("cookie %q is not valid", c)
		}
	}
	return h, nil
}

// read reads a member, if it is there.
func (d document) read(name string, v any) error {
	if d[name] == nil {
		return nil
	}
	if err := json.Unmarshal(d[name], v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// body returns the body: a string, or the text of other JSON.
func (d document) body() ([]byte, error) {
	raw := d["body"]
	if raw == nil || string(raw) == "null" {
		return nil, nil
	}
	var encoded bool
	if err := d.read("isBase64Encoded", &encoded); err != nil {
		return nil, err
	}
	body := text(raw)
	if !encoded {
		return []byte(body), nil
	}
	b, err := base64.StdEncoding.DecodeString(body)
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return b, nil
}

// text returns the content of a JSON string, and other JSON as it stands.
func text(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] != '"' {
		return string(raw)
	}
	var s string
	if json.Unmarshal(raw, &s) != nil { // it has been found valid
		return ""
	}
	return s
}

// tlsNames returns the version and cipher suite of a connection as AWS names
// them.
func tlsNames(s *tls.ConnectionState) (version, suite string) {
	return strings.Replace(tls.VersionName(s.Version), "TLS 1", "TLSv1", 1), tls.CipherSuiteName(s.CipherSuite)
}
