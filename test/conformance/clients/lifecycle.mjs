// The life of a function through the AWS SDK for JavaScript v3. Needs NAME,
// RUNTIME, ROLE, V1 and V2.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as L from "@aws-sdk/client-lambda";

const { NAME, RUNTIME, ROLE, V1, V2 } = process.env;
const client = new L.LambdaClient({});
const wait = { client, maxWaitTime: 300, minDelay: 1, maxDelay: 2 };
const FunctionName = NAME;

async function invoke(Qualifier) {
  const r = await client.send(new L.InvokeCommand({ FunctionName, Qualifier, Payload: JSON.stringify({ who: "js" }) }));
  assert.equal(r.FunctionError, undefined);
  const answer = JSON.parse(r.Payload.transformToString());
  assert.deepEqual(answer.event, { who: "js" });
  return answer.version;
}

await client.send(new L.CreateFunctionCommand({
  FunctionName, Runtime: RUNTIME, Handler: "index.handler", Role: ROLE, MemorySize: 1769, Timeout: 60, Code: { ZipFile: readFileSync(V1) },
}));
await L.waitUntilFunctionActiveV2(wait, { FunctionName });
assert.equal(await invoke("$LATEST"), 1);
assert.equal((await client.send(new L.PublishVersionCommand({ FunctionName }))).Version, "1");
await client.send(new L.UpdateFunctionCodeCommand({ FunctionName, ZipFile: readFileSync(V2) }));
await L.waitUntilFunctionUpdatedV2(wait, { FunctionName });
assert.equal(await invoke("$LATEST"), 2);
assert.equal(await invoke("1"), 1);
await client.send(new L.CreateAliasCommand({ FunctionName, Name: "live", FunctionVersion: "1" }));
assert.equal(await invoke("live"), 1);
const names = [];
for await (const page of L.paginateListFunctions({ client }, {})) names.push(...page.Functions.map((f) => f.FunctionName));
assert.ok(names.includes(NAME));

const streamed = await client.send(new L.InvokeWithResponseStreamCommand({ FunctionName, Payload: JSON.stringify({ who: "stream" }) }));
let text = "";
for await (const e of streamed.EventStream) if (e.PayloadChunk) text += new TextDecoder().decode(e.PayloadChunk.Payload);
assert.deepEqual(JSON.parse(text).event, { who: "stream" });

await client.send(new L.DeleteFunctionCommand({ FunctionName }));
await assert.rejects(client.send(new L.GetFunctionCommand({ FunctionName })), { name: "ResourceNotFoundException" });
console.log("OK");
