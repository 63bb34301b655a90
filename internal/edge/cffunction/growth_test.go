package cffunction

import (
	"runtime"
	"strings"
	"testing"

	"lapwing.dev/lapwing/internal/edge/distribution"
)

func runCode(t *testing.T, code string) TestResult {
	t.Helper()
	r, err := Test(t.Context(), distribution.Function{Runtime: Runtime2, Code: "function handler(event) { " + code + " }"}, nil, []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Each of these took hundreds of MB, or did not stop, before what it does was
// counted. Not run at once: what is measured is the whole process.
func TestMemoryOfARunIsBounded(t *testing.T) {
	const (
		long = `const s = 'x'.repeat(1e6); `
		many = `const list = (v) => { const a = []; for (let i = 0; i < 1000; i++) a.push(v); return a; }; `
		hole = `const a = []; a.length = 1e9; `
	)
	for name, code := range map[string]string{
		"string added to itself":         `let s = 'x'.repeat(1000); for (;;) s += s;`,
		"string added":                   `let s = 'x'.repeat(1000); for (;;) s = s + s;`,
		"template":                       "let s = 'x'.repeat(1000); for (;;) s = `${s}${s}`;",
		"concat":                         `let s = 'x'.repeat(1000); for (;;) s = s.concat(s);`,
		"join":                           long + many + `list(s).join('');`,
		"join of objects":                long + many + `list({ toString() { return s; } }).join('');`,
		"array as a string":              long + many + `String(list(s));`,
		"toLocaleString":                 long + many + `list(s).toLocaleString();`,
		"String.raw":                     long + many + `String.raw({ raw: list(s) });`,
		"JSON":                           long + many + `JSON.stringify(list(s));`,
		"JSON of objects":                long + many + `JSON.stringify(list({ toJSON() { return s; } }));`,
		"result":                         long + many + `return list(s);`,
		"replace":                        long + `'x'.repeat(1000).replace(/x/g, s);`,
		"replace by a function":          long + `'x'.repeat(1000).replace(/x/g, () => s);`,
		"replace by what was before":     "'x'.repeat(100000).replace(/x/g, '$`');",
		"replaceAll":                     long + `'x'.repeat(1000).replaceAll('x', s);`,
		"split":                          long + `const a = []; for (;;) a.push(s.split(''));`,
		"match":                          long + `const a = []; for (;;) a.push(s.match(/x/g));`,
		"array concatenated":             `let a = [1, 2, 3]; for (;;) a = a.concat(a);`,
		"array spread":                   `let a = [1, 2, 3]; for (;;) a = [...a, ...a];`,
		"flat":                           many + `list(new Array(1e5).fill(1)).flat();`,
		"flatMap":                        many + `list(new Array(1e5).fill(1)).flatMap((v) => v);`,
		"Array.from":                     `Array.from({ length: 1e9 });`,
		"arrays":                         `const a = []; for (;;) a.push(new Array(1e6));`,
		"slices":                         `const a = [], b = new Array(1e5).fill(1); for (;;) a.push(b.slice());`,
		"map of nothing":                 hole + `a.map((v) => v);`,
		"nothing spread":                 hole + `[...a];`,
		"nothing spread in a call":       hole + `Math.max(...a);`,
		"set of nothing":                 hole + `new Set(a);`,
		"apply":                          hole + `Math.max.apply(null, a);`,
		"apply to what is like an array": `String.fromCharCode.apply(null, { length: 1e9 });`,
		"Buffer.alloc":                   `Buffer.alloc(1e9);`,
		"Buffer.concat":                  long + many + `Buffer.concat(list(Buffer.from(s)));`,
		"Uint8Array":                     `new Uint8Array({ length: 1e9 });`,
		"objects":                        `const a = []; for (;;) a.push({ a: 1, b: 2 });`,
	} {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := runCode(t, code)
		runtime.ReadMemStats(&after)
		if !strings.Contains(r.Error, "out of memory") && !strings.Contains(r.Error, "compute time") {
			t.Errorf("%s: %q", name, r.Error)
		}
		if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 192 {
			t.Errorf("%s: %d MB were allocated", name, n)
		}
	}
}

// What is replaced to be counted does what the language says.
func TestCountedMethodsAreThoseOfTheLanguage(t *testing.T) {
	for code, want := range map[string]string{
		"[1, , null, 'a', [2, 3]].join('-')": `1---a-2,3`,
		"String([1, [2, [3]]])":              `1,2,3`,
		"'a'.concat(1, null, 'b')":           `a1nullb`,
		"`a${1}b${'c'}d${[2]}`":              `a1bcd2`,
		"((a, b) => a + b)(1, 2) + ''":       `3`,
		"(() => { let s = 'a'; const t = 'b'; s += t; s += 1; return s; })()":                                      `ab1`,
		"JSON.stringify({ a: [1, undefined, () => 1], b: undefined, c: new Date(0) })":                             `{"a":[1,null,null],"c":"1970-01-01T00:00:00.000Z"}`,
		"JSON.stringify({ a: 1, b: { a: 2, c: 3 } }, ['a', 'b'])":                                                  `{"a":1,"b":{"a":2}}`,
		"JSON.stringify({ a: 1 }, (k, v) => (k === 'a' ? v + 1 : v), 1)":                                           "{\n \"a\": 2\n}",
		"typeof JSON.stringify(undefined)":                                                                         `undefined`,
		"'aXbX'.replace(/(.)X/g, '[$1|$&|$$|$2]')":                                                                 `[a|aX|$|$2][b|bX|$|$2]`,
		"'abc'.replace(/b/, \"($`|$')\")":                                                                          `a(a|c)c`,
		"'2026-11'.replace(/(?<y>\\d+)-(?<m>\\d+)/, '$<m>/$<y>')":                                                  `11/2026`,
		"'a.b.c'.replaceAll('.', '$&$&')":                                                                          `a..b..c`,
		"'a.b'.replace('.', (m, at) => m + at)":                                                                    `a.1b`,
		"'abcabc'.replace(/b/g, (m, at, s) => at + s[at])":                                                         `a1bca4bc`,
		"JSON.stringify([[1, [2]], 3].flat(Infinity))":                                                             `[1,2,3]`,
		"JSON.stringify([1, 2].flatMap((v) => [v, [v]]))":                                                          `[1,[1],2,[2]]`,
		"JSON.stringify([1].concat(2, [3, [4]]))":                                                                  `[1,2,3,[4]]`,
		"JSON.stringify(Array.from({ length: 2 }, (_, i) => i))":                                                   `[0,1]`,
		"JSON.stringify(Array.from(new Set('aab')))":                                                               `["a","b"]`,
		"Math.max.apply(null, [1, 3, 2]) + ''":                                                                     `3`,
		"(function () { return [...arguments].join('') + Array.from(arguments).length; }).apply(null, ['a', 'b'])": `ab2`,
		"String.raw`a${1}\\n`":                                                                                     `a1\n`,
		"[3, 1, 2].sort().map((v) => v * 2).slice(1).join()":                                                       `4,6`,
		"'a,b;c'.split(/[,;]/).join('|') + 'aba'.match(/a/g).length":                                               `a|b|c2`,
		"Buffer.concat([Buffer.from('a'), Buffer.from('bc')], 2).toString()":                                       `ab`,
		"[...[1, 2].entries()].join(';')":                                                                          `0,1;1,2`,
	} {
		r := runCode(t, "return "+code+";")
		if r.Error != "" || r.Output != quote(t, want) {
			t.Errorf("%s: %s %s, want %s", code, r.Output, r.Error, quote(t, want))
		}
	}
}

func TestCodeCannotReachTheCount(t *testing.T) {
	for _, code := range []string{
		"Object.defineProperty(globalThis, Object.getOwnPropertyNames(globalThis).find((n) => n.endsWith('grown')), { value: (v) => v });",
		"globalThis[Object.getOwnPropertyNames(globalThis).find((n) => n.endsWith('grown'))] = (v) => v;",
		"new Proxy([], {});",
	} {
		if r := runCode(t, code); r.Error == "" {
			t.Errorf("%s: no error", code)
		}
	}
}
