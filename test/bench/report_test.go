package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestPictureIsWellFormedAndHasACurveForEachSample(t *testing.T) {
	var r report
	var times []time.Duration
	for i := range 300 {
		times = append(times, time.Duration(i)*time.Millisecond)
	}
	for _, who := range []string{"Node.js, native", "a < b & c", "Lapwing, Node.js"} {
		r.sample(startTimes, who, ownKind, loadOf(times))
	}
	r.sample(burstTimes, "Lapwing", ownKind, loadOf([]time.Duration{time.Second}))
	curves := 0
	for d := xml.NewDecoder(strings.NewReader(string(r.picture()))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			curves++
		}
	}
	if curves != len(r.Samples) {
		t.Errorf("%d curves of %d samples", curves, len(r.Samples))
	}
	if s := r.Samples[0]; s.MS.P50 != 150 || s.MS.P99 != 297 || s.MS.Max != 299 || len(s.Curve) != 201 || s.Curve[0] != 0 || s.Curve[200] != 299 {
		t.Errorf("sample %+v", s)
	}
}

func TestRowsTellWhetherAnAimIsMet(t *testing.T) {
	var r report
	r.atMost("a", "f", 100*time.Millisecond, 200*time.Millisecond, 2)
	r.atMost("b", "f", 100*time.Millisecond, 201*time.Millisecond, 2)
	r.atMostMore("c", "f", 10*time.Millisecond, 40*time.Millisecond, 30*time.Millisecond)
	r.memory("d", "", 0, 61, 60, "<= 60 MiB")
	r.missing("e", "no snapshot", "<= 1 x")
	want := []string{"met", "missed", "met", "missed", "no aim"}
	for i, row := range r.Rows {
		got := "no aim"
		if row.Met != nil {
			got = map[bool]string{true: "met", false: "missed"}[*row.Met]
		}
		if got != want[i] {
			t.Errorf("%+v: %s, want %s", row, got, want[i])
		}
	}
}
