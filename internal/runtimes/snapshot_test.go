package runtimes

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startRestorable starts a runtime of which a snapshot may be taken.
func startRestorable(t testing.TB, id, handler string, files map[string]string, env ...string) *process {
	t.Helper()
	return startRuntime(t, id, handler, files, append(env, "_LAPWING_RESTORABLE=1")...)
}

// park waits until the runtime waits to be restored, and returns what it gives
// against a snapshot.
func (p *process) park() string {
	p.t.Helper()
	select {
	case unfit := <-p.api.parked:
		return unfit
	case <-time.After(20 * time.Second):
		p.t.Fatalf("the runtime does not wait to be restored; it wrote:\n%s", p.log())
		return ""
	}
}

// goOn restores the runtime with variables.
func (p *process) goOn(env ...string) {
	p.t.Helper()
	doc := map[string]any{"env": map[string]string{}, "entropy": base64.StdEncoding.EncodeToString(make([]byte, 64))}
	for i := 0; i < len(env); i += 2 {
		doc["env"].(map[string]string)[env[i]] = env[i+1]
	}
	b, err := json.Marshal(doc)
	if err != nil {
		p.t.Fatal(err)
	}
	p.api.restore <- string(b)
}

// whatDiffers are handlers that answer with what a restore changes.
var whatDiffers = map[string]map[string]string{
	"nodejs": {"index.js": `
		const before = [process.env._LAPWING_RESTORABLE ?? null, process.env.OWN];
		exports.handler = async () => [before, process.env.OWN, process.env.ADDED];`},
	"python": {"index.py": `
import os
before = [os.environ.get("_LAPWING_RESTORABLE"), os.environ["OWN"]]
def handler(event, context):
    import ctypes
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    assert getenv(b"ADDED") == os.environ["ADDED"].encode(), "libc has another environment"
    return [before, os.environ["OWN"], os.environ["ADDED"]]`},
	"ruby": {"index.rb": `
BEFORE = [ENV['_LAPWING_RESTORABLE'], ENV['OWN']]
def handler(event:, context:) = [BEFORE, ENV['OWN'], ENV['ADDED']]`},
}

// restorable are the runtimes of which snapshots are taken without being asked.
func restorable(t *testing.T) []string {
	return slices.Concat(nodeRuntimes, pythonRuntimes(t), []string{rubyRuntime})
}

func languageOf(id string) string { return strings.TrimRight(id, "0123456789.x") }

func TestRuntimeWaitsToBeRestoredAndAdoptsWhatDiffers(t *testing.T) {
	forEach(t, restorable(t), func(t *testing.T, id string) {
		p := startRestorable(t, id, "index.handler", whatDiffers[languageOf(id)], "OWN=template")
		if unfit := p.park(); unfit != "" {
			t.Errorf("unfit: %s", unfit)
		}
		p.goOn("OWN", "clone", "ADDED", "1")
		matchJSON(t, `[[null,"template"],"clone","1"]`, p.invoke(`{}`).body)
	})
}

// draws are ways to draw random numbers while a function is loaded, by what the
// runtime calls them.
var draws = map[string]map[string]string{
	"nodejs": {
		"Math.random in index.js:1":        `const x = Math.random();`,
		"crypto.randomUUID in index.js:1":  `const x = require('crypto').randomUUID();`,
		"crypto.randomBytes in index.js:1": `const { randomBytes } = require('node:crypto'); randomBytes(4);`,
		"crypto.randomInt":                 `require('crypto').randomInt(5);`,
		"crypto.getRandomValues":           `crypto.getRandomValues(new Uint8Array(4));`,
		"crypto.generateKeyPairSync":       `require('crypto').generateKeyPairSync('ec', {namedCurve: 'P-256'});`,
		"crypto.subtle.generateKey":        `crypto.subtle.generateKey({name: 'HMAC', hash: 'SHA-256'}, true, ['sign']);`,
		"starts threads":                   `new (require('worker_threads').Worker)('0', {eval: true}).unref();`,
		"starts processes":                 `require('child_process').spawn('true').unref();`,
	},
	"python": {
		"(random)":                        `from random import choice; choice([1, 2])`,
		"random.Random in index.py:1":     `from random import Random; Random()`,
		"os.urandom in index.py:1":        `import os; os.urandom(3)`,
		"uuid.uuid4 in index.py:1":        `import uuid; uuid.uuid4()`,
		"secrets.token_hex in index.py:1": `import secrets; secrets.token_hex()`,
		"ssl.RAND_bytes in index.py:1":    `import ssl; ssl.RAND_bytes(4)`,
		"random.SystemRandom":             `import random; random.SystemRandom().random()`,
	},
	"ruby": {
		"(rand)":                       `rand`,
		"(rand":                        `Random.rand(3)`,
		"Random.new in index.rb:1":     `Random.new`,
		"rand":                         `[1, 2].shuffle`,
		"Random.urandom in index.rb:1": `require 'securerandom'; SecureRandom.uuid`,
	},
}

