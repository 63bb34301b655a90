// Addresses that people and search engines can read, for a site that has others.
"use strict";

const names = { 42: "red-runner", 7: "blue-hiker" };

// origin-request: a readable address becomes the site's own, and an old address is
// redirected for good. Both are cached: the function runs once for each.
exports.rewrite = async (event) => {
  const { request } = event.Records[0].cf;
  const old = /^\/product\/(\d+)$/.exec(request.uri);
  if (old && names[old[1]]) {
    return {
      status: "301",
      statusDescription: "Moved Permanently",
      headers: {
        location: [{ key: "Location", value: `/shoes/${names[old[1]]}-${old[1]}` }],
        "cache-control": [{ key: "Cache-Control", value: "max-age=3600" }],
      },
    };
  }
  const readable = /^\/shoes\/[a-z-]+-(\d+)$/.exec(request.uri);
  if (readable) {
    request.headers["x-address"] = [{ key: "X-Address", value: request.uri }];
    request.uri = "/product.html";
    request.querystring = `id=${readable[1]}`;
  }
  return request;
};

// origin-response: headers that are cached with the page. The canonical address is
// the readable one.
exports.describe = async (event) => {
  const { request, response } = event.Records[0].cf;
  const address = request.headers["x-address"]?.[0].value;
  if (address && response.status === "200") {
    response.headers.link = [{ key: "Link", value: `<${address}>; rel="canonical"` }];
  }
  response.headers["strict-transport-security"] = [{ key: "Strict-Transport-Security", value: "max-age=63072000" }];
  return response;
};
