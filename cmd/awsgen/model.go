package main

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// model is an AWS API model in botocore's format, as far as it is used.
type model struct {
	Metadata   metadata
	Operations map[string]*operation
	Shapes     map[string]*shape
}

type metadata struct {
	APIVersion     string
	EndpointPrefix string
	ServiceID      string
	SigningName    string
	Protocol       string
	Protocols      []string
	TargetPrefix   string
	JSONVersion    string
	XMLNamespace   string

	AWSQueryCompatible json.RawMessage
}

// protocols returns the service's protocols, the preferred one first.
func (m *metadata) protocols() []string {
	if len(m.Protocols) == 0 {
		return []string{m.Protocol}
	}
	return m.Protocols
}

type operation struct {
	HTTP struct {
		Method       string
		RequestURI   string
		ResponseCode int
	}
	Input, Output *reference

	RequestCompression struct{ Encodings []string }

	Errors []reference
}

type reference struct {
	Shape         string
	Location      string
	LocationName  string
	QueryName     string
	ResultWrapper string
	XMLNamespace  *namespace
	XMLAttribute  bool
	Flattened     bool
	Streaming     bool
	EventPayload  bool
	EventHeader   bool

	TimestampFormat  string
	IdempotencyToken bool
}

type namespace struct {
	Prefix, URI string
}

// UnmarshalJSON takes both forms of a namespace: a string or an object.
func (n *namespace) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte{'"'}) {
		return json.Unmarshal(b, &n.URI)
	}
	type plain namespace
	return json.Unmarshal(b, (*plain)(n))
}

type shape struct {
	Type         string
	Members      members
	Member       *reference
	Key, Value   *reference
	Required     []string
	Enum         []string
	Pattern      string
	Min, Max     *float64
	Payload      string
	Sensitive    bool
	Streaming    bool
	Flattened    bool
	EventStream  bool
	LocationName string
	XMLNamespace *namespace
	Exception    bool
	Fault        bool
	Error        struct {
		Code           string
		HTTPStatusCode int
	}
	TimestampFormat string
}

// members keeps the order of the model.
type members []member

type member struct {
	Name string
	reference
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *members) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var one member
		if err := d.Decode(&one.reference); err != nil {
			return fmt.Errorf("member %v: %w", name, err)
		}
		one.Name = name.(string)
		*m = append(*m, one)
	}
	return nil
}
