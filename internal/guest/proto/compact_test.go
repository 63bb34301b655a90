package proto

import (
	"reflect"
	"testing"
)

var compacts = []compactAppender{
	Invocation{RequestID: "r", DeadlineMs: 1 << 50, InvokedFunctionARN: "arn", TraceID: "t", ClientContext: `{"a":"é"}`, CognitoIdentity: "c", TenantID: "x", ContentType: "y", Streaming: true},
	Invocation{}, ResponseStart{RequestID: "r", ContentType: "a/b", Streaming: true}, ResponseEnd{ErrorType: "A", ErrorBody: "{}"},
	InvokeDone{RequestID: "r"}, Log{TimeUs: -1, Source: "function", Level: "INFO", JSON: true},
}

// fresh returns a pointer to a zero value of v's type.
func fresh(v any) reflect.Value { return reflect.New(reflect.TypeOf(v)) }

func TestCompactFramesSayWhatTheySaid(t *testing.T) {
	for _, v := range compacts {
		sent := v.appendTo(nil)
		got := fresh(v)
		if err := unmarshal(sent, got.Interface()); err != nil || got.Elem().Interface() != any(v) {
			t.Errorf("%+v: %v, %+v", v, err, got.Elem())
		}
		for n := range sent {
			if unmarshal(sent[:n], fresh(v).Interface()) == nil {
				t.Errorf("%T: %d of %d bytes are taken for the whole", v, n, len(sent))
			}
		}
		if unmarshal(append(sent, 0), fresh(v).Interface()) == nil {
			t.Errorf("%T: a byte too many is not noticed", v)
		}
	}
	var d InvokeDone
	if err := unmarshal(appendText(nil, "a\xffb"), &d); err != nil || d.RequestID != "a\ufffdb" {
		t.Errorf("%q, %v", d.RequestID, err)
	}
}

func FuzzCompact(f *testing.F) {
	for _, v := range compacts {
		f.Add(v.appendTo(nil))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, v := range compacts {
			got, again := fresh(v), fresh(v)
			if unmarshal(in, got.Interface()) != nil {
				continue
			}
			out := got.Elem().Interface().(compactAppender).appendTo(nil)
			if err := unmarshal(out, again.Interface()); err != nil || got.Elem().Interface() != again.Elem().Interface() {
				t.Fatalf("%+v became %+v, %v", got.Elem(), again.Elem(), err)
			}
		}
	})
}
