'use strict';
// console as Lambda has it: every call makes one log record, in the text or
// the JSON format, filtered by level where the format is JSON.

const fs = require('fs');
const { format } = require('util');
const { toError, toLogJSON } = require('./errors.js');

// Records written to _LAMBDA_TELEMETRY_LOG_FD are framed: type, length (both
// 32 bits), time in microseconds (64 bits), message; big endian. The level is
// part of the type.
const FRAME_TEXT = 0xa55a0003;
const FRAME_JSON = 0xa55a0002;
const LEVELS = {
  TRACE: { name: 'TRACE', rank: 1, frame: 0x04 },
  DEBUG: { name: 'DEBUG', rank: 2, frame: 0x08 },
  INFO: { name: 'INFO', rank: 3, frame: 0x0c },
  WARN: { name: 'WARN', rank: 4, frame: 0x10 },
  ERROR: { name: 'ERROR', rank: 5, frame: 0x14 },
  FATAL: { name: 'FATAL', rank: 6, frame: 0x18 },
};

// What log libraries read to tell which invocation a line belongs to.
const REQUEST_ID = Symbol.for('aws.lambda.runtime.requestId');
const TENANT_ID = Symbol.for('aws.lambda.runtime.tenantId');

function setInvocation(requestId, tenantId) {
  globalThis[REQUEST_ID] = requestId;
  globalThis[TENANT_ID] = tenantId;
}

function expandErrors(_key, v) {
  if (!(v instanceof Error)) return v;
  return Object.assign(
    {
      errorType: v.constructor?.name ?? 'UnknownError',
      errorMessage: v.message,
      stackTrace: typeof v.stack === 'string' ? v.stack.split('\n') : v.stack,
    },
    v,
  );
}

function textRecord(time, level, args) {
  return `${time}\t${globalThis[REQUEST_ID]}\t${level.name}\t${format(...args)}`;
}

function jsonRecord(time, level, args) {
  const record = { timestamp: time, level: level.name, requestId: globalThis[REQUEST_ID] };
  if (globalThis[TENANT_ID] != null) record.tenantId = globalThis[TENANT_ID];
  if (args.length === 1) {
    record.message = args[0];
    try {
      return JSON.stringify(record, expandErrors);
    } catch {
      record.message = format(args[0]); // cyclic, or a BigInt
      return JSON.stringify(record);
    }
  }
  record.message = format(...args);
  const err = args.find((a) => a instanceof Error);
  if (err) {
    record.errorType = err.constructor?.name ?? 'UnknownError';
    record.errorMessage = err.message;
    record.stackTrace = typeof err.stack === 'string' ? err.stack.split('\n') : [];
  }
  return JSON.stringify(record);
}

// Standard output carries lines, so that the line feeds within a record become
// carriage returns there.
function toStdout(_level, _ms, message) {
  writeAll(1, Buffer.from(`${message.replace(/\n/g, '\r')}\n`));
}

// A frame is a whole record, without a line feed at its end.
function toFrames(fd, base) {
  return (level, ms, message) => {
    const body = Buffer.from(message);
    const frame = Buffer.allocUnsafe(16 + body.length);
    frame.writeUInt32BE((base | level.frame) >>> 0, 0);
    frame.writeUInt32BE(body.length, 4);
    frame.writeBigUInt64BE(BigInt(ms) * 1000n, 8);
    body.copy(frame, 16);
    writeAll(fd, frame);
  };
}

// Writes synchronously, as AWS does: what was logged before a crash is there.
// The other end may be slow and the descriptor non-blocking; then it waits.
function writeAll(fd, buf) {
  while (buf.length > 0) {
    try {
      buf = buf.subarray(fs.writeSync(fd, buf));
    } catch (err) {
      if (err.code !== 'EAGAIN') return; // nobody reads: there is nowhere to tell it
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

/**
 * Replaces the methods of console and returns logError(words, error), which
 * logs an error of the function.
 */
function patchConsole(env) {
  const json = env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === 'JSON';
  const record = json ? jsonRecord : textRecord;
  let write = toStdout;
  if (env._LAMBDA_TELEMETRY_LOG_FD !== undefined) {
    const fd = Number(env._LAMBDA_TELEMETRY_LOG_FD);
    delete env._LAMBDA_TELEMETRY_LOG_FD;
    write = toFrames(fd, json ? FRAME_JSON : FRAME_TEXT);
  }
  const lowest = LEVELS[env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase()]?.rank ?? 0;
  const method = (level) => {
    if (level.rank < lowest) return () => {};
    return (...args) => {
      const now = new Date();
      write(level, now.valueOf(), record(now.toISOString(), level, args));
    };
  };
  console.trace = method(LEVELS.TRACE);
  console.debug = method(LEVELS.DEBUG);
  console.info = method(LEVELS.INFO);
  console.log = console.info;
  console.warn = method(LEVELS.WARN);
  console.error = method(LEVELS.ERROR);
  console.fatal = method(LEVELS.FATAL);

  const { error } = console; // the function may replace it
  return json ? (_words, err) => error(toError(err)) : (words, err) => error(words, `\t${toLogJSON(toError(err))}`);
}

module.exports = { patchConsole, setInvocation };
