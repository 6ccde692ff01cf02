// Plivo's Node SDK, controlled by a test. One of its files contains Plivo's address for voice
// requests. Only that address is replaced when the file is loaded (docs/sdk.md); installed files are
// not changed.
//
// Arguments: base URL, auth id, auth token. NODE_PATH names the folder that contains the package.
// Reads one JSON array per line, ["calls.create", [...]]: a method of the client and its arguments.
// Prints the result or the error.
'use strict';
const fs = require('fs');
const readline = require('readline');
const Module = require('module');

const [base, authId, authToken] = process.argv.slice(2);
const usual = Module._extensions['.js'];
Module._extensions['.js'] = (module, file) => {
  if (!/[\\/]plivo[\\/]dist[\\/]rest[\\/]axios\.js$/.test(file)) return usual(module, file);
  const text = fs.readFileSync(file, 'utf8');
  module._compile(text.split('https://api.plivo.com/v1/Account/').join(`${base}/v1/Account/`), file);
};
const plivo = require('plivo');
const client = new plivo.Client(authId, authToken, { url: `${base}/v1/Account/${authId}` });

/** What an SDK object holds, without its client. */
const plain = (value) => JSON.parse(JSON.stringify(value ?? null, (name, one) => {
  if (name === 'client' || typeof one === 'function') return undefined;
  // A list has its page metadata beside the objects.
  return Array.isArray(one) && one.meta ? { objects: [...one], meta: one.meta } : one;
}));

const run = (what, args) => {
  const path = what.split('.');
  const method = path.pop();
  const target = path.reduce((at, name) => at[name], client);
  return target[method](...(args ?? []));
};

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [what, args] = JSON.parse(line);
    let told;
    try {
      told = { ok: plain(await run(what, args)) };
    } catch (error) {
      told = { error: error?.constructor?.name ?? 'Error', text: String(error?.message ?? error) };
    }
    console.log(JSON.stringify(told));
  }
  process.exit(0);
})();
