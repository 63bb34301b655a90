'use strict';
// A process that has booted before anybody knew for which function: many start from
// its snapshot, each for a function of its own. Until it is told it does nothing that
// depends on a function, and draws no random numbers.

const { Random, reseed } = require('./snapshot.js');

const UNFIT = 'the random numbers of this Node.js cannot be made different in each clone';

/** Waits until this process is told what it is to be, and becomes that. */
async function fill(client) {
  const random = new Random(); // V8's own has a state that nothing reaches
  Math.random = random.function(() => {});
  const reply = await client.restoreNext(reseed() ? '' : UNFIT);
  if (reply.status !== 200) {
    process.stderr.write(`Runtime API: restore/next answered ${reply.status}: ${reply.body}\n`);
    process.exit(1);
  }
  client.hold(false);
  const { env, dir, entropy } = JSON.parse(reply.body);
  if (!reseed()) {
    process.stderr.write(`${UNFIT}\n`);
    process.exit(1);
  }
  random.seed(Buffer.from(entropy, 'base64'));
  beginUptime();
  adopt(env);
  process.chdir(dir);
}

// What stays as it is is not touched: Node.js looks for the time zone anew where TZ
// is set, whatever to.
function adopt(env) {
  const own = new Map(env);
  for (const name of Object.keys(process.env)) {
    if (!own.has(name)) delete process.env[name];
  }
  for (const [name, value] of own) {
    if (process.env[name] !== value) process.env[name] = value;
  }
}

// Counts from now on: those who tell a cold start or its time by this are to see
// none that takes hours. No function has looked at it yet.
function beginUptime() {
  const { uptime } = process;
  const before = uptime();
  process.uptime = Object.defineProperty((() => uptime() - before).bind(null), 'name', { value: 'uptime' });
}

module.exports = { fill };
