// A/B test by cookie: half of the visitors see the red bag, half the blue one, and
// who saw one sees it again.
"use strict";

const colours = ["red", "blue"];

// chosen returns the colour that the visitor's cookies name, if any. Browsers may
// split cookies over several header fields.
function chosen(headers) {
  for (const { value } of headers.cookie ?? []) {
    for (const cookie of value.split(";")) {
      const [name, colour] = cookie.trim().split("=");
      if (name === "bag" && colours.includes(colour)) return colour;
    }
  }
}

// viewer-request: one picture for everybody becomes one of two, which are the only
// ones in the cache. A header hands the choice on to viewer-response.
exports.choose = async (event) => {
  const { request } = event.Records[0].cf;
  let colour = chosen(request.headers);
  if (!colour) {
    colour = colours[Math.floor(Math.random() * colours.length)];
    request.headers["x-bag"] = [{ key: "X-Bag", value: colour }];
  }
  request.uri = `/images/bag-${colour}.svg`;
  return request;
};

// viewer-response: who was new gets the cookie. What is added here is not cached.
exports.remember = async (event) => {
  const { request, response } = event.Records[0].cf;
  const colour = request.headers["x-bag"]?.[0].value;
  if (colour) {
    response.headers["set-cookie"] = [{ key: "Set-Cookie", value: `bag=${colour}; Path=/; Max-Age=2592000; SameSite=Lax` }];
  }
  // The two look the same to the browser: it is to ask again each time.
  response.headers["cache-control"] = [{ key: "Cache-Control", value: "no-cache" }];
  return response;
};
