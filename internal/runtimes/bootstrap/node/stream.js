'use strict';
// Response streaming: the writable stream that a streaming handler gets, and
// the global awslambda by which a handler declares itself one.

const { RuntimeError, toPayload } = require('./errors.js');

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');

/** Makes the response stream of one invocation. */
function createResponseStream(client, id, highWaterMark) {
  // Not loaded before a function streams.
  const { Writable } = require('stream');

  let contentType = 'application/octet-stream';
  let begun = false;
  let failure = null;
  const reply = Promise.withResolvers?.() ?? withResolvers();

  function begin() {
    if (begun) return;
    begun = true;
    client.beginStream(id, contentType).then(reply.resolve);
  }

  class ResponseStream extends Writable {
    // HttpResponseStream.from sets it: a function that writes the prelude.
    _onBeforeFirstWrite = undefined;

    setContentType(type) {
      if (begun) throw new RuntimeError('InvalidStreamingOperation', 'Cannot set content-type, too late.');
      contentType = type;
    }

    write(chunk, encoding, callback) {
      if (typeof chunk !== 'string' && !(chunk instanceof Uint8Array)) chunk = JSON.stringify(chunk);
      this.#prelude();
      return super.write(chunk, encoding, callback);
    }

    end(chunk, encoding, callback) {
      if (chunk !== undefined && chunk !== null && typeof chunk !== 'function') {
        this.write(chunk, typeof encoding === 'string' ? encoding : undefined);
        chunk = undefined;
      }
      this.#prelude();
      return super.end(chunk, encoding, callback);
    }

    #prelude() {
      const before = this._onBeforeFirstWrite;
      if (begun || failure || typeof before !== 'function') return;
      begin();
      before((data) => super.write(data));
    }

    _write(chunk, _encoding, callback) {
      begin();
      client.writeChunk(chunk, callback);
    }

    _final(callback) {
      begin();
      client.endChunks(failure);
      callback();
    }
  }

  const stream = new ResponseStream({ highWaterMark, decodeStrings: true });
  return {
    stream,
    /** Resolves when the Runtime API has taken the response. */
    taken: reply.promise,
    /** Ends the response with an error; what was written stays written. */
    fail(err) {
      if (stream.writableEnded) return;
      failure = toPayload(err);
      stream.end();
    },
  };
}

function withResolvers() {
  const d = {};
  d.promise = new Promise((resolve) => (d.resolve = resolve));
  return d;
}

class HttpResponseStream {
  /**
   * Puts status code, headers and cookies before the body: a JSON prelude and
   * eight NUL bytes.
   */
  static from(stream, prelude) {
    stream.setContentType('application/vnd.awslambda.http-integration-response');
    const json = JSON.stringify(prelude);
    stream._onBeforeFirstWrite = (write) => {
      write(json);
      write(new Uint8Array(8));
    };
    return stream;
  }
}

function installGlobal(env) {
  const off = env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA;
  if (off === '1' || off === 'true') return;
  globalThis.awslambda = {
    ...globalThis.awslambda,
    streamifyResponse(handler, options) {
      handler[STREAMING] = 'response';
      if (typeof options?.highWaterMark === 'number') handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
      return handler;
    },
    HttpResponseStream,
  };
}

/** Whether handler streams, and with which high water mark. */
function streamingOf(handler) {
  const mode = handler[STREAMING];
  if (mode === undefined || mode === null || mode === false) return null;
  if (mode !== 'response') throw new RuntimeError('MalformedStreamingHandler', 'Only response streaming is supported.');
  const mark = parseInt(handler[HIGH_WATER_MARK], 10);
  return { highWaterMark: Number.isNaN(mark) ? undefined : mark };
}

module.exports = { createResponseStream, installGlobal, streamingOf };
