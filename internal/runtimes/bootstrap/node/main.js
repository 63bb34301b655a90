'use strict';
// The bootstrap of the nodejs runtimes: loads the function's handler and
// serves invocations. It is written from the public description of the Lambda
// Runtime API and of the Node.js programming model.

const { RuntimeClient } = require('./client.js');
const { RuntimeError, toPayload } = require('./errors.js');
const { Invoker } = require('./invoke.js');
const { loadHandler } = require('./load.js');
const { patchConsole } = require('./log.js');
const { installGlobal } = require('./stream.js');

const CALLBACK_WARNING =
  'AWS Lambda plans to remove support for callback-based function handlers starting with Node.js 24. You will need to update this function to use an async handler to use Node.js 24 or later. For more information and to provide feedback on this change, see https://github.com/aws/aws-lambda-nodejs-runtime-interface-client/issues/137. To disable this warning, set the AWS_LAMBDA_NODEJS_DISABLE_CALLBACK_WARNING environment variable.';
const CALLBACK_ERROR =
  'ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24. You need to modify this function to use a supported handler signature to use Node.js 24 or later. For more information see https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.';

const { env } = process;
const legacy = parseInt(process.versions.node, 10) < 24;

// The connection is made while the function's code loads. It does not keep the
// process going: where the code waits for what never comes, the process ends
// as Node.js does then, with code 13.
const client = new RuntimeClient(env.AWS_LAMBDA_RUNTIME_API);
client.hold(false);
process.exitCode = 13;

let logError;
let report = (err) => client.initError(toPayload(err));

function crash(words, err, code) {
  logError(words, err);
  const told = report;
  report = () => Promise.resolve(); // what fails from now on comes too late
  told(err).finally(() => process.exit(code));
}

function checkCallback(handler) {
  const streams = handler[Symbol.for('aws.lambda.runtime.handler.streaming')];
  if (streams || handler.length < 3) return;
  if (!legacy) throw new RuntimeError('CallbackHandlerDeprecated', CALLBACK_ERROR);
  const isAsync = handler.constructor?.name === 'AsyncFunction';
  if (handler.length === 3 && !isAsync && env.AWS_LAMBDA_NODEJS_DISABLE_CALLBACK_WARNING === undefined) {
    console.warn(CALLBACK_WARNING);
  }
}

// Before this the process knows nothing of the function.
function main() {
  logError = patchConsole(env);
  installGlobal(env);
  const snapshot = env._LAPWING_RESTORABLE === undefined ? null : new (require('./snapshot.js').Snapshot)();
  delete env._LAPWING_RESTORABLE;

  process.on('uncaughtException', (err) => crash('Uncaught Exception', err, 129));
  process.on('unhandledRejection', (reason, promise) => {
    const err = new RuntimeError('UnhandledPromiseRejection', String(reason));
    err.reason = reason;
    err.promise = promise;
    crash('Unhandled Promise Rejection', err, 128);
  });

  loadHandler(env.LAMBDA_TASK_ROOT ?? '/var/task', env._HANDLER ?? '').then(
    async (handler) => {
      checkCallback(handler);
      if (snapshot) {
        report = () => Promise.resolve(); // the connection waits, and nobody for the error
        await snapshot.wait(client);
      }
      const invoker = new Invoker({ client, handler, logError, legacy, env });
      report = (err) => invoker.crash(err);
      process.exitCode = undefined;
      invoker.start();
    },
  ).catch((err) => crash(legacy ? 'Uncaught Exception' : 'Init Error', err, legacy ? 129 : 1));
}

if (env._LAPWING_BLANK === undefined) main();
else require('./blank.js').fill(client).then(main);
