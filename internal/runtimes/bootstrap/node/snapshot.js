'use strict';
// Starts of which a snapshot may be taken, to make many environments from. What
// must differ in each of them is watched until then, and renewed afterwards.
//
// Where the random numbers of Node.js come from, and what becomes of them:
//   OpenSSL's generators (crypto, webcrypto, TLS) are reseeded, see reseed.
//   crypto.randomUUID and crypto.randomInt draw from caches, which are empty as
//   long as nobody drew: who did is not cloned.
//   Math.random has a state that nothing reaches. It is another function from
//   the start on, the state of which is here.
// Whoever draws before the snapshot holds what all clones would share, and who
// starts a thread or a process has generators that cannot be reached.

const path = require('path');
const { syncBuiltinESMExports } = require('module');

const DRAWS = /^(random|pseudoRandom|getRandomValues|p?rng$|generate|createECDH|(create|get)DiffieHellman)/;

class Snapshot {
  #random = new Random();
  #watching = true;
  #reason = '';
  #undo = [];

  constructor() {
    Math.random = this.#random.function(() => this.#watching && this.#drew('Math.random'));
    const crypto = require('crypto');
    for (const name of Object.keys(crypto)) {
      if (DRAWS.test(name)) this.#watch(crypto, name, `crypto.${name}`);
    }
    const web = Object.getPrototypeOf(globalThis.crypto);
    this.#watch(web, 'getRandomValues', 'crypto.getRandomValues');
    this.#watch(web, 'randomUUID', 'crypto.randomUUID');
    this.#watch(Object.getPrototypeOf(globalThis.crypto.subtle), 'generateKey', 'crypto.subtle.generateKey');
    this.#watch(require('child_process').ChildProcess.prototype, 'spawn', '', 'starts processes');
    syncBuiltinESMExports();
    const onWorker = () => this.#unfit('starts threads', 'which have random numbers of their own');
    process.on('worker', onWorker);
    this.#undo.push(() => process.off('worker', onWorker));
    this.#reseed();
  }

  /**
   * Waits, in a call of restore/next, until this environment is to go on, and
   * adopts what differs in it.
   */
  async wait(client) {
    const told = this.#reason;
    const reply = await client.restoreNext(told);
    if (reply.status !== 200) {
      process.stderr.write(`Runtime API: restore/next answered ${reply.status}: ${reply.body}\n`);
      process.exit(1);
    }
    this.#reseed();
    if (this.#reason !== told) {
      // It became so in the meantime, be it before the snapshot or before now.
      await client.restoreError({ errorType: 'Runtime.Unfit', errorMessage: this.#reason });
      process.exit(1);
    }
    const { env, entropy } = JSON.parse(reply.body);
    this.#watching = false;
    for (const undo of this.#undo) undo();
    syncBuiltinESMExports();
    Object.assign(process.env, env);
    this.#random.seed(Buffer.from(entropy, 'base64'));
  }

  #reseed() {
    if (!reseed()) this.#reason ||= 'the random numbers of this Node.js cannot be made different in each clone';
  }

  // Replaces a function by one that tells of its calls and does the same. Who
  // keeps it, as by destructuring, can go on with it.
  #watch(object, name, label, what) {
    const property = Object.getOwnPropertyDescriptor(object, name);
    if (typeof property?.value !== 'function' || !property.configurable) return;
    const tell = () => this.#watching && (what ? this.#unfit(what, 'which have random numbers of their own') : this.#drew(label));
    const value = new Proxy(property.value, {
      apply(target, self, args) {
        tell();
        return Reflect.apply(target, self, args);
      },
    });
    Object.defineProperty(object, name, { ...property, value });
    this.#undo.push(() => {
      if (object[name] === value) Object.defineProperty(object, name, property);
    });
  }

  #drew(label) {
    this.#unfit(`draws random numbers (${label}${this.#reason ? '' : caller()})`, 'which its clones would share');
  }

  #unfit(what, which) {
    this.#reason ||= `its initialisation ${what}, ${which}`;
  }
}

// Where the function, or a package of it, called: " in file:line".
function caller() {
  const root = `${process.env.LAMBDA_TASK_ROOT ?? '/var/task'}/`;
  const { stack } = new Error();
  if (typeof stack !== 'string') return ''; // the function has its own way with stacks
  for (const line of stack.split('\n').slice(1)) {
    const at = /(?: \(|at (?:async )?)(?:file:\/\/)?(\/[^()]*?:\d+):\d+\)?$/.exec(line);
    if (at && path.dirname(at[1]) !== __dirname) return ` in ${at[1].startsWith(root) ? at[1].slice(root.length) : at[1]}`;
  }
  return '';
}

// Has OpenSSL take fresh entropy from the kernel, in all of its generators: it
// reseeds the one that all others are seeded from, which they follow. Node.js
// has no call for that, so that a shared object without any code has the dynamic
// linker call OpenSSL's function; as no module is in it, Node.js then refuses and
// unloads it. OpenSSL by itself reseeds after an hour, or in a forked process.
function reseed() {
  try {
    process.dlopen({ exports: {} }, path.join(__dirname, 'reseed.node'));
  } catch (err) {
    return /self-register/.test(err.message);
  }
  return false; // that was something else
}

// The generator xoshiro128** of Blackman and Vigna, in place of V8's xorshift128+.
class Random {
  #state = new Int32Array(4);

  constructor() {
    this.seed(require('crypto').randomBytes(16));
  }

  seed(bytes) {
    const s = this.#state;
    for (let i = 0; i < 4; i++) s[i] = bytes.readInt32LE(4 * i);
    if (!(s[0] | s[1] | s[2] | s[3])) s[0] = 1; // it would stay there
  }

  /** Returns a stand-in for Math.random that calls before each time. */
  function(before) {
    const s = this.#state;
    const bits = () => {
      const r = Math.imul(s[1], 5);
      const t = s[1] << 9;
      s[2] ^= s[0];
      s[3] ^= s[1];
      s[1] ^= s[2];
      s[0] ^= s[3];
      s[2] ^= t;
      s[3] = (s[3] << 11) | (s[3] >>> 21);
      return Math.imul((r << 7) | (r >>> 25), 9) >>> 0;
    };
    const random = () => {
      before();
      return ((bits() >>> 5) * 0x4000000 + (bits() >>> 6)) / 0x20000000000000;
    };
    // Bound, it shows no source, like a function of V8's.
    return Object.defineProperty(random.bind(null), 'name', { value: 'random' });
  }
}

module.exports = { Random, Snapshot, reseed };
