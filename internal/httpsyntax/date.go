package httpsyntax

import (
	"sync/atomic"
	"time"
)

// dateFormat is IMF-fixdate (RFC 9110, 5.6.7).
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// date is a second as the Date field has it.
type date struct {
	second int64
	text   [len(dateFormat)]byte
}

var lastDate atomic.Pointer[date]

// AppendDate appends the value of a Date field. Putting it into words takes longer
// than all the rest of a small answer's header, so it is done once a second.
func AppendDate(b []byte, now time.Time) []byte {
	second := now.Unix()
	d := lastDate.Load()
	if d == nil || d.second != second {
		d = &date{second: second}
		now.UTC().AppendFormat(d.text[:0], dateFormat)
		lastDate.Store(d)
	}
	return append(b, d.text[:]...)
}
