package wire

import (
	"net/http"
	"reflect"

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
// as soon as it is there. An error of the stream is its last event.
func (c *Call) writeEvents(w http.ResponseWriter, m *schema.Member, out reflect.Value) error {
	w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
	w.WriteHeader(c.Operation.Status)
	flush := http.NewResponseController(w).Flush
	e := eventstream.NewEncoder()
	if c.Protocol == aws.JSON || c.Protocol == aws.CBOR {
		// In RPC protocols the output's other members come as a first event.
		first := eventMessage("event", "initial-response", "application/json", appendJSON(nil, c.Operation.Output, out))
		if e.Encode(w, first) != nil {
			return nil
		}
	}
	_ = flush()
	field := out.Field(m.Index)
	if field.IsNil() {
		return nil
	}
	for event, err := range field.Seq2() {
		var message eventstream.Message
		if err, isErr := err.Interface().(error); isErr && err != nil {
			message = errorEvent(err)
		} else {
			message = unionEvent(m.Shape, event)
		}
		if e.Encode(w, message) != nil {
			return nil // the client has gone; the producer's context tells it
		}
		if flush() != nil {
			return nil
		}
	}
	return nil
}

// unionEvent makes the message of the one member that is set.
func unionEvent(union *schema.Shape, v reflect.Value) eventstream.Message {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	for i := range union.Members {
		m := &union.Members[i]
		f, ok := present(v.Field(m.Index))
		if !ok {
			continue
		}
		for j := range m.Shape.Members {
			p := &m.Shape.Members[j]
			if !p.EventPayload {
				continue
			}
			value, _ := present(f.Field(p.Index))
			if p.Shape.Kind == schema.Blob {
				return eventMessage("event", m.Name, "application/octet-stream", value.Bytes())
			}
			return eventMessage("event", m.Name, "text/plain", []byte(value.String()))
		}
		return eventMessage("event", m.Name, "application/json", appendJSON(nil, m.Shape, f))
	}
	return errorEvent(nil)
}

func errorEvent(err error) eventstream.Message {
	e, ok := err.(*aws.Error)
	if !ok {
		e = &aws.Error{Code: "InternalFailure", Message: "An internal error occurred."}
	}
	return eventMessage("exception", e.Code, "application/json", errorJSON(e, ""))
}

func eventMessage(kind, name, contentType string, payload []byte) eventstream.Message {
	var h eventstream.Headers
	h.Set(":message-type", eventstream.StringValue(kind))
	h.Set(":"+kind+"-type", eventstream.StringValue(name))
	h.Set(":content-type", eventstream.StringValue(contentType))
	return eventstream.Message{Headers: h, Payload: payload}
}
