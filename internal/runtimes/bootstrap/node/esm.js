'use strict';
// ES modules are found in layers too: Lambda's runtimes look for what they
// import where NODE_PATH says, which Node.js by itself does for require alone.

const fs = require('fs');
const Module = require('module');
const path = require('path');
const { pathToFileURL } = require('url');

// A module that is imported by its name and not found is looked for as if a
// module beside each node_modules directory of NODE_PATH had imported it.
function lookElsewhere(err, specifier) {
  return err?.code === 'ERR_MODULE_NOT_FOUND' && !/^[./#]|^[a-z]+:/.test(specifier);
}

function hook(parents) {
  return (specifier, context, next) => {
    try {
      return next(specifier, context);
    } catch (err) {
      if (!lookElsewhere(err, specifier)) throw err;
      for (const parentURL of parents) {
        try {
          return next(specifier, { ...context, parentURL });
        } catch {
          // not there either
        }
      }
      throw err;
    }
  };
}

// hook for Node.js before 22.15: it is text, for it runs in a thread of its own.
const asyncHook = `
  const lookElsewhere = ${lookElsewhere};
  let parents;
  export function initialize(data) { parents = data; }
  export async function resolve(specifier, context, next) {
    try {
      return await next(specifier, context);
    } catch (err) {
      if (!lookElsewhere(err, specifier)) throw err;
      for (const parentURL of parents) {
        try {
          return await next(specifier, { ...context, parentURL });
        } catch {
          // not there either
        }
      }
      throw err;
    }
  }`;

// Where no such directory exists, which is where a function has no layers,
// nothing is done and costs nothing.
function importFromNodePath(nodePath) {
  const parents = (nodePath ?? '')
    .split(':')
    .filter((dir) => dir.endsWith('/node_modules') && fs.existsSync(dir))
    .map((dir) => pathToFileURL(path.join(path.dirname(dir), 'index.mjs')).href);
  if (parents.length === 0) return;
  if (Module.registerHooks) {
    Module.registerHooks({ resolve: hook(parents) });
    return;
  }
  Module.register(`data:text/javascript,${encodeURIComponent(asyncHook)}`, { data: parents });
}

module.exports = { importFromNodePath };
