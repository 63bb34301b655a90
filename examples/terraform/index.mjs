export const handler = async (event) => ({
  statusCode: 200,
  body: `${process.env.GREETING}, ${event.queryStringParameters?.name ?? "world"}!\n`,
});
