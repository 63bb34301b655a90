'use strict';

process.on('SIGTERM', () => {
  console.log('SIGTERM seen');
  process.exit(0);
});

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

exports.handler = async (event, context) => {
  switch (event.op) {
    case 'context':
      return {
        id: context.awsRequestId, arn: context.invokedFunctionArn, name: context.functionName, version: context.functionVersion,
        memory: Number(context.memoryLimitInMB), group: context.logGroupName, stream: context.logStreamName,
        left: context.getRemainingTimeInMillis(),
      };
    case 'fail':
      throw new RangeError('as told');
    case 'log':
      process.stdout.write('printed\n');
      console.warn('logged\nin lines');
      return null;
    case 'sleep':
      await pause(60_000);
  }
  return event.value;
};

exports.callback = (event, context, callback) => callback(null, event.value);

exports.stream = awslambda.streamifyResponse(async (event, stream) => {
  stream.write('first,');
  await pause(1000);
  stream.end('last');
});
