package wire

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/aws/schema"
)

// eventMember returns the member of an output that is a stream of events.
func eventMember(s *schema.Shape) *schema.Member {
	for i := range s.Members {
		if s.Members[i].Shape.Kind == schema.Events {
			return &s.Members[i]
		}
	}
	return nil
}

// writeEvents writes an output whose body is a stream of events, each one sent
// as soon as it is there. An error ends the stream: it is the last event, and
// where it is not AWS's own, it is returned for the log.
func (c *Call) writeEvents(w http.ResponseWriter, m *schema.Member, out reflect.Value) error {
	encoder, flush := eventstream.NewEncoder(), http.NewResponseController(w).Flush
	send := func(message eventstream.Message) bool { // false: the client has gone
		return encoder.Encode(w, message) == nil && flush() == nil
	}
	var first *eventstream.Message
	if c.Protocol == aws.JSON || c.Protocol == aws.CBOR {
		// In RPC protocols the output's other members come as the first event.
		body, contentType, err := c.document(c.Operation.Output, out)
		if err != nil {
			return err
		}
		message := eventMessage("event", "initial-response", contentType, body)
		first = &message
	}
	w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
	w.WriteHeader(c.status(out))
	if first != nil {
		if !send(*first) {
			return nil
		}
	} else if flush() != nil {
		return nil
	}
	field := out.Field(m.Index)
	if field.IsNil() {
		return nil
	}
	for event, failure := range field.Seq2() {
		if err, _ := failure.Interface().(error); err != nil {
			e, isAWS := errors.AsType[*aws.Error](err)
			if !isAWS {
				e = &aws.Error{Code: "InternalFailure", Message: "An internal error occurred."}
			}
			if send(eventMessage("exception", e.Code, "application/json", errorJSON(e, ""))) && !isAWS {
				return fmt.Errorf("wire: streaming events: %w", err)
			}
			return nil
		}
		message, err := c.event(m.Shape, event)
		if err != nil {
			return err
		}
		if !send(message) {
			return nil
		}
	}
	return nil
}

// status is the response's: the operation's own, unless the output says another.
func (c *Call) status(out reflect.Value) int {
	if m := c.Operation.Output.Bound(schema.StatusCode); m != nil {
		if v, ok := present(out.Field(m.Index)); ok {
			return int(v.Int())
		}
	}
	return c.Operation.Status
}

// event makes the message of the one member of a union that is set: its name,
// its header members, and its payload member or else the others as a document.
func (c *Call) event(union *schema.Shape, v reflect.Value) (eventstream.Message, error) {
	v = reflect.Indirect(v)
	for i := range union.Members {
		m := &union.Members[i]
		f, ok := present(v.Field(m.Index))
		if !ok {
			continue
		}
		body, contentType, err := c.document(m.Shape, f)
		if err != nil {
			return eventstream.Message{}, err
		}
		var headers eventstream.Headers
		for j := range m.Shape.Members {
			p := &m.Shape.Members[j]
			value, ok := present(f.Field(p.Index))
			switch {
			case p.EventHeader && ok:
				headers.Set(p.WireName(), headerValue(p, value))
			case p.EventPayload && p.Shape.Kind == schema.Blob:
				body, contentType = nil, "application/octet-stream"
				if ok {
					body = value.Bytes()
				}
			case p.EventPayload && p.Shape.Kind == schema.String:
				body, contentType = nil, "text/plain"
				if ok {
					body = []byte(value.String())
				}
			}
		}
		message := eventMessage("event", m.Name, contentType, body)
		message.Headers = append(message.Headers, headers...)
		return message, nil
	}
	return eventstream.Message{}, fmt.Errorf("wire: an event of %s has no member", union.Name)
}

// headerValue is a value as the header of an event.
func headerValue(m *schema.Member, v reflect.Value) eventstream.Value {
	switch m.Shape.Kind {
	case schema.Integer:
		return eventstream.Int32Value(v.Int())
	case schema.Long:
		return eventstream.Int64Value(v.Int())
	case schema.Boolean:
		return eventstream.BoolValue(v.Bool())
	case schema.Blob:
		return eventstream.BytesValue(v.Bytes())
	case schema.Timestamp:
		return eventstream.TimestampValue(v.Interface().(time.Time))
	}
	return eventstream.StringValue(v.String())
}

func eventMessage(kind, name, contentType string, payload []byte) eventstream.Message {
	var h eventstream.Headers
	h.Set(":message-type", eventstream.StringValue(kind))
	h.Set(":"+kind+"-type", eventstream.StringValue(name))
	h.Set(":content-type", eventstream.StringValue(contentType))
	return eventstream.Message{Headers: h, Payload: payload}
}
