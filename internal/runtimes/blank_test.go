package runtimes

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fill tells a runtime that was started for no function that it is handler's: with
// the variables that it has, but for gone, and those of env.
func (p *process) fill(entropy byte, handler string, gone []string, env ...string) {
	p.t.Helper()
	var pairs [][2]string
	for _, e := range append(slices.Clone(p.cmd.Env), append(env, "_HANDLER="+handler)...) {
		name, value, _ := strings.Cut(e, "=")
		pairs = slices.DeleteFunc(pairs, func(known [2]string) bool { return known[0] == name })
		if !slices.Contains(append(gone, "_LAPWING_BLANK"), name) {
			pairs = append(pairs, [2]string{name, value})
		}
	}
	b, err := json.Marshal(map[string]any{"env": pairs, "dir": p.cmd.Dir, "entropy": base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{entropy}, 64))})
	if err != nil {
		p.t.Fatal(err)
	}
	p.api.restore <- string(b)
}

// startBlank starts a runtime for no function, whose code comes when it waits.
func startBlank(t *testing.T, id, code string, env ...string) *process {
	t.Helper()
	p := startRuntime(t, id, "none.none", nil, append(env, "_LAPWING_BLANK=1")...)
	if unfit := p.park(); unfit != "" {
		t.Fatalf("unfit: %s", unfit)
	}
	if err := os.WriteFile(filepath.Join(p.cmd.Dir, "index.js"), []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBlankRuntimeBecomesTheFunctionThatItIsTold(t *testing.T) {
	const code = `
		const at = [process.cwd() === __dirname, process.env._HANDLER, process.env.OWN, process.env.GONE, process.env._LAPWING_BLANK, process.exitCode];
		const child = require('child_process').execFileSync('/usr/bin/env').toString().split('\n').filter((l) => /^(OWN|GONE|_LAPWING.*)=/.test(l));
		console.log('loading');
		const { uptime } = process;
		const up = [uptime.name, String(uptime), uptime() > 0, uptime() < require('perf_hooks').performance.now() / 1000 - 0.01];
		exports.handler = async () => [at, child, Math.random(), Math.random.name, require.main.filename.endsWith('index.js'), up];`
	forEach(t, nodeRuntimes, func(t *testing.T, id string) {
		var random []string
		for n := range 3 {
			p := startBlank(t, id, code, "GONE=x", "OWN=before")
			p.fill(byte(min(n, 1)+1), "index.handler", []string{"GONE"}, "OWN=a=b\nc")
			var got []json.RawMessage
			if err := json.Unmarshal([]byte(p.invoke(`{}`).body), &got); err != nil || len(got) != 6 {
				t.Fatal(err, got)
			}
			matchJSON(t, `[true, "index.handler", "a=b\nc", null, null, 13]`, string(got[0]))
			matchJSON(t, `["OWN=a=b"]`, string(got[1]))
			matchJSON(t, `["random", true]`, "["+string(got[3])+","+string(got[4])+"]")
			matchJSON(t, `["uptime", "function () { [native code] }", true, true]`, string(got[5]))
			if !strings.Contains(p.log(), "\tINFO\tloading") {
				t.Errorf("log:\n%s", p.log())
			}
			random = append(random, string(got[2]))
		}
		if random[0] == random[1] || random[1] != random[2] {
			t.Errorf("random numbers are not those of the entropy: %v", random)
		}
	})
}

func TestBlankRuntimeFailsAsAFreshOne(t *testing.T) {
	for want, code := range map[string]string{
		"Runtime.ImportModuleError":   `require('nothing');`,
		"Runtime.UserCodeSyntaxError": `exports.handler = ;`,
		"Runtime.HandlerNotFound":     ``,
		"RangeError":                  `throw new RangeError('x');`,
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			const id = "nodejs20.x"
			blank := startBlank(t, id, code)
			blank.fill(1, "index.handler", nil)
			fresh := startRuntime(t, id, "index.handler", map[string]string{"index.js": code})
			var got, expected post = blank.posted(), fresh.posted()
			if got.kind != expected.kind || got.errorType != want || expected.errorType != want {
				t.Errorf("got %+v, not %+v", got, expected)
			}
			if a, b := blank.exitCode(), fresh.exitCode(); a != b {
				t.Errorf("exit code %d, not %d", a, b)
			}
		})
	}
	t.Run("what never comes", func(t *testing.T) {
		t.Parallel()
		p := startBlank(t, "nodejs20.x", ``)
		if err := os.WriteFile(filepath.Join(p.cmd.Dir, "index.mjs"), []byte(`await new Promise(() => {}); export const handler = 1;`), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(p.cmd.Dir, "index.js")); err != nil {
			t.Fatal(err)
		}
		p.fill(1, "index.handler", nil)
		if code := p.exitCode(); code != 13 {
			t.Errorf("exit code %d", code)
		}
	})
}
