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

  // One call must not take more memory than a function has.
  const most = native.memory;
  const guard = (object, name, size) => {
    const method = object[name];
    define(object, name, function () {
      if (size.apply(this, arguments) > most) throw new MemoryError('out of memory');
      return method.apply(this, arguments);
    });
  };
  guard(String.prototype, 'repeat', function (n) { return this.length * n; });
  guard(String.prototype, 'padStart', (n) => n);
  guard(String.prototype, 'padEnd', (n) => n);
  guard(Array.prototype, 'fill', function () { return this.length * 8; });
  guard(Array.prototype, 'join', function () { return this.length; });
  const binary = ['ArrayBuffer', 'Int8Array', 'Uint8Array', 'Uint8ClampedArray', 'Int16Array', 'Uint16Array',
    'Int32Array', 'Uint32Array', 'Float32Array', 'Float64Array'];
  for (const name of arrays ? binary : []) {
    const type = globalThis[name];
    const width = type.BYTES_PER_ELEMENT || 1;
    const guarded = function (...args) {
      if (typeof args[0] === 'number' && args[0] * width > most) throw new MemoryError('out of memory');
      return Reflect.construct(type, args, new.target);
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
    modules.buffer = () => native.buffer();
    const kvs = (id) => {
      const store = native.kvs(id === undefined ? '' : String(id));
      return Object.freeze({
        async get(key, options) {
          const value = store.get(String(key));
          switch (options === undefined || options.format === undefined ? 'string' : options.format) {
            case 'string': return value;
            case 'json': return JSON.parse(value);
            case 'bytes': return native.buffer().Buffer.from(value);
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
      get() { const { Buffer } = native.buffer(); define(globalThis, 'Buffer', Buffer); return Buffer; },
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
})
