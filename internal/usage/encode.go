package usage

import (
	"encoding/json"
	"strconv"
	"time"

	"lapwing.dev/lapwing/internal/meter"
)

// appendRecord appends a record's JSON. That of an invocation is put together field
// by field, to the byte as encoding/json has it, which took a fifth of the CPU time
// of what follows an invocation's answer.
func appendRecord(b []byte, r *record) []byte {
	if r.Usage == nil || r.Allocation != nil || r.Settled != 0 {
		return appendValue(b, *r)
	}
	b = append(b, `{"usage":`...)
	b = appendUsage(b, r.Usage)
	if r.Report != nil {
		b = append(b, `,"report":`...)
		b = appendReport(b, r.Report)
	}
	return append(b, '}')
}

func appendUsage(b []byte, u *meter.Usage) []byte {
	b = appendString(append(b, `{"RequestID":`...), u.RequestID)
	b = appendString(append(b, `,"Function":`...), u.Function)
	b = appendString(append(b, `,"Version":`...), u.Version)
	b = appendString(append(b, `,"Qualifier":`...), u.Qualifier)
	b = appendString(append(b, `,"Architecture":`...), u.Architecture)
	b = strconv.AppendInt(append(b, `,"MemoryMB":`...), int64(u.MemoryMB), 10)
	b = strconv.AppendInt(append(b, `,"EphemeralMB":`...), int64(u.EphemeralMB), 10)
	b = appendTime(append(b, `,"Began":`...), u.Began)
	b = strconv.AppendInt(append(b, `,"Duration":`...), int64(u.Duration), 10)
	b = strconv.AppendInt(append(b, `,"Init":`...), int64(u.Init), 10)
	b = strconv.AppendInt(append(b, `,"Restore":`...), int64(u.Restore), 10)
	b = strconv.AppendInt(append(b, `,"BilledRestore":`...), int64(u.BilledRestore), 10)
	b = strconv.AppendBool(append(b, `,"Provisioned":`...), u.Provisioned)
	b = strconv.AppendInt(append(b, `,"MaxMemoryMB":`...), int64(u.MaxMemoryMB), 10)
	b = strconv.AppendInt(append(b, `,"StreamedBytes":`...), u.StreamedBytes, 10)
	b = strconv.AppendInt(append(b, `,"PostRuntime":`...), int64(u.PostRuntime), 10)
	b = appendString(append(b, `,"Status":`...), u.Status)
	b = appendString(append(b, `,"ErrorType":`...), u.ErrorType)
	return append(b, '}')
}

func appendReport(b []byte, r *meter.Report) []byte {
	b = appendString(append(b, `{"Group":`...), r.Group)
	b = appendString(append(b, `,"Stream":`...), r.Stream)
	b = appendTime(append(b, `,"Time":`...), r.Time)
	b = appendString(append(b, `,"Message":`...), r.Message)
	return append(b, '}')
}

func appendTime(b []byte, t time.Time) []byte {
	b, err := t.AppendText(append(b, '"'))
	if err != nil {
		panic(err) // a year that no clock has
	}
	return append(b, '"')
}

// plain tells which bytes are themselves in JSON; others there are few.
var plain = func() (t [256]bool) {
	for c := ' '; c <= '~'; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

func appendString(b []byte, s string) []byte {
	whole := len(b)
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if plain[c] {
			continue
		}
		switch b = append(b, s[from:i]...); c {
		case '\t':
			b = append(b, '\\', 't')
		case '\n':
			b = append(b, '\\', 'n')
		default:
			return appendValue(b[:whole], s)
		}
		from = i + 1
	}
	return append(append(b, s[from:]...), '"')
}

// appendValue appends what is rare.
func appendValue(b []byte, v any) []byte {
	p, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and times
	}
	return append(b, p...)
}
