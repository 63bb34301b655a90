package wire

import (
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"lapwing.dev/lapwing/internal/aws/schema"
)

// target returns the value to set for an optional field: what its pointer
// points to, made if it is nil.
func target(v reflect.Value) reflect.Value {
	if v.Kind() != reflect.Pointer {
		return v
	}
	if v.IsNil() {
		v.Set(reflect.New(v.Type().Elem()))
	}
	return v.Elem()
}

// present returns the value of an optional field, and whether it is set.
func present(v reflect.Value) (reflect.Value, bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v, false
		}
		return v.Elem(), true
	case reflect.Slice, reflect.Map, reflect.Interface, reflect.Func:
		return v, !v.IsNil()
	case reflect.String:
		return v, v.Len() > 0
	}
	return v, true
}

// setText sets a scalar from its text form, as in headers, paths, queries, XML
// and forms. format is the protocol's timestamp format there.
func setText(m *schema.Member, v reflect.Value, s, format string) error {
	v = target(v)
	switch m.Shape.Kind {
	case schema.String:
		v.SetString(s)
	case schema.Integer, schema.Long:
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, v.Type().Bits())
		if err != nil {
			return serialization("%s: %q is not an integer", m.Name, clip(s))
		}
		v.SetInt(n)
	case schema.Double:
		f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil {
			return serialization("%s: %q is not a number", m.Name, clip(s))
		}
		v.SetFloat(f)
	case schema.Boolean:
		switch strings.ToLower(strings.TrimSpace(s)) {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			return serialization("%s: %q is not a boolean", m.Name, clip(s))
		}
	case schema.Timestamp:
		t, err := parseTime(s, timestampFormat(m, format))
		if err != nil {
			return serialization("%s: %q is not a timestamp", m.Name, clip(s))
		}
		v.Set(reflect.ValueOf(t))
	case schema.Blob:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return serialization("%s: not valid base64", m.Name)
		}
		v.SetBytes(b)
	default:
		return fmt.Errorf("wire: %s is no scalar", m.Name)
	}
	return nil
}

// text returns the text form of a scalar that is set.
func text(m *schema.Member, v reflect.Value, format string) string {
	switch m.Shape.Kind {
	case schema.String:
		return v.String()
	case schema.Integer, schema.Long:
		return strconv.FormatInt(v.Int(), 10)
	case schema.Double:
		return formatFloat(v.Float())
	case schema.Boolean:
		return strconv.FormatBool(v.Bool())
	case schema.Timestamp:
		return formatTime(v.Interface().(time.Time), timestampFormat(m, format))
	case schema.Blob:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	}
	return ""
}

// Formats of timestamps.
const (
	iso8601 = "iso8601"
	rfc822  = "rfc822"
	unix    = "unixTimestamp"
)

func timestampFormat(m *schema.Member, format string) string {
	if m.TimestampFormat != "" {
		return m.TimestampFormat
	}
	if m.Shape.TimestampFormat != "" {
		return m.Shape.TimestampFormat
	}
	return format
}

func formatTime(t time.Time, format string) string {
	t = t.UTC()
	switch format {
	case rfc822:
		return t.Format(http.TimeFormat)
	case unix:
		return formatFloat(seconds(t))
	}
	if t.Nanosecond() == 0 {
		return t.Format("2006-01-02T15:04:05Z")
	}
	return t.Format("2006-01-02T15:04:05.000Z")
}

func parseTime(s, format string) (time.Time, error) {
	switch format {
	case rfc822:
		return http.ParseTime(s)
	case unix:
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return time.Time{}, err
		}
		return fromSeconds(f)
	}
	return time.Parse(time.RFC3339, s)
}

// seconds returns t in seconds of the Unix epoch, to the millisecond.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func fromSeconds(f float64) (time.Time, error) {
	if math.IsNaN(f) || math.Abs(f) > 253402300800 { // the year 10000
		return time.Time{}, fmt.Errorf("%v is out of range", f)
	}
	return time.UnixMilli(int64(math.Round(f * 1000))).UTC(), nil
}

func formatFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// maxClip is how much of a stranger's text a message shows, in bytes.
const maxClip = 1024

// clip shortens a stranger's text for a message.
func clip(s string) string {
	if len(s) > maxClip {
		return strings.ToValidUTF8(s[:maxClip], "") + "…"
	}
	return s
}
