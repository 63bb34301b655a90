// Renders a report of the sales in a CSV file that lies in S3. The SDK client
// has no configuration at all: endpoint, region and the role's credentials are
// in the environment, as on AWS.
import { S3Client, GetObjectCommand, PutObjectCommand } from "@aws-sdk/client-s3";

const s3 = new S3Client({});

export const handler = async (event, context) => {
  const { bucket, key } = event;
  console.log("reading", `s3://${bucket}/${key}`);
  const object = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key }));
  const [, ...rows] = (await object.Body.transformToString()).trim().split("\n");

  const revenue = new Map();
  for (const row of rows) {
    const [, product, units, price] = row.split(",");
    revenue.set(product, (revenue.get(product) ?? 0) + Number(units) * Number(price));
  }
  const products = [...revenue].sort((a, b) => b[1] - a[1]);
  const total = products.reduce((sum, [, amount]) => sum + amount, 0);
  const most = products[0][1];

  const lines = products.map(([product, amount]) =>
    `${product.padEnd(10)} ${"█".repeat(Math.round((amount / most) * 24)).padEnd(24)} ${amount.toFixed(2).padStart(10)}`);
  const report = [...lines, `${"total".padEnd(35)} ${total.toFixed(2).padStart(10)}`].join("\n");

  const reportKey = key.replace(/\.csv$/, ".txt");
  await s3.send(new PutObjectCommand({ Bucket: bucket, Key: reportKey, Body: report, ContentType: "text/plain; charset=utf-8" }));
  console.log("wrote", `s3://${bucket}/${reportKey}`, `with ${context.getRemainingTimeInMillis()} ms to spare`);
  return { rows: rows.length, total, report: reportKey };
};
