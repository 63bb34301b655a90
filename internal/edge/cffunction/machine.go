package cffunction

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
	"github.com/dop251/goja"
	"github.com/dop251/goja_nodejs/buffer"
	"github.com/dop251/goja_nodejs/require"
	"golang.org/x/sys/unix"
)

// Runtimes.
const (
	Runtime1 = "cloudfront-js-1.0"
	Runtime2 = "cloudfront-js-2.0"
)

const (
	// maxMemory is what one step of a function may allocate, in bytes: the memory
	// that a function has on AWS. A step is what cannot be interrupted: a
	// concatenation, or one call of what the language comes with.
	maxMemory = 2 << 20
	// maxTotal is what all steps of a run may that allocate strings or arrays of
	// any length, in bytes, whether or not they are still there.
	maxTotal = 16 << 20
	// maxLog is how much a function may log, in bytes; the rest is cut
	// ("Restrictions on CloudFront Functions", logs).
	maxLog = 10 << 10
	// maxStack is how deep calls may go.
	maxStack = 512
	// budget is the CPU time of a function. AWS does not say what its own is.
	budget = 20 * time.Millisecond
	// patience is how long anybody waits for a function in all: it may be in a
	// call that cannot be interrupted.
	patience = 2 * time.Second
)

var (
	//go:embed prelude.js
	preludeSource string
	prelude       = goja.MustCompile("prelude", preludeSource, true)
	handlerName   = goja.MustCompile("handler", "handler", true)
)

var (
	errTime    = errors.New("the function exceeded its compute time")
	errAbandon = errors.New("the function does not stop")
)

// The interpreter's regular expressions, where they look ahead or back or go on in the
// middle of a string, backtrack, in a call that cannot be interrupted: a viewer could
// choose a header for which one never ends in practice. It ends when nobody waits
// for the run any more, so that no run goes on as if there were no match.
func init() { regexp2.DefaultMatchTimeout = patience }

// flavour says what a machine has in it.
type flavour struct {
	modern bool // runtime 2.0
	arrays bool // types of binary data are bounded in their size
}

// program is a function's code, ready to run.
type program struct {
	flavour
	main *goja.Program
}

// arrays finds code that may use types of binary data. To bound them costs a
// machine more than the rest of it, and few functions do.
var arrays = regexp.MustCompile(`Array|Buffer|globalThis`)

// imports are the imports that functions of runtime 2.0 write at their top. The
// interpreter knows no modules, and these need none.
var imports = regexp.MustCompile(`(?m)^[ \t]*import[ \t]+(?:\*[ \t]+as[ \t]+)?(\w+)[ \t]+from[ \t]+['"](\w+)['"][ \t]*;?`)

// compile checks and compiles a function's code.
func compile(runtime, code string) (*program, error) {
	p := &program{flavour: flavour{modern: runtime == Runtime2, arrays: arrays.MatchString(code)}}
	if !p.modern && runtime != Runtime1 {
		return nil, fmt.Errorf("runtime %s is not known", runtime)
	}
	if p.modern {
		code = imports.ReplaceAllString(code, "const $1 = require('$2');")
	}
	var err error
	p.main, err = compileCounted("function.js", code)
	return p, err
}

// outcome is what came of one run.
type outcome struct {
	result []byte // JSON of what the handler returned
	logs   []string
	cpu    time.Duration
	err    error // of the function: it threw, ran out of time, or has no handler
}

// run runs a function in a machine that is for this run alone: no state is kept
// between runs. ended is called when it has really ended, which may be
// after run returns. The error is ctx's, where that ends before.
func (p *program) run(ctx context.Context, m *machine, values *values, router *router, event []byte, ended func()) (outcome, error) {
	m.values, m.router = values, router
	done := make(chan outcome, 1)
	go func() {
		defer ended()
		var o outcome
		defer func() {
			if r := recover(); r != nil { // a fault of the interpreter
				o.err = fmt.Errorf("the interpreter failed: %v", r)
			}
			done <- o
		}()
		// The CPU time is that of this thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		o = p.execute(m, event)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case o := <-done:
		return o, nil
	case <-timer.C:
		return outcome{err: errAbandon, cpu: budget}, nil
	case <-ctx.Done():
		return outcome{}, ctx.Err()
	}
}

func (p *program) execute(m *machine, event []byte) (o outcome) {
	m.now = time.Now()
	stop := m.limit()
	value, err := m.call(p, event)
	if err == nil {
		o.result, err = m.encode(value)
	}
	if err != nil {
		o.err = describe(err)
	}
	o.cpu, o.logs = stop(), m.logs
	return o
}

