'use strict';
// The invocation loop: one event at a time goes to the handler, its result or
// error goes back.

const { RuntimeError, NODE_JS_EXIT, toPayload, toXRayCause } = require('./errors.js');
const { setInvocation } = require('./log.js');
const { createResponseStream, streamingOf } = require('./stream.js');

// How long the event loop may rest, in ms: it is where timers run that do not keep
// the process going.
const REST = 100;

class Invoker {
  #client;
  #handler;
  #logError;
  #legacy; // callbacks and context methods exist: Node.js 22 and older
  #env;
  #streaming;
  #isAsync;
  #current = null; // id of the invocation under way
  #breakOff = null; // ends the response that is being streamed with an error
  #onIdle = null; // what to do when the event loop has run dry
  #within = false; // an invocation is answered before the event loop goes on, if it can be
  #result = null; // of that

  constructor({ client, handler, logError, legacy, env }) {
    this.#client = client;
    this.#handler = handler;
    this.#logError = logError;
    this.#legacy = legacy;
    this.#streaming = streamingOf(handler);
    this.#isAsync = handler.constructor?.name === 'AsyncFunction';
    this.#env = {
      functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
      functionName: env.AWS_LAMBDA_FUNCTION_NAME,
      memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
      logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
      logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    };
  }

  start() {
    process.on('beforeExit', () => {
      const idle = this.#onIdle;
      this.#onIdle = null;
      idle?.();
    });
    this.#client.next(this.#serve);
  }

  /** Reports an error that no handler caught, for the invocation under way. */
  async crash(err) {
    if (this.#result) {
      this.#client.respond(this.#result.id, this.#result.json);
      this.#result = null;
    }
    const id = this.#current;
    if (id === null) return; // between invocations there is nobody to tell
    this.#current = null;
    if (this.#breakOff) {
      await this.#breakOff(err);
      return;
    }
    await this.#client.fail(id, toPayload(err), toXRayCause(err));
  }

  // Arrow functions: they are passed around.

  // Serves an event, and those that follow it as long as there is nothing for the
  // event loop to do: waiting in the loop costs three times as much.
  #serve = (reply) => {
    const until = Date.now() + REST;
    while (reply !== null) {
      this.#within = true;
      try {
        this.#take(reply);
        process._tickCallback?.(); // all that follows from it at once, as after any callback
      } finally {
        this.#within = false;
      }
      if (this.#result === null) return;
      const { id, json } = this.#result;
      this.#result = null;
      if (Date.now() > until || process.getActiveResourcesInfo().length > 0) {
        this.#client.respondAndNext(id, json, this.#refused, this.#serve);
        return;
      }
      reply = this.#client.exchange(id, json, this.#refused, this.#serve);
    }
  };

  #take = (reply) => {
    if (reply.status !== 200) {
      process.stderr.write(`Runtime API: next answered ${reply.status}: ${reply.body}\n`);
      process.exit(1);
    }
    const { headers } = reply;
    const id = headers.requestId;
    this.#current = id;
    setInvocation(id, headers.tenantId);
    const trace = headers.traceId;
    if (trace) process.env._X_AMZN_TRACE_ID = trace;
    else delete process.env._X_AMZN_TRACE_ID;

    if (this.#streaming) this.#runStreaming(id, reply);
    else this.#run(id, reply);
  };

  #run(id, reply) {
    // From here on an open connection alone must not keep the event loop
    // going, so that one that has run dry is noticed.
    this.#client.hold(false);

    let settled = false;
    const settle = () => {
      if (settled) return false;
      settled = true;
      this.#onIdle = null;
      return true;
    };
    const succeed = (result) => settle() && this.#succeed(id, result);
    const fail = (err) => settle() && this.#fail(id, err);

    // The event loop is empty and nothing was answered.
    this.#onIdle = () => {
      if (!settle()) return;
      if (this.#isAsync || !this.#legacy) this.#fail(id, new RuntimeError('NodeJsExit', NODE_JS_EXIT));
      else this.#succeed(id, null);
    };

    let result;
    try {
      const event = JSON.parse(reply.body);
      const handler = this.#handler; // called as a function: it has no business with this
      if (this.#legacy) {
        const context = this.#legacyContext(id, reply.headers, succeed, fail);
        result = handler(event, context, this.#callback(context, succeed, fail));
      } else {
        result = handler(event, this.#context(id, reply.headers));
      }
    } catch (err) {
      fail(err);
      return;
    }
    if (typeof result?.then === 'function') result.then(succeed, this.#legacy ? (err) => fail(err ?? 'handled') : fail);
    else if (!this.#legacy) succeed(result);
  }

  // What Node.js 22 and older have for functions that are not async.
  #callback(context, succeed, fail) {
    let called = false;
    return (err, result) => {
      if (called) return;
      called = true;
      if (err !== undefined && err !== null) fail(err);
      else if (context.callbackWaitsForEmptyEventLoop) this.#onIdle = () => setImmediate(() => succeed(result));
      else succeed(result);
    };
  }

  async #runStreaming(id, reply) {
    const { stream, taken, fail } = createResponseStream(this.#client, id, this.#streaming.highWaterMark);
    this.#breakOff = (err) => {
      fail(err);
      return taken;
    };
    let context;
    try {
      const event = JSON.parse(reply.body);
      context = this.#legacy
        ? { callbackWaitsForEmptyEventLoop: true, ...this.#describe(id, reply.headers) }
        : this.#context(id, reply.headers);
      const handler = this.#handler;
      const running = handler(event, stream, context);
      if (typeof running?.then !== 'function') throw new Error('Streaming does not support non-async handlers.');
      if ((await running) !== undefined) console.warn('Streaming handlers ignore return values.');
    } catch (err) {
      this.#logError('Invoke Error', err);
      fail(err);
    }
    const answer = await taken;
    this.#current = null;
    this.#breakOff = null;
    if (answer.status !== 202) this.#refused(answer);
    const next = () => this.#client.next(this.#serve);
    if (context?.callbackWaitsForEmptyEventLoop) {
      this.#client.hold(false);
      this.#onIdle = () => setImmediate(next);
    } else {
      next();
    }
  }

  #succeed(id, result) {
    let json;
    try {
      json = JSON.stringify(result === undefined ? null : result);
      if (json === undefined) json = 'null'; // a function or a symbol
    } catch {
      this.#fail(id, new Error('Unable to stringify response body'));
      return;
    }
    this.#current = null;
    if (this.#within) this.#result = { id, json };
    else this.#client.respondAndNext(id, json, this.#refused, this.#serve);
  }

  #fail(id, err) {
    this.#logError('Invoke Error', err);
    this.#current = null;
    this.#client.failAndNext(id, toPayload(err), toXRayCause(err), this.#refused, this.#serve);
  }

  // The Runtime API has told the caller itself; 500 and above end the runtime.
  #refused = (reply) => {
    process.stderr.write(`Runtime API: result answered ${reply.status}: ${reply.body}\n`);
    if (reply.status >= 500) process.exit(1);
  };

  // The contexts are literals: made field by field they take many times as long.

  #context(id, headers) {
    return { ...this.#describe(id, headers), xRayTraceId: headers.traceId };
  }

  // Of Node.js 22 and older.
  #legacyContext(id, headers, succeed, fail) {
    return {
      callbackWaitsForEmptyEventLoop: true,
      succeed,
      fail: (err) => fail(err ?? 'handled'),
      done: (err, result) => (err !== undefined && err !== null ? fail(err) : succeed(result)),
      ...this.#describe(id, headers),
    };
  }

  // What both have.
  #describe(id, headers) {
    const deadline = Number(headers.deadlineMs);
    return {
      functionVersion: this.#env.functionVersion,
      functionName: this.#env.functionName,
      memoryLimitInMB: this.#env.memoryLimitInMB,
      logGroupName: this.#env.logGroupName,
      logStreamName: this.#env.logStreamName,
      clientContext: parse(headers.clientContext, 'ClientContext'),
      identity: parse(headers.cognitoIdentity, 'CognitoIdentity'),
      invokedFunctionArn: headers.functionArn,
      awsRequestId: id,
      tenantId: headers.tenantId,
      getRemainingTimeInMillis: () => deadline - Date.now(),
    };
  }
}

function parse(json, name) {
  if (json === undefined) return undefined;
  try {
    return JSON.parse(json);
  } catch (err) {
    throw new Error(`Cannot parse ${name} as json: ${err}`);
  }
}

module.exports = { Invoker };
