package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"lapwing.dev/lapwing/test/harness"
)

// looping is a function that counts what its event loop does between answers.
const looping = `
const { Worker } = require("node:worker_threads");
const seen = { id: Math.random(), ticks: 0, immediates: 0, timers: 0, messages: 0, signals: 0 };
setInterval(() => seen.timers++, 20).unref();
process.on("SIGUSR2", () => seen.signals++);
exports.handler = async (event) => {
  switch (event.do) {
    case "tick": process.nextTick(() => seen.ticks++); return;
    case "immediate": setImmediate(() => seen.immediates++); return;
    case "signal": process.kill(process.pid, "SIGUSR2"); return;
    case "worker": {
      const worker = new Worker('setTimeout(() => require("node:worker_threads").parentPort.postMessage(1), 50)', { eval: true });
      worker.on("message", () => seen.messages++);
      worker.unref();
      return;
    }
    case "reject": Promise.reject(new Error("nobody takes it")); return;
    case "echo": return event.text;
  }
  return seen;
};`

// seen is what the function has counted.
type seen struct {
	ID                                           float64
	Ticks, Immediates, Timers, Messages, Signals int
}

// TestEventLoopTurnsBetweenInvocations has a function do things that come to an end
// only after its answer. Our bootstrap waits for the next event without turning the
// event loop as long as there is nothing for that to do, which it must not get wrong.
func TestEventLoopTurnsBetweenInvocations(t *testing.T) {
	t.Parallel()
	const name = "event-loop"
	c := lambda.NewFromConfig(server.Config(), oneTry)
	_, err := c.CreateFunction(t.Context(), newFunction(name, func(in *lambda.CreateFunctionInput) {
		in.Code.ZipFile = harness.Zip(map[string]string{"index.js": looping})
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.DeleteFunction(context.WithoutCancel(t.Context()), &lambda.DeleteFunctionInput{FunctionName: aws.String(name)}); err != nil {
			t.Error(err)
		}
	})
	waiter := lambda.NewFunctionActiveV2Waiter(c, func(o *lambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
	if err := waiter.Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: aws.String(name)}, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	call := func(event string) []byte {
		out, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String(name), Payload: []byte(event)})
		if err != nil {
			t.Fatal(err)
		}
		if out.FunctionError != nil {
			t.Fatalf("%s: %s", event, out.Payload)
		}
		return out.Payload
	}
	look := func() (s seen) {
		if err := json.Unmarshal(call(`{}`), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	// until invokes the function, without a pause, until it has seen something.
	until := func(what string, is func(seen) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !is(look()); {
			if time.Now().After(end) {
				t.Fatalf("never seen: %s", what)
			}
		}
	}
	warm := func() {
		for range 20 {
			look()
		}
	}
	first := look()
	warm()
	call(`{"do":"tick"}`)
	if s := look(); s.Ticks != 1 {
		t.Errorf("a callback of process.nextTick ran %d times", s.Ticks)
	}
	warm()
	call(`{"do":"immediate"}`)
	until("a callback of setImmediate", func(s seen) bool { return s.Immediates == 1 })
	until("a timer that keeps nothing going", func(s seen) bool { return s.Timers > first.Timers+2 })
	warm()
	call(`{"do":"signal"}`)
	until("a signal", func(s seen) bool { return s.Signals == 1 })
	warm()
	call(`{"do":"worker"}`)
	until("a message of a thread", func(s seen) bool { return s.Messages == 1 })
	for _, size := range []int{1, 20_000, 70_000, 5_000_000, 2} {
		text := bytes.Repeat([]byte("é"), size/2+1)
		for range 3 {
			if got := call(`{"do":"echo","text":"` + string(text) + `"}`); string(got) != `"`+string(text)+`"` {
				t.Errorf("%d bytes came back as %d", len(text)+2, len(got))
			}
		}
	}
	if s := look(); s.ID != first.ID {
		t.Error("the runtime was replaced meanwhile")
	}
	warm()
	call(`{"do":"reject"}`)
	until("the end of a runtime after a rejection that nobody took", func(s seen) bool { return s.ID != first.ID })
}
