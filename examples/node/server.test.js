import test from 'node:test';
import assert from 'node:assert/strict';
import { Poll } from './poll.js';
import { makeServer } from './server.js';

test('a vote reaches those who watch', async () => {
  const server = makeServer(new Poll('Tea?', ['yes', 'no']));
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  const base = `http://127.0.0.1:${server.address().port}`;

  const stream = (await fetch(`${base}/results`)).body.getReader();
  const next = async () => JSON.parse(new TextDecoder().decode((await stream.read()).value).slice(6));
  assert.deepEqual((await next()).results, [['yes', 0], ['no', 0]]);

  assert.equal((await fetch(`${base}/vote?for=yes`, { method: 'POST' })).status, 204);
  assert.deepEqual((await next()).results, [['yes', 1], ['no', 0]]);
  assert.equal((await fetch(`${base}/vote?for=maybe`, { method: 'POST' })).status, 400);
  assert.equal((await fetch(`${base}/healthz`)).status, 200);
  assert.equal((await fetch(`${base}/nothing`)).status, 404);

  await server.shutdown();
  assert.equal((await stream.read()).done, true);
});
