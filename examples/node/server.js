// A live poll: vote, and see everybody's votes arrive (server-sent events).
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Poll } from './poll.js';

const page = readFileSync(new URL('./page.html', import.meta.url));

export function makeServer(poll) {
  const streams = new Set();
  const server = createServer((req, res) => {
    const url = new URL(req.url, 'http://localhost');
    switch (`${req.method} ${url.pathname}`) {
      case 'GET /':
        res.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(page);
        return;
      case 'GET /healthz':
        res.writeHead(200).end('ok\n');
        return;
      case 'GET /results': {
        res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
        const send = (results) => res.write(`data: ${JSON.stringify({ question: poll.question, results })}\n\n`);
        send(poll.results);
        const stop = poll.watch(send);
        streams.add(res);
        res.on('close', () => { stop(); streams.delete(res); });
        return;
      }
      case 'POST /vote':
        req.resume();
        res.writeHead(poll.vote(url.searchParams.get('for')) ? 204 : 400).end();
        return;
      default:
        res.writeHead(404).end('not found\n');
    }
  });
  // Streams never end by themselves, so a close ends them; browsers come back.
  server.shutdown = () => new Promise((done) => {
    server.close(done);
    for (const stream of streams) stream.end();
    server.closeIdleConnections();
  });
  return server;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const question = process.env.QUESTION ?? 'Which battery did you miss most?';
  const options = (process.env.OPTIONS ?? 'DNS,TLS,Registry,Backups').split(',').map((s) => s.trim()).filter(Boolean);
  const port = Number(process.env.PORT ?? 8080);
  const server = makeServer(new Poll(question, options));
  server.listen(port, () => console.log(`poll is open on port ${port}`));
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.once(signal, async () => {
      console.log('poll closes');
      await server.shutdown();
    });
  }
}
