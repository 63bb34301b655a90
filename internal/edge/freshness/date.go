package freshness

import (
	"net/http"
	"strings"
	"time"
)

// The forms of HTTP-date (RFC 9110, 5.6.7).
var dateForms = []string{
	http.TimeFormat,
	"Monday, 02-Jan-06 15:04:05 GMT",
	time.ANSIC,
}

// parseDate reads an HTTP-date to the letter, but for the case of letters, which a
// cache may overlook (RFC 9111, 4.2): package time alone would let pass what other
// caches on the way take for no date.
func parseDate(s string) (time.Time, bool) {
	if n := len(s) - len("GMT"); n > 0 && strings.EqualFold(s[n:], "GMT") {
		s = s[:n] + "GMT"
	}
	for _, form := range dateForms {
		t, err := time.Parse(form, s)
		if err == nil && sameDigits(t.Format(form), s) {
			return t, true
		}
	}
	return time.Time{}, false
}

// sameDigits tells whether two dates differ in nothing but letters, such as those of
// the day of the week, which needs not be right.
func sameDigits(a, b string) bool {
	_, a, _ = strings.Cut(a, " ")
	_, b, _ = strings.Cut(b, " ")
	return strings.EqualFold(a, b)
}
