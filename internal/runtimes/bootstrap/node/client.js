'use strict';
// A client of the Lambda Runtime API on one keep-alive connection. It speaks
// HTTP/1.1 on a plain socket: loading node:http costs more time at start than
// everything else here, and its requests cost more per invocation.
//
// The answer to one invocation and the request for the next one leave in one
// write (HTTP pipelining); replies come back in the order of the requests.

const fs = require('fs');
const net = require('net');

const PREFIX = '/2018-06-01/runtime';
const CRLF2 = Buffer.from('\r\n\r\n');
const LF = 10;

// A read of this file, which nobody has, hands requests over to Lapwing and waits
// for the answers: one system call instead of three.
const EXCHANGE = 0x6c617077;
const EXCHANGE_BYTES = 64 * 1024;

class RuntimeClient {
  #host;
  #port;
  #base;
  #nextRequest;
  #local; // a Unix socket on which Lapwing serves the API too: cheaper than TCP
  #socket = null;
  #held = true; // the process lives as long as the connection
  #unsent = ''; // requests made before there is a connection, or null
  #waiting = []; // one callback for each request whose reply is outstanding
  #reply = null; // the reply being received
  #rest = null; // bytes received and not yet consumed
  #closing = false; // the server announced that it closes the connection
  #page = Buffer.allocUnsafeSlow(EXCHANGE_BYTES); // of exchanges; null where there are none

  constructor(address) {
    this.#local = `\0lapwing:${address}`;
    const colon = address.lastIndexOf(':');
    this.#host = address.slice(0, colon).replace(/^\[|\]$/g, '');
    this.#port = Number(address.slice(colon + 1));
    this.#base = ` HTTP/1.1\r\nHost: ${address}\r\nUser-Agent: aws-lambda-nodejs/${process.version}-lapwing\r\n`;
    this.#nextRequest = `GET ${PREFIX}/invocation/next${this.#base}\r\n`;
    this.#connect();
  }

  /** Asks for the next event, and passes it to onEvent. */
  next(onEvent) {
    this.#send(this.#nextRequest, onEvent);
  }

  /**
   * Posts the result of an invocation, given as JSON text, and asks for the
   * next event, for onEvent. onRefused gets the reply if the result was not taken.
   */
  respondAndNext(id, json, onRefused, onEvent) {
    this.#postAndNext(this.#post(`${PREFIX}/invocation/${id}/response`, '', json), onRefused, onEvent);
  }

  /**
   * The same where nothing else is going on: it waits until there is an event, or
   * something else to do. It returns the event where there is one, and passes it
   * to onEvent otherwise, when it comes.
   */
  exchange(id, json, onRefused, onEvent) {
    const post = this.#post(`${PREFIX}/invocation/${id}/response`, '', json);
    const replies = this.#exchange(post + this.#nextRequest);
    if (replies === null) {
      this.#postAndNext(post, onRefused, onEvent);
      return null;
    }
    const event = replies.at(-1)?.status === 200 ? replies.pop() : null;
    if (replies.length > 0) onRefused(replies[0]);
    if (event === null) this.#send(this.#nextRequest, onEvent);
    return event;
  }

  /** Posts the error of an invocation and asks for the next event. */
  failAndNext(id, payload, xrayCause, onRefused, onEvent) {
    this.#postAndNext(this.#invocationError(id, payload, xrayCause), onRefused, onEvent);
  }

  /** Posts the result of an invocation, after which there will be no other. */
  respond(id, json) {
    this.#send(this.#post(`${PREFIX}/invocation/${id}/response`, '', json), () => {});
  }

