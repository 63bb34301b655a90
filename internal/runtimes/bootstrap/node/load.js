'use strict';
// Finds and loads the function's handler, named as file.export.

const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');
const { pathToFileURL } = require('url');
const { RuntimeError } = require('./errors.js');
const { importFromNodePath } = require('./esm.js');

async function loadHandler(root, name) {
  if (name.includes('..')) {
    throw new RuntimeError(
      'MalformedHandlerName',
      `'${name}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`,
    );
  }
  const base = path.basename(name);
  const dir = name.slice(0, name.indexOf(base));
  const dot = base.indexOf('.');
  if (dot < 0) throw new RuntimeError('MalformedHandlerName', 'Bad handler');

  let app;
  try {
    app = await loadModule(root, dir, base.slice(0, dot));
  } catch (err) {
    if (err instanceof SyntaxError) {
      throw withStack(new RuntimeError('UserCodeSyntaxError', String(err)), err);
    }
    if (err?.code === 'MODULE_NOT_FOUND') throw new RuntimeError('ImportModuleError', String(err));
    throw err;
  }
  let handler = app;
  for (const key of base.slice(dot + 1).split('.')) handler = handler && handler[key];
  if (!handler) throw new RuntimeError('HandlerNotFound', `${name} is undefined or not exported`);
  if (typeof handler !== 'function') throw new RuntimeError('HandlerNotFound', `${name} is not a function`);
  return handler;
}

// A syntax error's stack names file and line first.
function withStack(to, from) {
  if (typeof from.stack === 'string') {
    const frames = to.stack.split('\n').slice(1);
    to.stack = [`${to.name}: ${to.message}`, ...from.stack.split('\n').slice(0, 4), ...frames].join('\n');
  }
  return to;
}

// The order in which AWS tries: the name as it stands, .js as CommonJS or ES
// module by the nearest package.json, .mjs, .cjs, then Node's own resolution.
async function loadModule(root, dir, name) {
  const file = path.resolve(root, dir, name);
  const require = createRequire(path.join(root, 'index.js'));
  const load = require;
  const loadESM = (f) => {
    importFromNodePath(process.env.NODE_PATH);
    return import(pathToFileURL(f).href);
  };

  if (isFile(file)) return load(file);
  const js = `${file}.js`;
  if (isFile(js)) return isESM(path.dirname(js)) ? loadESM(js) : load(js);
  const mjs = `${file}.mjs`;
  if (isFile(mjs)) return loadESM(mjs);
  const cjs = `${file}.cjs`;
  if (isFile(cjs)) return load(cjs);
  return load(require.resolve(name, { paths: [root, path.join(root, dir)] }));
}

function isFile(f) {
  return fs.statSync(f, { throwIfNoEntry: false })?.isFile() ?? false;
}

// Whether the nearest package.json says "type": "module".
function isESM(dir) {
  for (;;) {
    if (dir.endsWith('/node_modules')) return false;
    let text;
    try {
      text = fs.readFileSync(path.join(dir, 'package.json'), 'utf8');
    } catch {
      // none here
    }
    if (text !== undefined) {
      try {
        return JSON.parse(text)?.type === 'module';
      } catch (err) {
        console.warn(`${dir}/package.json cannot be read, it will be ignored for ES module detection purposes.`, err);
        return false;
      }
    }
    if (dir === '/') return false;
    dir = path.dirname(dir);
  }
}

module.exports = { loadHandler };
