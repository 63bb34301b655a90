package telemetry

import (
	"strings"
	"testing"
	"time"
)

func TestSubscriptionHasLambdasDefaults(t *testing.T) {
	s, err := Parse(Telemetry, []byte(`{"schemaVersion":"2022-07-01","types":["platform","function","platform"],
		"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:8080"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Buffering != (Buffering{MaxItems: 10000, MaxBytes: 262144, Timeout: time.Second}) {
		t.Errorf("buffering %+v", s.Buffering)
	}
	if s.Destination != (Destination{Protocol: "HTTP", Method: "POST", Host: "sandbox.localdomain", Port: 8080, Path: "/"}) {
		t.Errorf("destination %+v", s.Destination)
	}
	if strings.Join(s.Types, " ") != "platform function" {
		t.Errorf("types %q", s.Types)
	}
}

func TestLogsSubscriptionHasADefaultSchemaAndMayAskForPUT(t *testing.T) {
	s, err := Parse(Logs, []byte(`{"types":["extension"],"buffering":{"maxItems":1000,"maxBytes":1048576,"timeoutMs":25},
		"destination":{"protocol":"HTTP","URI":"http://sandbox:1/a/b?c=d","method":"PUT","encoding":"JSON"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if s.SchemaVersion != "2020-08-15" || s.Destination.Method != "PUT" || s.Destination.Path != "/a/b?c=d" || s.Destination.Host != "sandbox" {
		t.Errorf("got %+v", s)
	}
	if s.Buffering != (Buffering{MaxItems: 1000, MaxBytes: 1048576, Timeout: 25 * time.Millisecond}) {
		t.Errorf("buffering %+v", s.Buffering)
	}
}

func TestTCPDestinationIsAPortOrAURI(t *testing.T) {
	for _, destination := range []string{`{"protocol":"TCP","port":99}`, `{"protocol":"TCP","URI":"tcp://sandbox.localdomain:99"}`} {
		s, err := Parse(Telemetry, []byte(`{"schemaVersion":"2025-01-29","types":["function"],"destination":`+destination+`}`))
		if err != nil || s.Destination.Protocol != "TCP" || s.Destination.Port != 99 {
			t.Errorf("%s: %+v %v", destination, s.Destination, err)
		}
	}
}

func TestWhatIsWrongWithASubscriptionIsTold(t *testing.T) {
	const fine = `"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:80"}`
	for body, want := range map[string]string{
		`{"types":[],"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain"}}`: "URI port is not provided; types should not be empty", // AWS's own example
		`{`:                              "request body is not valid JSON: unexpected end of JSON input",
		`{"types":"all"}`:                "request body is not valid JSON: json: cannot unmarshal string into Go struct field request.types of type []string",
		`{"types":["all"],` + fine + `}`: "types should be platform, function or extension",
		`{"schemaVersion":"2022-07-01","types":["function"],` + fine + `}`: "schemaVersion should be one of 2020-08-15, 2021-03-18",
		`{"types":["function"]}`:                                                                           "destination is not provided",
		`{"types":["function"],"destination":{"protocol":"UDP"}}`:                                          "destination protocol should be HTTP or TCP",
		`{"types":["function"],"destination":{"protocol":"HTTP"}}`:                                         "URI is not provided",
		`{"types":["function"],"destination":{"protocol":"TCP"}}`:                                          "destination port is not provided",
		`{"types":["function"],"destination":{"protocol":"HTTP","URI":"https://sandbox:1"}}`:               "URI scheme should be http",
		`{"types":["function"],"destination":{"protocol":"HTTP","URI":"http://example.com:1"}}`:            "URI host should be sandbox.localdomain",
		`{"types":["function"],"destination":{"protocol":"HTTP","URI":"http://sandbox:9001"}}`:             "URI port 9001 is reserved",
		`{"types":["function"],"destination":{"protocol":"HTTP","URI":"http://sandbox:70000"}}`:            "URI port is not valid",
		`{"types":["function"],"destination":{"protocol":"HTTP","URI":"http://sandbox:1","method":"X"}}`:   "destination method should be POST or PUT",
		`{"types":["function"],"destination":{"protocol":"HTTP","URI":"http://sandbox:1","encoding":"X"}}`: "destination encoding should be JSON",
		`{"types":["function"],` + fine + `,"buffering":{"maxItems":999,"maxBytes":1048577,"timeoutMs":24}}`: "buffering maxItems should be between 1000 and 10000; " +
			"buffering maxBytes should be between 262144 and 1048576; buffering timeoutMs should be between 25 and 30000",
	} {
		if _, err := Parse(Logs, []byte(body)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", body, err, want)
		}
	}
	if _, err := Parse(Telemetry, []byte(`{"types":["function"],`+fine+`}`)); err == nil || err.Error() != "schemaVersion is not provided" {
		t.Errorf("telemetry without a schema: %v", err)
	}
}

func TestEachAPIHasItsOwnEvents(t *testing.T) {
	for _, c := range []struct {
		api    API
		schema string
		want   string
	}{
		{Telemetry, "2022-07-01", "initStart start runtimeDone report telemetrySubscription"},
		{Logs, "2020-08-15", "start end report fault logsSubscription"},
		{Logs, "2021-03-18", "start runtimeDone end report fault logsSubscription"},
	} {
		s := Subscription{API: c.api, SchemaVersion: c.schema, Types: []string{Platform}}
		var got []string
		for _, name := range []string{"initStart", "start", "runtimeDone", "end", "report", "fault", "telemetrySubscription", "logsSubscription"} {
			if s.wants(&Event{Type: "platform." + name}) {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s %s: got %q", c.api, c.schema, got)
		}
		if s.wants(&Event{Type: Function}) {
			t.Error("a function's line is no platform event")
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(true, []byte(`{"schemaVersion":"2022-07-01","types":["platform"],"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:8080/x"}}`))
	f.Add(false, []byte(`{"types":["function"],"buffering":{"maxItems":1000},"destination":{"protocol":"TCP","port":1}}`))
	f.Fuzz(func(t *testing.T, telemetry bool, body []byte) {
		api := Logs
		if telemetry {
			api = Telemetry
		}
		s, err := Parse(api, body)
		if err != nil {
			return
		}
		b, d := s.Buffering, s.Destination
		if b.MaxItems < 1000 || b.MaxItems > 10000 || b.MaxBytes < 262144 || b.MaxBytes > 1048576 ||
			b.Timeout < 25*time.Millisecond || b.Timeout > 30*time.Second {
			t.Errorf("buffering %+v", b)
		}
		if d.Port < 1 || d.Port > 65535 || d.Port == reservedPort || strings.ContainsAny(d.Path+d.Host+d.Method, "\r\n ") {
			t.Errorf("destination %+v", d)
		}
		if len(s.Types) == 0 || len(s.Types) > 3 {
			t.Errorf("types %q", s.Types)
		}
	})
}
