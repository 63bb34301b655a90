package jsonsyntax

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

var samples = []string{
	``, ` `, `{}`, `[]`, ` { } `, `[ ]`, `{"a":1}`, `{"a" : [1, 2 ,{}], "b":null}`, `{"a":1,}`, `[1,]`, `[,1]`, `{,}`, `{"a"}`, `{"a":}`, `{1:2}`, `{"a":1 "b":2}`, `[1 2]`,
	`{`, `[`, `}`, `]`, `[1`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `[}`, `{]`, `[1}`, `{"a":1]`, `{}{}`, `{} x`, `1 2`, "\ufeff{}",
	`true`, `false`, `null`, `tru`, `truex`, `nul`, `True`, `[true,false,null]`, `t`, `-true`,
	`0`, `-0`, `-`, `+1`, `01`, `00`, `1.`, `.5`, `1.5`, `-1.5e+10`, `1e`, `1e+`, `1E-5`, `1e5.5`, `0e0`, `0x1`, `NaN`, `1_0`, `--1`, `123456789012345678901234567890`, `1.0e`,
	`""`, `"a"`, `"`, `"\`, `"\"`, `"\""`, `"\\"`, `"\u00e9"`, `"\u00E9\uD83D\ude00"`, `"\u00g0"`, `"\u00`, `"\u0`, `"\u"`, `"\x"`, `"\/\b\f\n\r\t"`, "\"a\nb\"", "\"\x00\"", "\"\x1f\"", "\"\x7f\x80\xff\"",
	`"1234567"`, `"12345678"`, `"123456789"`, `"1234567\n12345678\"12345678"`, `"12345678`, `"1234567`, "\"12345678\x01\"", "\"1234\x01678\"", `"éééééééé"`, `'a'`,
	strings.Repeat("[", 99) + strings.Repeat("]", 99), strings.Repeat("[", 101) + strings.Repeat("]", 101), strings.Repeat("[", 101) + strings.Repeat("]", 100),
	strings.Repeat(`{"a":`, 150) + "1" + strings.Repeat("}", 150), strings.Repeat("[", 10000) + strings.Repeat("]", 10000), strings.Repeat("[", 10001) + strings.Repeat("]", 10001),
}

func check(t *testing.T, b []byte) {
	t.Helper()
	if got, want := Valid(b), json.Valid(b); got != want {
		t.Errorf("%.200q: %v, want %v", b, got, want)
	}
}

func TestValidSaysWhatPackageJSONSays(t *testing.T) {
	for _, s := range samples {
		check(t, []byte(s))
	}
}

// Every byte of a document that has everything is replaced by every other.
func TestValidFindsWhatIsWrongWhereverItIs(t *testing.T) {
	doc := []byte(`{"text":"0123456789 \"é\" \u00e9\n","list":[0,-1.5e+3,true,false,null,{}],"":[[ ]]}` + "\n")
	for i := range doc {
		check(t, doc[:i])
		for c := range 256 {
			b := append([]byte{}, doc...)
			b[i] = byte(c)
			check(t, b)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		b := append([]byte{}, doc...)
		for range 1 + r.IntN(3) {
			from, to := r.IntN(len(b)), r.IntN(len(b))
			b[from] = b[to]
			b = append(b[:min(from, to)], b[min(from, to)+r.IntN(2):]...)
		}
		check(t, b)
	}
}

func FuzzValid(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { check(t, b) })
}

func BenchmarkValid(b *testing.B) {
	list := make([]string, 40)
	for i := range list {
		list[i] = fmt.Sprintf(`{"id":%d,"name":"n%d","ok":true}`, i, i)
	}
	for name, doc := range map[string]string{
		"text":    `{"text":"` + strings.Repeat("x", 1013) + `"}`,
		"records": "[" + strings.Join(list, ", ") + "]",
		"numbers": "[" + strings.Repeat("12, 3.25, ", 100) + "0]",
	} {
		doc := []byte(doc)
		for which, valid := range map[string]func([]byte) bool{"here": Valid, "json": json.Valid} {
			b.Run(name+"/"+which, func(b *testing.B) {
				b.SetBytes(int64(len(doc)))
				for b.Loop() {
					if !valid(doc) {
						b.Fatal("not valid")
					}
				}
			})
		}
	}
}
