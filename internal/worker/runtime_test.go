package worker

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/aws"
	"lapwing.dev/lapwing/internal/invoke"
)

func TestRuntimeThatIsNotHereIsToldToTheCaller(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for name, tt := range map[string]struct{ runtime, version, message string }{
		"unknown":         {"cobol85", "", `runtime "cobol85" is not known`},
		"another version": {"provided.al2023", "arn:aws:lambda:eu-west-1::runtime:0000", "version arn:aws:lambda:eu-west-1::runtime:0000 of runtime provided.al2023 is not installed here any more"},
	} {
		t.Run(name, func(t *testing.T) {
			v := b.custom(t, nil)
			v.Runtime, v.RuntimeVersionARN = tt.runtime, tt.version
			var out bytes.Buffer
			_, err := b.Invoke(t.Context(), &invoke.Request{Version: v, RequestID: requestID, Payload: []byte("{}")}, &out)
			refused, ok := errors.AsType[*aws.Error](err)
			if !ok || refused.Code != "InvalidRuntimeException" || refused.Status != 502 || !strings.Contains(refused.Message, tt.message) {
				t.Errorf("got %v, want InvalidRuntimeException with %q", err, tt.message)
			}
		})
	}
	if n := len(b.sandboxes.made()); n != 0 {
		t.Errorf("made %d sandboxes", n)
	}
	v := b.function(t)
	rt, err := b.opt.Resolve(v.Runtime)
	if err != nil {
		t.Fatal(err)
	}
	v.RuntimeVersionARN = rt.VersionARN(v.Region)
	b.expect(t, v, `{"do":"count"}`, "1")
}
