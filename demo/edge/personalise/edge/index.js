// Content by language and by place.
"use strict";

const languages = ["en", "de", "fr"]; // the first is for everybody else

// preferred returns the first of our languages that an Accept-Language header
// asks for, by its weights.
function preferred(header) {
  return header.split(",")
    .map((part) => {
      const [tag, ...params] = part.trim().toLowerCase().split(";");
      const q = params.map((p) => p.trim()).find((p) => p.startsWith("q="));
      return { language: tag.split("-")[0], weight: q ? Number(q.slice(2)) : 1 };
    })
    .sort((a, b) => b.weight - a.weight)
    .map((w) => w.language)
    .find((language) => languages.includes(language)) ?? languages[0];
}

// viewer-request: the language becomes part of the path, and so of the cache key:
// there are as many variants as languages, not as header values.
exports.language = async (event) => {
  const { request } = event.Records[0].cf;
  if (request.uri === "/") {
    const header = request.headers["accept-language"]?.[0].value ?? "";
    request.uri = `/${preferred(header)}/`;
  }
  return request;
};

// origin-request: the country of the viewer, which is part of the cache key here,
// chooses a file. It runs once a country, and not for what is cached.
const countries = ["ch", "de"];

exports.country = async (event) => {
  const { request } = event.Records[0].cf;
  const country = request.headers["cloudfront-viewer-country"]?.[0].value.toLowerCase();
  request.uri = `/offers/${countries.includes(country) ? country : "world"}.json`;
  return request;
};