// describe puts into words why a run failed. What was thrown may run code of the
// function for that, which is why it is done within the run's limits.
func describe(err error) (words error) {
	defer func() {
		if r := recover(); r != nil {
			words = errors.New("what the function threw has no text")
			if interrupted, ok := r.(*goja.InterruptedError); ok {
				words = fmt.Errorf("%v", interrupted.Value())
			}
		}
	}()
	if interrupted, ok := errors.AsType[*goja.InterruptedError](err); ok {
		return fmt.Errorf("%v", interrupted.Value())
	}
	return errors.New(err.Error())
}

// rejection is the error of a promise that was rejected.
type rejection struct{ reason goja.Value }

func (r rejection) Error() string { return r.reason.String() }

// machine is one instance of the interpreter.
type machine struct {
	*goja.Runtime
	native
	now              time.Time     // which stands still in a run
	parse, stringify goja.Callable // JSON's, before the function can change them
}

func newMachine(f flavour) *machine {
	vm := goja.New()
	vm.SetMaxCallStackSize(maxStack)
	m := &machine{Runtime: vm, native: native{vm: vm, modern: f.modern}}
	vm.SetTimeSource(func() time.Time { return m.now })
	json := vm.Get("JSON").ToObject(vm)
	m.parse, _ = goja.AssertFunction(json.Get("parse"))
	v, err := vm.RunProgram(prelude)
	if err == nil {
		install, _ := goja.AssertFunction(v)
		var count goja.Value
		if count, err = install(goja.Undefined(), m.object(), vm.ToValue(f.modern), vm.ToValue(f.arrays)); err == nil {
			err = vm.GlobalObject().DefineDataProperty(grown, count, goja.FLAG_FALSE, goja.FLAG_FALSE, goja.FLAG_FALSE)
		}
	}
	m.stringify, _ = goja.AssertFunction(json.Get("stringify")) // which counts
	if err != nil {
		panic(fmt.Sprintf("cffunction: prelude: %v", err)) // it is ours
	}
	return m
}

// limit interrupts the machine when the calling thread has used the budget. stop
// ends that, and returns what was used.
func (m *machine) limit() (stop func() time.Duration) {
	clock := int32(^unix.Gettid())<<3 | 6 // that of a thread, CPU time: clock_getcpuclockid(3)
	used := func() time.Duration {
		var t unix.Timespec
		if unix.ClockGettime(clock, &t) != nil {
			return 0 // the thread is gone
		}
		return time.Duration(t.Nano())
	}
	start, began, over := used(), time.Now(), make(chan struct{})
	go func() {
		timer := time.NewTimer(budget)
		defer timer.Stop()
		for {
			select {
			case <-over:
				return
			case <-timer.C:
			}
			left := budget - (used() - start)
			if left <= 0 || time.Since(began) > patience/2 {
				m.Interrupt(errTime)
				return
			}
			timer.Reset(left)
		}
	}()
	return func() time.Duration {
		close(over)
		return used() - start
	}
}

// call runs the code and then its handler on an event.
func (m *machine) call(p *program, event []byte) (goja.Value, error) {
	arg, err := m.parse(goja.Undefined(), m.ToValue(string(event)))
	if err != nil {
		return nil, fmt.Errorf("the event is not JSON: %w", err)
	}
	if _, err := m.RunProgram(p.main); err != nil {
		return nil, err
	}
	name, err := m.RunProgram(handlerName)
	if err != nil {
		return nil, err
	}
	handler, ok := goja.AssertFunction(name)
	if !ok {
		return nil, errors.New("handler is not a function")
	}
	value, err := handler(goja.Undefined(), arg)
	if err != nil {
		return nil, err
	}
	promise, ok := value.Export().(*goja.Promise)
	if !ok {
		return value, nil
	}
	switch promise.State() {
	case goja.PromiseStateFulfilled:
		return promise.Result(), nil
	case goja.PromiseStateRejected:
		return nil, rejection{promise.Result()}
	}
	return nil, errors.New("the promise that the handler returned is never settled")
}

// encode returns a value as JSON; null for what is none.
func (m *machine) encode(v goja.Value) ([]byte, error) {
	text, err := m.stringify(goja.Undefined(), v)
	if err != nil {
		return nil, err
	}
	if goja.IsUndefined(text) {
		return []byte("null"), nil
	}
	return []byte(text.String()), nil
}

// native is what of a function's environment is in Go.
type native struct {
	vm     *goja.Runtime
	logs   []string
	logged int // bytes
	modern bool
	module *goja.Object // buffer's
	values *values      // of the key value store
	router *router
}

func (n *native) object() goja.Value {
	return n.vm.ToValue(map[string]any{
		"memory": maxMemory, "total": maxTotal, "log": n.log, "hash": n.hash, "buffer": n.buffer, "kvs": n.kvs, "origin": n.chooseOrigin, "unescape": unescape,
		"fromBase64": n.fromBase64, "toBase64": n.toBase64,
		"fromBytes": func(s string) string { return s }, "toBytes": n.toBytes,
		"fromUTF8": n.fromUTF8, "toUTF8": func(s string) string { return byteString([]byte(s)) }, "bytesFrom": n.bytesFrom,
	})
}