  /** Posts the error of an invocation. */
  fail(id, payload, xrayCause) {
    return new Promise((resolve) => this.#send(this.#invocationError(id, payload, xrayCause), resolve));
  }

  /** Posts an error of initialisation. */
  initError(payload) {
    const post = this.#post(`${PREFIX}/init/error`, errorTypeHeader(payload), JSON.stringify(payload));
    return new Promise((resolve) => this.#send(post, resolve));
  }

  /**
   * Waits until this environment is to go on, of which a snapshot may be taken
   * now, unless it is unfit for one: then that is why.
   */
  restoreNext(unfit) {
    const head = unfit ? `Lapwing-Unfit: ${headerValue(unfit)}\r\n` : '';
    return new Promise((resolve) => this.#send(`GET ${PREFIX}/restore/next${this.#base}${head}\r\n`, resolve));
  }

  /** Posts an error of what follows a restore. */
  restoreError(payload) {
    const post = this.#post(`${PREFIX}/restore/error`, errorTypeHeader(payload), JSON.stringify(payload));
    return new Promise((resolve) => this.#send(post, resolve));
  }

  /**
   * Begins a streamed response and returns the promise of its reply; the body
   * follows by writeChunk and endChunks.
   */
  beginStream(id, contentType) {
    const head =
      `POST ${PREFIX}/invocation/${id}/response${this.#base}` +
      `Content-Type: ${headerValue(contentType)}\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n` +
      'Transfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n';
    return new Promise((resolve) => this.#send(head, resolve));
  }

  /** Writes a chunk and calls done when the socket takes more. */
  writeChunk(data, done) {
    if (data.length === 0) return done(); // an empty chunk would end the body
    const s = this.#socket;
    s.cork();
    s.write(`${data.length.toString(16)}\r\n`, 'latin1');
    s.write(data);
    const more = s.write('\r\n', 'latin1');
    s.uncork();
    if (more) done();
    else s.once('drain', done);
  }

  /** Ends a streamed response, with the error in trailers if there was one. */
  endChunks(payload) {
    let tail = '0\r\n';
    if (payload) {
      tail +=
        errorTypeHeader(payload) +
        `Lambda-Runtime-Function-Error-Body: ${Buffer.from(JSON.stringify(payload)).toString('base64')}\r\n`;
    }
    this.#socket.write(`${tail}\r\n`, 'latin1');
  }

  /** Lets the process end although the connection is open, or not. */
  hold(on) {
    if (on === this.#held) return;
    this.#held = on;
    if (on) this.#socket.ref();
    else this.#socket.unref();
  }

  #invocationError(id, payload, xrayCause) {
    let head = errorTypeHeader(payload);
    if (xrayCause) head += `Lambda-Runtime-Function-XRay-Error-Cause: ${xrayCause}\r\n`;
    return this.#post(`${PREFIX}/invocation/${id}/error`, head, JSON.stringify(payload));
  }

  #post(path, head, json) {
    return `POST ${path}${this.#base}Content-Type: application/json\r\n${head}Content-Length: ${Buffer.byteLength(json)}\r\n\r\n${json}`;
  }

  #postAndNext(post, onRefused, onEvent) {
    this.#waiting.push((reply) => {
      if (reply.status !== 202) onRefused(reply);
    });
    this.#send(post + this.#nextRequest, onEvent);
  }

  // Hands requests over and returns the replies, of which those that nobody waits
  // for any more are left out; null where the requests were not taken.
  #exchange(text) {
    if (this.#page === null || 3 * text.length > EXCHANGE_BYTES || this.#unsent !== null) return null;
    let size;
    try {
      size = fs.readSync(EXCHANGE, this.#page, 0, EXCHANGE_BYTES, this.#page.write(text));
    } catch (err) {
      if (err.code === 'EMSGSIZE') return []; // the event is given again
      this.#page = null;
      return null;
    }
    const replies = [];
    for (let at = 0; at < size; ) {
      const end = this.#page.indexOf(CRLF2, at);
      const reply = parseHead(this.#page.utf8Slice(at, end));
      at = end + CRLF2.length;
      reply.body = this.#page.utf8Slice(at, at + reply.size);
      at += reply.size;
      replies.push(reply);
    }
    return replies;
  }

  #send(text, onReply) {
    this.#waiting.push(onReply);
    this.hold(true);
    if (this.#unsent === null) this.#socket.write(text);
    else this.#unsent += text;
  }

  #connect() {
    this.#closing = false;
    this.#reply = null;
    this.#rest = null;
    const s = net.connect({
      ...(this.#local ? { path: this.#local } : { host: this.#host, port: this.#port, noDelay: true }),
      // One buffer for all reads: no stream machinery on the way in.
      onread: {
        buffer: Buffer.allocUnsafeSlow(64 * 1024),
        callback: (n, buf) => {
          this.#received(buf.subarray(0, n));
          return true;
        },
      },
    });
    s.on('connect', () => {
      if (this.#unsent) s.write(this.#unsent);
      this.#unsent = null;
    });
    s.on('error', (err) => (this.#socketError = err));
    s.on('close', () => this.#closed());
    if (!this.#held) s.unref();
    this.#socket = s;
  }

  #socketError = null;

  #closed() {
    if (this.#unsent !== null && this.#local) {
      this.#local = null; // there is none here
      this.#connect();
      return;
    }
    // After a refusal the server may close the connection; the request for
    // the next event, which it then never saw, is repeated on a new one.
    if (this.#closing && this.#waiting.length <= 1) {
      this.#unsent = this.#waiting.length === 1 ? this.#nextRequest : '';
      this.#connect();
      return;
    }
    const why = this.#socketError ? this.#socketError.message : 'connection closed';
    process.stderr.write(`Runtime API at ${this.#host}:${this.#port}: ${why}\n`);
    process.exit(1);
  }

  #received(data) {
    if (this.#rest) {
      data = Buffer.concat([this.#rest, data]);
      this.#rest = null;
    }
    while (data.length > 0) {
      const reply = this.#reply ?? this.#head(data);
      if (!reply) {
        this.#rest = Buffer.from(data); // the read buffer is used again
        return;
      }
      this.#reply = reply;
      if (reply.start) {
        data = data.subarray(reply.start);
        reply.start = 0;
      }
      const used = reply.chunked ? readChunked(reply, data) : readSized(reply, data);
      data = data.subarray(used);
      if (!reply.done) {
        if (data.length > 0) this.#rest = Buffer.from(data);
        return;
      }
      this.#reply = null;
      if (reply.headers.connection === 'close') this.#closing = true;
      this.#waiting.shift()(reply);
    }
  }

  // The head of a reply, or null while it is incomplete.
  #head(data) {
    const end = data.indexOf(CRLF2);
    if (end < 0) {
      if (data.length > 2 * 1024 * 1024) throw new Error('Runtime API: reply with an endless head');
      return null;
    }
    const reply = parseHead(data.utf8Slice(0, end));
    reply.start = end + CRLF2.length;
    return reply;
  }
}

// The fields that mean something here, by their names as they come; null: others
// that always come. Looking a name up costs less than making it lower case.
const FIELDS = new Map([
  ['Content-Length', 'contentLength'],
  ['Transfer-Encoding', 'transferEncoding'],
  ['Connection', 'connection'],
  ['Lambda-Runtime-Aws-Request-Id', 'requestId'],
  ['Lambda-Runtime-Deadline-Ms', 'deadlineMs'],
  ['Lambda-Runtime-Invoked-Function-Arn', 'functionArn'],
  ['Lambda-Runtime-Trace-Id', 'traceId'],
  ['Lambda-Runtime-Client-Context', 'clientContext'],
  ['Lambda-Runtime-Cognito-Identity', 'cognitoIdentity'],
  ['Lambda-Runtime-Aws-Tenant-Id', 'tenantId'],
  ['Content-Type', null],
  ['Date', null],
]);
for (const [name, field] of [...FIELDS]) FIELDS.set(name.toLowerCase(), field);

// The head of a reply, without the empty line.
function parseHead(text) {
  const headers = {
    contentLength: undefined,
    transferEncoding: undefined,
    connection: undefined,
    requestId: undefined,
    deadlineMs: undefined,
    functionArn: undefined,
    traceId: undefined,
    clientContext: undefined,
    cognitoIdentity: undefined,
    tenantId: undefined,
  };
  for (let eol = text.indexOf('\r\n'); eol >= 0; ) {
    const begin = eol + 2;
    eol = text.indexOf('\r\n', begin);
    const colon = text.indexOf(':', begin);
    const name = text.slice(begin, colon);
    let field = FIELDS.get(name);
    if (field === undefined) field = FIELDS.get(name.toLowerCase());
    if (field) headers[field] = text.slice(colon + 1, eol < 0 ? text.length : eol).trim();
  }
  const chunked = headers.transferEncoding === 'chunked';
  const size = chunked ? 0 : Number(headers.contentLength ?? 0);
  return { status: Number(text.slice(9, 12)), headers, chunked, size, parts: [], have: 0, body: '', start: 0, done: false, chunk: 0, trailers: false };
}

function finish(reply) {
  const { parts } = reply;
  reply.body = parts.length === 1 ? parts[0].toString('utf8') : Buffer.concat(parts).toString('utf8');
  reply.parts = null;
  reply.done = true;
}

// The readers take what they can use of data and return how much that was.

function readSized(reply, data) {
  const n = Math.min(reply.size - reply.have, data.length);
  reply.have += n;
  if (reply.have < reply.size) {
    reply.parts.push(Buffer.from(data.subarray(0, n)));
    return n;
  }
  reply.parts.push(data.subarray(0, n));
  finish(reply);
  return n;
}

function readChunked(reply, data) {
  let at = 0;
  while (at < data.length) {
    if (reply.chunk > 0) {
      const n = Math.min(reply.chunk, data.length - at);
      reply.parts.push(Buffer.from(data.subarray(at, at + n)));
      reply.chunk -= n;
      at += n;
      continue;
    }
    // A line: the size of a chunk, the empty one after it, or a trailer.
    const eol = data.indexOf(LF, at);
    if (eol < 0) break;
    const line = data.toString('latin1', at, eol).trim();
    at = eol + 1;
    if (reply.trailers) {
      if (line !== '') continue;
      finish(reply);
      break;
    }
    if (line === '') continue;
    reply.chunk = parseInt(line, 16);
    if (!(reply.chunk >= 0)) throw new Error('Runtime API: malformed chunk');
    reply.trailers = reply.chunk === 0;
  }
  return at;
}

const MAX_ERROR_TYPE = 1024;

// The header, or trailer, that names an error's type.
function errorTypeHeader(payload) {
  return `Lambda-Runtime-Function-Error-Type: ${headerValue(String(payload.errorType).slice(0, MAX_ERROR_TYPE))}\r\n`;
}

// A header value on one line and in ASCII.
function headerValue(s) {
  return String(s).replace(/[^\t\x20-\x7e]/gu, (c) => encodeURIComponent(c.toWellFormed()));
}

module.exports = { RuntimeClient };