func TestStateThatHoldsRandomNumbersIsNotCloned(t *testing.T) {
	handler := map[string]string{"nodejs": "\nexports.handler = async () => 1;", "python": "\ndef handler(e, c): return 1", "ruby": "\ndef handler(event:, context:) = 1"}
	file := map[string]string{"nodejs": "index.js", "python": "index.py", "ruby": "index.rb"}
	for _, id := range []string{"nodejs20.x", "nodejs24.x", "python3.13", rubyRuntime} {
		lang := languageOf(id)
		for want, code := range draws[lang] {
			t.Run(id+" "+want, func(t *testing.T) {
				t.Parallel()
				p := startRestorable(t, id, "index.handler", map[string]string{file[lang]: code + handler[lang]})
				unfit := p.park()
				words, at, _ := strings.Cut(want, " in ")
				if !strings.Contains(unfit, words) || !strings.Contains(unfit, at) || !strings.HasPrefix(unfit, "its initialisation ") {
					t.Errorf("got %q", unfit)
				}
				p.goOn()
				if got := p.invoke(`{}`); got.body != "1" { // in place
					t.Errorf("got %+v", got)
				}
			})
		}
	}
}

func TestDrawsWhileItWaitsAreNoticed(t *testing.T) {
	for id, files := range map[string]map[string]string{
		"nodejs22.x": {"index.js": `setTimeout(() => Math.random(), 200); exports.handler = async () => 1;`},
		"python3.13": {"index.py": `
import random, threading
threading.Timer(0.2, random.random).start()
def handler(event, context): return 1`},
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			p := startRestorable(t, id, "index.handler", files)
			if unfit := p.park(); unfit != "" {
				t.Skip("it was slower than its timer")
			}
			time.Sleep(400 * time.Millisecond)
			p.goOn()
			got := p.posted()
			if got.kind != "restore-error" || got.errorType != "Runtime.Unfit" || !strings.Contains(got.body, "its initialisation draws random numbers") {
				t.Errorf("got %+v", got)
			}
			if code := p.exitCode(); code != 1 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// determinism is a library that, preloaded, makes everything that generators
// are seeded from the same, until the file that LIVE names is there. Then the
// kernel's entropy is what it is; clocks and ids stay as in a clone.
const determinism = `
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <dlfcn.h>
#include <stdarg.h>
static long real(long n, long a, long b, long c, long d, long e, long f) {
  static long (*next)(long, ...);
  if (!next) next = dlsym(RTLD_NEXT, "syscall");
  return next(n, a, b, c, d, e, f);
}
static int live(void) { char *f = getenv("LIVE"); return f && access(f, F_OK) == 0; }
ssize_t getrandom(void *b, size_t n, unsigned f) {
  if (live()) return real(SYS_getrandom, (long)b, n, f, 0, 0, 0);
  memset(b, 0x42, n);
  return n;
}
long syscall(long n, ...) {
  va_list v;
  va_start(v, n);
  long a[6];
  for (int i = 0; i < 6; i++) a[i] = va_arg(v, long);
  va_end(v);
  if (n == SYS_getrandom) return getrandom((void *)a[0], a[1], a[2]);
  return real(n, a[0], a[1], a[2], a[3], a[4], a[5]);
}
int getentropy(void *b, size_t n) { return getrandom(b, n, 0) == (ssize_t)n ? 0 : -1; }
void arc4random_buf(void *b, size_t n) { getrandom(b, n, 0); }
pid_t getpid(void) { return 4711; }
int clock_gettime(clockid_t c, struct timespec *t) {
  if (c != CLOCK_REALTIME) return real(SYS_clock_gettime, c, (long)t, 0, 0, 0, 0);
  t->tv_sec = 1700000000; t->tv_nsec = 5;
  return 0;
}
time_t time(time_t *t) { if (t) *t = 1700000000; return 1700000000; }
int gettimeofday(struct timeval *tv, void *z) { tv->tv_sec = 1700000000; tv->tv_usec = 5; return 0; }
`

// libDeterminism compiles that library.
func libDeterminism(t *testing.T) string {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs a C compiler")
	}
	dir := t.TempDir()
	source, lib := filepath.Join(dir, "determinism.c"), filepath.Join(dir, "determinism.so")
	if err := os.WriteFile(source, []byte(determinism), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-o", lib, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return lib
}

// samples starts a runtime whose generators begin in the same state as those of
// every other that is started so, as clones of a snapshot do, and returns what
// they give once the kernel's entropy is real.
func samples(t *testing.T, id, lib string, restorable bool, event string, seed byte) map[string]any {
	t.Helper()
	name := map[string]string{"nodejs": "index.js", "python": "index.py", "ruby": "index.rb"}[languageOf(id)]
	code, err := os.ReadFile(filepath.Join("testdata/random", name))
	if err != nil {
		t.Fatal(err)
	}
	live := filepath.Join(t.TempDir(), "live")
	// The same addresses, too: generators are seeded from theirs.
	goruntime.LockOSThread()
	unix.Syscall(unix.SYS_PERSONALITY, 0x0040000, 0, 0) // ADDR_NO_RANDOMIZE
	env := []string{"LD_PRELOAD=" + lib, "LIVE=" + live, "PYTHONHASHSEED=1", "UV_THREADPOOL_SIZE=1"}
	if restorable {
		env = append(env, "_LAPWING_RESTORABLE=1")
	}
	p := startRuntime(t, id, "index.handler", map[string]string{name: string(code)}, env...)
	unix.Syscall(unix.SYS_PERSONALITY, 0, 0, 0)
	goruntime.UnlockOSThread()
	goLive := func() {
		if err := os.WriteFile(live, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if restorable {
		if unfit := p.park(); unfit != "" {
			t.Fatalf("unfit: %s", unfit)
		}
		goLive()
		p.api.restore <- `{"env":{},"entropy":"` + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{seed}, 64)) + `"}`
	} else {
		p.invoke("null")
		goLive()
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(p.invoke(event).body), &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// kernels are the samples that come from the kernel itself: no state of theirs
// is in a snapshot.
var kernels = []string{"random.Random", "random.SystemRandom", "secrets.token_hex", "os.urandom", "uuid.uuid4", "Random.new", "SecureRandom.uuid"}

// Clones share what generators had been seeded with. This shows, for each, that
// reseeding is what makes them differ.
func TestReseedingMakesClonesDiffer(t *testing.T) {
	lib := libDeterminism(t)
	for _, id := range restorable(t) {
		t.Run(id, func(t *testing.T) {
			event := "{}"
			a, b := samples(t, id, lib, false, event, 1), samples(t, id, lib, false, event, 2)
			for name := range a {
				same := a[name] == b[name]
				if want := !slices.Contains(kernels, name); same != want {
					t.Errorf("without reseeding, %s is the same: %v, want %v", name, same, want)
				}
			}
			a, b = samples(t, id, lib, true, event, 1), samples(t, id, lib, true, event, 2)
			for name := range a {
				if a[name] == b[name] {
					t.Errorf("with reseeding, %s is the same", name)
				}
			}
			if len(a) == 0 {
				t.Error("no samples")
			}
		})
	}
}

// hooked is a function with runtime hooks, which may fail.
const hooked = `
import os
from snapshot_restore_py import register_after_restore, register_before_snapshot

calls = []

def call(what):
    if os.environ.get("FAIL") == what:
        raise KeyError(what)
    calls.append(what + " " + os.environ.get("OWN", "-"))

for n in "12":
    register_before_snapshot(call, "before " + n)
    register_after_restore(call, what="after " + n)

@register_after_restore
def last():
    calls.append("last")

def handler(event, context):
    return calls
`

func TestPythonRunsRuntimeHooksWithSnapStart(t *testing.T) {
	forEach(t, pythonRuntimes(t), func(t *testing.T, id string) {
		const snapStart = "AWS_LAMBDA_INITIALIZATION_TYPE=snap-start"
		files := map[string]string{"index.py": hooked}
		t.Run("order", func(t *testing.T) {
			p := startRuntime(t, id, "index.handler", files, snapStart)
			p.park()
			p.goOn("OWN", "clone")
			matchJSON(t, `["before 2 -","before 1 -","after 1 clone","after 2 clone","last"]`, p.invoke(`{}`).body)
		})
		t.Run("not opted in", func(t *testing.T) {
			p := startRestorable(t, id, "index.handler", files)
			p.park()
			p.goOn()
			matchJSON(t, `[]`, p.invoke(`{}`).body)
		})
		for _, c := range []struct {
			fail, kind, errorType string
			code                  int
		}{
			{"before 1", "init-error", "Runtime.BeforeSnapshotError", 64},
			{"after 2", "restore-error", "Runtime.AfterRestoreError", 65},
		} {
			t.Run(c.kind, func(t *testing.T) {
				p := startRuntime(t, id, "index.handler", files, snapStart, "FAIL="+c.fail)
				if c.kind == "restore-error" {
					p.park()
					p.goOn()
				}
				got := p.posted()
				if got.kind != c.kind || got.errorType != c.errorType {
					t.Errorf("got %+v", got)
				}
				matchJSON(t, `{"errorMessage":"'`+c.fail+`'","errorType":"KeyError","requestId":"","stackTrace":["*","..."]}`, got.body)
				if code := p.exitCode(); code != c.code {
					t.Errorf("exit code %d", code)
				}
			})
		}
	})
}

func TestSeedThatTheFunctionChoseStays(t *testing.T) {
	for id, files := range map[string]map[string]string{
		"python3.13": {"index.py": "import random\nrandom.seed(42)\nrandom.random()\ndef handler(event, context): return random.randrange(10**9)"},
		rubyRuntime:  {"index.rb": "srand(42)\nrand\ndef handler(event:, context:) = rand(10**9)"},
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			ordinary := startRuntime(t, id, "index.handler", files)
			p := startRestorable(t, id, "index.handler", files)
			if unfit := p.park(); unfit != "" {
				t.Errorf("unfit: %s", unfit)
			}
			p.goOn()
			if want, got := ordinary.invoke(`{}`).body, p.invoke(`{}`).body; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}
