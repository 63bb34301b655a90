'use strict';
// The runtime's own errors and the two forms in which an error leaves the
// function: the payload that the caller gets and the line in the log.

class RuntimeError extends Error {
  constructor(type, message) {
    super(message);
    Object.defineProperty(this, 'name', { value: `Runtime.${type}`, configurable: true, writable: true });
    // The stack was taken with the class's name.
    if (typeof this.stack === 'string') this.stack = this.stack.replace(/^Error/, this.name);
  }
}

const NODE_JS_EXIT =
  'The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a Promise that was never settled. For more information, see https://nodejs.org/docs/latest/api/process.html#exit-codes';

function isErrorLike(v) {
  return (
    v instanceof Error ||
    (v !== null && typeof v === 'object' && typeof v.name === 'string' && typeof v.message === 'string' && typeof v.stack === 'string')
  );
}

// The DEL character is not allowed in header values, and type and message may
// end up in one.
function clean(s) {
  return typeof s === 'string' ? s.replaceAll('\x7F', '%7F') : s;
}

/** The error payload of the Runtime API. It never throws. */
function toPayload(err) {
  try {
    if (isErrorLike(err)) {
      return { errorType: clean(err.name), errorMessage: clean(err.message), trace: clean(String(err.stack)).split('\n') };
    }
    return { errorType: typeof err, errorMessage: String(err), trace: [] };
  } catch {
    // A getter or toString of the function's own object threw.
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack',
    };
  }
}

function toError(v) {
  return v instanceof Error ? v : new Error(String(v));
}

// Name, message, code and stack are not enumerable, so that JSON.stringify
// would drop them.
function spread(_key, v) {
  if (!(v instanceof Error)) return v;
  const out = Object.assign({ errorType: v.name, errorMessage: v.message, code: v.code }, v);
  if (typeof v.stack === 'string') out.stack = v.stack.split('\n');
  return out;
}

/** The JSON behind the words "Invoke Error" in a text log. */
function toLogJSON(err) {
  try {
    return JSON.stringify(err, spread);
  } catch {
    return JSON.stringify(toPayload(err));
  }
}

/** The X-Ray cause of an error as a header value, or '' where it can't be one. */
function toXRayCause(err) {
  if (!isErrorLike(err)) return '';
  try {
    const stack = clean(String(err.stack))
      .split('\n')
      .slice(1)
      .map((line) => {
        const m = /^\s*at (?:(.*) \()?(.*?)(?::(\d+))?(?::\d+)?\)?$/.exec(line);
        return { path: m ? m[2] : line.trim(), line: m && m[3] ? Number(m[3]) : 0, label: (m && m[1]) || 'anonymous' };
      });
    const json = JSON.stringify({
      working_directory: process.cwd(),
      exceptions: [{ type: clean(err.name), message: clean(err.message), stack }],
      paths: [...new Set(stack.map((f) => f.path))],
    }).replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
    return json.length < 1024 * 1024 ? json : '';
  } catch {
    return '';
  }
}

module.exports = { RuntimeError, NODE_JS_EXIT, toPayload, toError, toLogJSON, toXRayCause };