// log takes a line, which counts with its end: a log of empty lines has an end, too.
func (n *native) log(line string) {
	left := maxLog - n.logged - 1
	if left < 0 {
		return
	}
	if len(line) > left {
		line = strings.ToValidUTF8(line[:left], "")
	}
	n.logged += len(line) + 1
	n.logs = append(n.logs, line)
}

// buffer returns the module of that name, which is made when it is first wanted.
func (n *native) buffer() *goja.Object {
	if n.module == nil {
		ours := n.vm.Get("require") // which Enable replaces
		registry := require.NewRegistry(require.WithLoader(func(string) ([]byte, error) {
			return nil, require.ModuleFileDoesNotExistError
		}))
		module, err := registry.Enable(n.vm).Require(buffer.ModuleName)
		if err != nil {
			panic(err)
		}
		n.module = module.ToObject(n.vm)
		if err := n.vm.Set("require", ours); err != nil {
			panic(err)
		}
	}
	return n.module
}

func (n *native) fail(format string, args ...any) {
	panic(n.vm.NewTypeError(fmt.Sprintf(format, args...)))
}

// hash is a hash, or an HMAC where there is a key.
func (n *native) hash(algorithm string, key goja.Value) map[string]any {
	makers := map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New}
	maker, ok := makers[algorithm]
	if !ok {
		n.fail("not supported algorithm: %q", algorithm)
	}
	h := maker()
	if key != nil && !goja.IsUndefined(key) {
		h = hmac.New(maker, n.bytes(key))
	}
	return map[string]any{
		"update": func(data goja.Value) { h.Write(n.bytes(data)) },
		"digest": func(encoding goja.Value) goja.Value {
			sum := h.Sum(nil)
			switch {
			case encoding != nil && !goja.IsUndefined(encoding):
				return n.vm.ToValue(n.text(sum, encoding.String()))
			case n.modern:
				n.buffer()
				return buffer.WrapBytes(n.vm, sum)
			}
			return n.vm.ToValue(byteString(sum))
		},
	}
}

func (n *native) text(b []byte, encoding string) string {
	switch encoding {
	case "hex":
		return hex.EncodeToString(b)
	case "base64":
		return base64.StdEncoding.EncodeToString(b)
	case "base64url":
		return base64.RawURLEncoding.EncodeToString(b)
	}
	n.fail("Unknown digest encoding: %q", encoding)
	return ""
}

// bytes are those of a string, in UTF-8 or what a byte string holds, or of a
// Buffer.
func (n *native) bytes(v goja.Value) []byte {
	switch x := v.Export().(type) {
	case string:
		return []byte(x)
	case []byte:
		return x
	case goja.ArrayBuffer:
		return x.Bytes()
	}
	if n.modern {
		n.buffer()
		return buffer.Bytes(n.vm, v)
	}
	n.fail("data is not a string")
	return nil
}

// byteString is a string of which each character stands for one byte.
func byteString(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

// octets is the inverse of byteString.
func octets(s string) (b []byte, ok bool) {
	for _, r := range s {
		if r > 0xff {
			return nil, false
		}
		b = append(b, byte(r))
	}
	return b, true
}

func (n *native) toBytes(s string) goja.Value {
	if _, ok := octets(s); !ok {
		return goja.Null()
	}
	return n.vm.ToValue(s)
}

func (n *native) fromUTF8(s string) goja.Value {
	b, ok := octets(s)
	if !ok || !utf8.Valid(b) {
		return goja.Null()
	}
	return n.vm.ToValue(string(b))
}

func (n *native) bytesFrom(s, encoding string) string {
	var b []byte
	var err error
	switch encoding {
	case "hex":
		b, err = hex.DecodeString(s)
	case "base64":
		b, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	case "base64url":
		b, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	default:
		err = fmt.Errorf("unknown encoding: %q", encoding)
	}
	if err != nil {
		n.fail("%v", err)
	}
	return byteString(b)
}

func (n *native) fromBase64(s string) string {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		n.fail("the string to be decoded is not correctly encoded")
	}
	return byteString(b)
}

func (n *native) toBase64(s string) string {
	b, ok := octets(s)
	if !ok {
		n.fail("the string contains characters outside of the Latin1 range")
	}
	return base64.StdEncoding.EncodeToString(b)
}

// unescape decodes what is not UTF-8 too: such bytes become U+FFFD.
func unescape(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil {
		return strings.ToValidUTF8(decoded, "\ufffd")
	}
	return s
}
