package usage

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/meter"
)

// fill gives every field of a struct a value.
func fill(t *testing.T, v reflect.Value, r *rand.Rand) {
	t.Helper()
	texts := []string{"", "f", "$LATEST", "2026/11/29/[1]0f", "a\tb\n", "\r\b\x00\x7f", `"\`, "<&>", "grüße\u2028\u2029🐦", "\xff\xc3", "\t\xe2\x80"}
	for i := range v.NumField() {
		switch f := v.Field(i).Addr().Interface().(type) {
		case *string:
			*f = texts[r.IntN(len(texts))] + texts[r.IntN(len(texts))]
		case *int:
			*f = int(r.Int64()) >> r.IntN(64) * (r.IntN(3) - 1)
		case *int64:
			*f = r.Int64() >> r.IntN(64) * (r.Int64N(3) - 1)
		case *time.Duration:
			*f = time.Duration(r.Int64() >> r.IntN(64))
		case *bool:
			*f = r.IntN(2) == 1
		case *time.Time:
			zone := time.FixedZone("", (r.IntN(48)-24)*1800)
			*f = time.Unix(r.Int64N(1<<35), r.Int64N(1e9)/[]int64{1, 1e3, 1e6, 1e9}[r.IntN(4)]).In([]*time.Location{time.UTC, zone}[r.IntN(2)])
		default:
			t.Fatalf("%v has a field of type %T, which is new to this test", v.Type(), f)
		}
	}
}

func TestRecordIsEncodedAsEncodingJSONHasIt(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 2000 {
		var u meter.Usage
		var line meter.Report
		fill(t, reflect.ValueOf(&u).Elem(), r)
		fill(t, reflect.ValueOf(&line).Elem(), r)
		rec := record{Usage: &u}
		if i%4 != 0 {
			rec.Report = &line
		}
		want, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendRecord([]byte("x"), &rec); string(got) != "x"+string(want) {
			t.Fatalf("seed %d:\n%s\nwant\n%s", seed, got[1:], want)
		}
	}
}

func TestEveryByteIsEncodedAsEncodingJSONHasIt(t *testing.T) {
	for c := range 256 {
		s := fmt.Sprintf("a%cb", c) + string([]byte{'x', byte(c), 'y'})
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendString(nil, s); string(got) != string(want) {
			t.Errorf("%q is %s, want %s", s, got, want)
		}
	}
}
