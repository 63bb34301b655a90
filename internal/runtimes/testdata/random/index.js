'use strict';
// Answers with samples of every generator of random numbers that Node.js has; an
// event of null draws none.

const crypto = require('crypto');
const vm = require('vm');

const { random } = Math;
const { randomUUID, randomBytes } = crypto;

async function generated() {
  const { publicKey } = crypto.generateKeyPairSync('x25519');
  const key = await crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true, ['sign']);
  return {
    'crypto.generateKeyPair': publicKey.export({ type: 'spki', format: 'der' }).toString('hex'),
    'crypto.subtle.generateKey': Buffer.from(await crypto.subtle.exportKey('raw', key)).toString('hex'),
    'crypto.randomBytes, in a thread': await new Promise((r) => crypto.randomBytes(16, (_err, b) => r(b.toString('hex')))),
  };
}

exports.handler = async (event) => {
  if (event === null) return null;
  return {
    'Math.random': Math.random(),
    'Math.random, kept': random(),
    'Math.random, 100th': Array.from({ length: 100 }, () => Math.random()).pop(),
    'crypto.randomUUID': crypto.randomUUID(),
    'crypto.randomUUID, kept': randomUUID(),
    'crypto.randomBytes': crypto.randomBytes(16).toString('hex'),
    'crypto.randomBytes, kept': randomBytes(16).toString('hex'),
    'crypto.randomInt': crypto.randomInt(2 ** 47),
    'crypto.getRandomValues': Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(16))).toString('hex'),
    ...(await generated()),
    'Math.random, in a context': event.contexts ? vm.runInNewContext('Math.random()') : random(),
  };
};
