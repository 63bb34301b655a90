// What a function finds beside ECMAScript's own objects. It is given native, the
// parts that are in Go, and runs in strict mode before the function's code. modern
// is set for runtime 2.0, arrays where the code names a type of binary data.
(function (native, modern, arrays) {
  const define = (object, name, value) =>
    Object.defineProperty(object, name, { value, writable: true, configurable: true, enumerable: false });

  class MemoryError extends Error { get name() { return 'MemoryError'; } }
  class InternalError extends Error { get name() { return 'InternalError'; } }
  define(globalThis, 'MemoryError', MemoryError);
  define(globalThis, 'InternalError', InternalError);

  // No code from strings.
  const deny = function () { throw new EvalError('Code generation from strings disallowed for this context'); };
  for (const f of [function () {}, function* () {}, async function () {}]) {
    Object.defineProperty(Object.getPrototypeOf(f), 'constructor', { value: deny });
  }
  deny.prototype = Function.prototype;
  define(globalThis, 'Function', deny);
  define(globalThis, 'eval', deny);

  // One call must not take more memory than a function has, nor all together more
  // than is reasonable. What is long is counted; what is short takes its time. The
  // language's own methods are replaced where a few short calls, in which the run
  // cannot be interrupted, would make something long: what these read of objects is
  // read once, by code that can be.
  const { memory: most, total } = native;
  const { apply } = Reflect;
  const { isArray } = Array;
  let taken = 0;
  const take = (n) => {
    if (n < 256) return;
    taken += n;
    if (n > most || taken > total) throw new MemoryError('out of memory');
  };
  const counted = (v) => {
    if (typeof v === 'string') take(v.length);
    return v;
  };
  const slot = 16; // bytes of an element
  const guard = (object, name, size) => {
    const method = object[name];
    define(object, name, function () {
      take(size(this, ...arguments));
      return apply(method, this, arguments);
    });
  };
  guard(String.prototype, 'repeat', (s, n) => s.length * n);
  guard(String.prototype, 'padStart', (_, n) => n);
  guard(String.prototype, 'padEnd', (_, n) => n);
  guard(String.prototype, 'normalize', (s) => s.length * 18);
  guard(String.prototype, 'split', (s) => s.length * slot);
  for (const name of ['fill', 'map', 'slice', 'splice', 'sort', 'reverse', 'toSorted', 'toSpliced', 'toReversed', 'with']) {
    if (Array.prototype[name]) guard(Array.prototype, name, (a) => a.length * slot);
  }
  // An array can be long without having elements.
  for (const name of ['values', 'keys', 'entries']) guard(Array.prototype, name, (a) => (a.length * slot > most ? a.length * slot : 0));
  define(Array.prototype, Symbol.iterator, Array.prototype.values);
  guard(RegExp.prototype, Symbol.match, (pattern, s) => (pattern.global ? String(s).length * slot : 0));
  guard(RegExp.prototype, Symbol.split, (_, s) => String(s).length * slot);
  for (const name of ['encodeURI', 'encodeURIComponent']) guard(globalThis, name, (_, s) => String(s).length * 3);
  delete globalThis.Proxy; // CloudFront has none

  const { join, push } = Array.prototype;
  const string = (v) => (v === undefined || v === null ? '' : String(v));
  const joined = (list, separator, each) => {
    const parts = [];
    let n = 0;
    for (let i = 0, length = list.length; i < length; i++) {
      parts[i] = each(list[i]);
      n += parts[i].length + separator.length + slot;
      if (n > most) take(n);
    }
    take(n);
    return apply(join, parts, [separator]);
  };
  define(Array.prototype, 'join', function (separator) { return joined(this, separator === undefined ? ',' : String(separator), string); });
  define(Array.prototype, 'toLocaleString', function () { return joined(this, ',', (v) => (v === undefined || v === null ? '' : v.toLocaleString())); });
  define(String.prototype, 'concat', function (...parts) { return joined([this, ...parts], '', String); });
  define(String, 'raw', (strings, ...values) => {
    const parts = [];
    for (let i = 0, { raw } = strings, n = raw.length; i < n; i++) {
      parts[parts.length] = raw[i];
      if (i + 1 < n && i < values.length) parts[parts.length] = values[i];
    }
    return joined(parts, '', String);
  });

  const flatten = (out, list, depth) => {
    for (let i = 0, n = list.length; i < n; i++) {
      if (!(i in list)) continue;
      const v = list[i];
      if (depth > 0 && isArray(v)) flatten(out, v, depth - 1);
      else out[out.length] = v;
    }
    return out;
  };
  define(Array.prototype, 'flat', function (depth) { return flatten([], this, depth === undefined ? 1 : Number(depth)); });
  define(Array.prototype, 'flatMap', function (f, self) { return flatten([], apply(Array.prototype.map, this, [f, self]), 1); });
  define(Array.prototype, 'concat', function (...lists) { return flatten([], [this, ...lists], 1); });
  const { from } = Array;
  define(Array, 'from', function (items, map, self) {
    if (items === undefined || items === null || items[Symbol.iterator]) return apply(from, this, arguments);
    const list = [];
    const n = Math.min(Number(items.length) || 0, most);
    for (let i = 0; i < n; i++) list[i] = items[i];
    return apply(from, this, [list, map, self]);
  });

  // Arguments that come as a list.
  const listed = (args) => {
    const list = args === undefined || args === null ? [] : isArray(args) ? args : Array.from(args);
    take(list.length * slot);
    return list;
  };
  const { construct } = Reflect;
  define(Object.getPrototypeOf(take), 'apply', function (self, args) { return apply(this, self, listed(args)); });
  define(Reflect, 'apply', (f, self, args) => apply(f, self, listed(args)));
  define(Reflect, 'construct', (f, args, target) => construct(f, listed(args), target === undefined ? f : target));

  // What replaces a match: of a string, with what its dollars stand for.
  const expand = (by, args) => {
    if (by.indexOf('$') < 0) return by;
    const last = args[args.length - 1];
    const groups = typeof last === 'object' ? last : undefined;
    const at = args.length - (groups ? 3 : 2);
    const [match] = args;
    const [offset, whole] = [args[at], args[at + 1]];
    const parts = [];
    for (let i = 0; i < by.length; i++) {
      let part = by[i];
      const next = by[i + 1];
      if (part === '$' && next !== undefined) {
        const digits = /^\d\d?/.exec(by.slice(i + 1, i + 3));
        const close = by.indexOf('>', i);
        if (next === '$') { i++; } else if (next === '&') { part = match; i++; } else if (next === '`') { part = whole.slice(0, offset); i++; } else if (next === "'") {
          part = whole.slice(offset + match.length); i++;
        } else if (digits) {
          const two = Number(digits[0]);
          const n = two > 0 && two < at ? digits[0].length : 1;
          const group = Number(digits[0].slice(0, n));
          if (group > 0 && group < at) { part = string(args[group]); i += n; }
        } else if (next === '<' && groups && close > 0) { part = string(groups[by.slice(i + 2, close)]); i = close; }
      }
      parts[parts.length] = part;
    }
    return joined(parts, '', String);
  };
  const replacing = (object, name) => {
    const method = object[name];
    define(object, name, function (what, by) {
      const text = typeof by === 'function' ? undefined : String(by);
      return apply(method, this, [what, (...args) => counted(text === undefined ? String(apply(by, undefined, args)) : expand(text, args))]);
    });
  };
  replacing(String.prototype, 'replaceAll');
  replacing(RegExp.prototype, Symbol.replace);

  // JSON of a value: what toJSON and getters return is counted as it comes.
  const { stringify, parse } = JSON;
  define(JSON, 'stringify', (value, replacer, space) => {
    let n = 0;
    const count = function (name, v) {
      const out = typeof replacer === 'function' ? apply(replacer, this, [name, v]) : v;
      n += name.length + (typeof out === 'string' ? out.length : 8) + (space === undefined ? 0 : 10);
      if (n > most) take(n);
      return out;
    };
    const text = stringify(value, count, space);
    take(n);
    return isArray(replacer) && text !== undefined ? stringify(parse(text), replacer, space) : text;
  });
  const binary = ['ArrayBuffer', 'Int8Array', 'Uint8Array', 'Uint8ClampedArray', 'Int16Array', 'Uint16Array',
    'Int32Array', 'Uint32Array', 'Float32Array', 'Float64Array'];
  const buffers = ArrayBuffer;
  for (const name of arrays ? binary : []) {
    const type = globalThis[name];
    const width = type.BYTES_PER_ELEMENT || 1;
    const guarded = function (...args) {
      if (typeof args[0] === 'number') take(args[0] * width);
      else if (typeof args[0] === 'object' && !ArrayBuffer.isView(args[0]) && !(args[0] instanceof buffers)) args[0] = Array.from(args[0]);
      return construct(type, args, new.target);
    };
    Object.setPrototypeOf(guarded, type);
    guarded.prototype = type.prototype;
    define(type.prototype, 'constructor', guarded);
    define(globalThis, name, guarded);
  }

  const show = (v) => (typeof v === 'object' && v !== null ? JSON.stringify(v) : String(v));
  define(globalThis, 'console', Object.freeze({
    log() { native.log(Array.prototype.map.call(arguments, show).join(' ')); },
  }));

  // crypto: hashes and HMACs as in Node.js.
  const hash = (algorithm, key) => {
    const h = native.hash(algorithm, key);
    const self = {
      update(data) { h.update(data); return self; },
      digest(encoding) { return h.digest(encoding); },
    };
    return self;
  };
  const crypto = () => ({
    createHash(algorithm) { return hash(algorithm); },
    createHmac(algorithm, key) {
      if (key === undefined || key === null) throw new TypeError('key is not a string or Buffer instance');
      return hash(algorithm, key);
    },
  });

  const unescape = (s) => {
    s = s.replace(/\+/g, ' ');
    try { return decodeURIComponent(s); } catch (e) { return native.unescape(s); }
  };
  const escape = (s) => encodeURIComponent(s);
  const primitive = (v) => {
    switch (typeof v) {
      case 'string': return v;
      case 'number': return isFinite(v) ? '' + v : '';
      case 'boolean': return v ? 'true' : 'false';
    }
    return '';
  };
  const querystring = () => {
    const module = {
      escape,
      unescape,
      parse(text, separator, equal, options) {
        const result = Object.create(null);
        if (typeof text !== 'string' || text === '') return result;
        const decode = options && typeof options.decodeURIComponent === 'function' ? options.decodeURIComponent : unescape;
        const maxKeys = options && typeof options.maxKeys === 'number' ? options.maxKeys : 1000;
        let parts = text.split(separator || '&');
        if (maxKeys > 0) parts = parts.slice(0, maxKeys);
        const eq = equal || '=';
        for (const part of parts) {
          if (part === '') continue;
          const at = part.indexOf(eq);
          const name = decode(at < 0 ? part : part.slice(0, at));
          const value = at < 0 ? '' : decode(part.slice(at + eq.length));
          if (!(name in result)) result[name] = value;
          else if (Array.isArray(result[name])) result[name].push(value);
          else result[name] = [result[name], value];
        }
        return result;
      },
      stringify(object, separator, equal, options) {
        if (typeof object !== 'object' || object === null) return '';
        const encode = options && typeof options.encodeURIComponent === 'function' ? options.encodeURIComponent : escape;
        const eq = equal || '=';
        const parts = [];
        for (const name of Object.keys(object)) {
          const values = Array.isArray(object[name]) ? object[name] : [object[name]];
          for (const value of values) parts.push(encode(name) + eq + encode(primitive(value)));
        }
        return parts.join(separator || '&');
      },
    };
    module.decode = module.parse;
    module.encode = module.stringify;
    return module;
  };

  const modules = { crypto, querystring };
  const loaded = {};
  if (modern) {
    let buffer;
    const ofBuffer = () => {
      if (buffer) return buffer;
      buffer = native.buffer();
      const { Buffer } = buffer;
      for (const name of ['alloc', 'allocUnsafe', 'allocUnsafeSlow']) if (Buffer[name]) guard(Buffer, name, (_, n) => n);
      const { concat } = Buffer;
      define(Buffer, 'concat', (list, length) => {
        const parts = flatten([], [list], 1);
        let n = Number(length) || 0;
        for (let i = 0; i < parts.length; i++) n += parts[i].length;
        take(n);
        return apply(concat, Buffer, length === undefined ? [parts] : [parts, length]);
      });
      return buffer;
    };
    modules.buffer = ofBuffer;
    const kvs = (id) => {
      const store = native.kvs(id === undefined ? '' : String(id));
      return Object.freeze({
        async get(key, options) {
          const value = store.get(String(key));
          switch (options === undefined || options.format === undefined ? 'string' : options.format) {
            case 'string': return value;
            case 'json': return JSON.parse(value);
            case 'bytes': return ofBuffer().Buffer.from(value);
          }
          throw new TypeError(`format "${options.format}" is not known`);
        },
        async exists(key) { return store.exists(String(key)); },
        async count() { return store.count; },
        async meta() {
          return { creationDateTime: store.created, lastUpdatedDateTime: store.updated, keyCount: store.count };
        },
      });
    };
    const choice = (o) => (typeof o === 'string' ? { originId: o } : o);
    modules.cloudfront = () => Object.freeze({
      kvs,
      updateRequestOrigin(properties) { native.origin('update', JSON.stringify(properties)); },
      selectRequestOriginById(originId, options) {
        native.origin('select', JSON.stringify({ originId, originOverrides: options && options.originOverrides }));
      },
      createRequestOriginGroup(group) {
        native.origin('group', JSON.stringify({ ...group, originIds: group.originIds.map(choice) }));
      },
    });
    Object.defineProperty(globalThis, 'Buffer', {
      configurable: true,
      get() { const { Buffer } = ofBuffer(); define(globalThis, 'Buffer', Buffer); return Buffer; },
      set(value) { define(globalThis, 'Buffer', value); },
    });
    define(globalThis, 'atob', (s) => native.fromBase64(String(s)));
    define(globalThis, 'btoa', (s) => native.toBase64(String(s)));
  } else {
    for (const name of ['fromBytes', 'fromUTF8', 'toBytes', 'toUTF8']) {
      define(String.prototype, name, function (start, end) { return native[name](String(this).slice(start, end)); });
    }
    define(String, 'bytesFrom', (from, encoding) =>
      (Array.isArray(from) ? from.map((b) => String.fromCharCode(b & 0xff)).join('') : native.bytesFrom(String(from), encoding)));
    define(String.prototype, 'bytesFrom', String.bytesFrom);
  }
  define(globalThis, 'require', (name) => {
    if (Object.hasOwn(modules, name)) return loaded[name] || (loaded[name] = modules[name]());
    throw new Error(`Cannot find module "${name}"`);
  });
  return counted;
})
