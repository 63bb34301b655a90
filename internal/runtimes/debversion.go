package runtimes

import (
	"strconv"
	"strings"
)

// compareDebVersions compares package versions by Debian's rules (Policy 5.6.12).
func compareDebVersions(a, b string) int {
	epochA, a := splitEpoch(a)
	epochB, b := splitEpoch(b)
	if epochA != epochB {
		return epochA - epochB
	}
	upA, revA := splitRevision(a)
	upB, revB := splitRevision(b)
	if c := compareDebPart(upA, upB); c != 0 {
		return c
	}
	return compareDebPart(revA, revB)
}

func splitEpoch(v string) (int, string) {
	if epoch, rest, ok := strings.Cut(v, ":"); ok {
		if n, err := strconv.Atoi(epoch); err == nil {
			return n, rest
		}
	}
	return 0, v
}

func splitRevision(v string) (upstream, revision string) {
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return v[:i], v[i+1:]
	}
	return v, ""
}

// compareDebPart compares by turns a part without digits and a number.
func compareDebPart(a, b string) int {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	order := func(s string) int {
		switch {
		case s == "" || digit(s[0]):
			return 0
		case s[0] == '~':
			return -1
		case s[0] >= 'A' && s[0] <= 'Z' || s[0] >= 'a' && s[0] <= 'z':
			return int(s[0])
		}
		return int(s[0]) + 256
	}
	for a != "" || b != "" {
		for a != "" && !digit(a[0]) || b != "" && !digit(b[0]) {
			if c := order(a) - order(b); c != 0 {
				return c
			}
			// The same, so both have a character here.
			a, b = a[1:], b[1:]
		}
		numA, restA := leadingNumber(a)
		numB, restB := leadingNumber(b)
		if c := len(numA) - len(numB); c != 0 {
			return c
		}
		if c := strings.Compare(numA, numB); c != 0 {
			return c
		}
		a, b = restA, restB
	}
	return 0
}

// leadingNumber splits off the digits at the start, without leading zeros.
func leadingNumber(s string) (number, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return strings.TrimLeft(s[:i], "0"), s[i:]
}
