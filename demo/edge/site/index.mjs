// A small web site behind a function URL: the origin of the examples. It serves
// the files below public/<example>/, makes product pages from a template, and
// signs visitors in. It knows nothing of what happens at the edge.
import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";

const root = join(import.meta.dirname, "public", process.env.EXAMPLE);
const types = { ".html": "text/html; charset=utf-8", ".svg": "image/svg+xml", ".css": "text/css", ".json": "application/json" };
const products = JSON.parse(await readFile(join(import.meta.dirname, "products.json"), "utf8"));

const page = (statusCode, body, headers = {}) => ({ statusCode, body, headers: { "content-type": types[".html"], ...headers } });

async function file(path) {
  const name = path.endsWith("/") ? path + "index.html" : path;
  try {
    const body = await readFile(join(root, normalize(name)), "utf8");
    return page(200, body, { "content-type": types[extname(name)] ?? "text/plain", "cache-control": "max-age=300" });
  } catch {
    return page(404, "<!doctype html><title>Not found</title><h1>There is no such page</h1>");
  }
}

async function product(id) {
  const p = products[id];
  if (!p) return page(404, "<!doctype html><title>Not found</title><h1>There is no such product</h1>");
  const html = await readFile(join(root, "product.html"), "utf8");
  return page(200, html.replace(/\{(\w+)\}/g, (_, field) => p[field]), { "cache-control": "max-age=300" });
}

// A token is what it says, and a signature that the edge can check. The demo takes
// any name; a real site would ask for more than that.
function signIn(form) {
  const claims = Buffer.from(JSON.stringify({ name: form.get("name") || "visitor", expires: Date.now() + 3600_000 })).toString("base64url");
  const signature = createHmac("sha256", process.env.SECRET).update(claims).digest("base64url");
  const back = form.get("back") ?? "/";
  const location = back.startsWith("/") && !back.startsWith("//") ? back : "/";
  return page(303, "", { location, "cache-control": "no-store", "set-cookie": `session=${claims}.${signature}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600` });
}

export const handler = async (event) => {
  const { method, path } = event.requestContext.http;
  const query = new URLSearchParams(event.rawQueryString);
  if (path === "/product.html") return product(query.get("id"));
  if (path === "/login" && method === "POST") {
    const body = event.isBase64Encoded ? Buffer.from(event.body, "base64").toString() : event.body;
    return signIn(new URLSearchParams(body ?? ""));
  }
  if (path === "/login") return file("/login.html");
  return file(path);
};
