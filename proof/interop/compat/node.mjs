// What the tests run: node node.mjs ioredis|node-redis|iovalkey HOST PORT TLSPORT CAFILE. It prints one line of JSON.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../node/package.json', import.meta.url));
const [, , which, host, port, tlsPort, ca] = process.argv;
const results = {};
const close = [];

// One client is spoken to in one way: a function that sends a command and its arguments.
async function connect(options) {
  if (which === 'node-redis') {
    const { createClient } = require('redis');
    const client = createClient({
      RESP: options.resp ?? 2,
      socket: options.tls
        ? { host: 'localhost', port: Number(tlsPort), tls: true, ca: readFileSync(ca), connectTimeout: 5000 }
        : { host, port: Number(port), connectTimeout: 5000 },
    });
    client.on('error', () => {});
    await client.connect();
    close.push(() => client.destroy());
    return client;
  }
  const Redis = which === 'ioredis' ? require('ioredis').Redis : require('iovalkey');
  const client = new Redis({
    host: options.tls ? 'localhost' : host, port: Number(options.tls ? tlsPort : port), lazyConnect: true, maxRetriesPerRequest: 1, connectTimeout: 5000,
    ...(options.tls ? { tls: { ca: readFileSync(ca) } } : {}), ...(options.resp ? { protocol: options.resp } : {}),
  });
  client.on('error', () => {});
  await client.connect();
  close.push(() => client.disconnect());
  return client;
}

function same(got, want, what) {
  if (JSON.stringify(got) !== JSON.stringify(want)) throw new Error(`${what}: ${JSON.stringify(got)}, not ${JSON.stringify(want)}`);
}

async function feature(name, run) {
  try {
    results[name] = (await run()) ?? 'yes';
  } catch (error) {
    results[name] = String(error.message ?? error);
  }
}

const script = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
const node = which === 'node-redis';

try {
  const c = await connect({});
  await feature('strings', async () => {
    same(await (node ? c.set('s', 'v', { EX: 300 }) : c.set('s', 'v', 'EX', 300)), 'OK', 'SET EX');
    same(await c.get('s'), 'v', 'GET');
    same(await (node ? c.set('lock', 'me', { PX: 5000, NX: true }) : c.set('lock', 'me', 'PX', 5000, 'NX')), 'OK', 'SET NX');
    same(await (node ? c.set('lock', 'you', { PX: 5000, NX: true }) : c.set('lock', 'you', 'PX', 5000, 'NX')), null, 'a second SET NX');
    same(await c.incr('n'), 1, 'INCR');
    same(Number(await c.expire('n', 60)), 1, 'EXPIRE');
  });
  await feature('hashes', async () => {
    same(await (node ? c.hSet('h', { id: '1', name: 'Alice' }) : c.hset('h', { id: '1', name: 'Alice' })), 2, 'HSET');
    same(await (node ? c.hGet('h', 'name') : c.hget('h', 'name')), 'Alice', 'HGET');
    same(await (node ? c.hmGet('h', ['id', 'no']) : c.hmget('h', 'id', 'no')), ['1', null], 'HMGET');
    same({ ...(await (node ? c.hGetAll('h') : c.hgetall('h'))) }, { id: '1', name: 'Alice' }, 'HGETALL');
  });
  await feature('lists', async () => {
    same(await (node ? c.lPush('l', 'job') : c.lpush('l', 'job')), 1, 'LPUSH');
    const got = await (node ? c.brPop('l', 1) : c.brpop('l', 1));
    same(node ? got.element : got[1], 'job', 'BRPOP');
    same(await (node ? c.brPop('l', 0.01) : c.brpop('l', 0.01)), null, 'an empty BRPOP');
  });
  await feature('streams', async () => {
    await (node ? c.xGroupCreate('x', 'g', '0', { MKSTREAM: true }) : c.xgroup('CREATE', 'x', 'g', '0', 'MKSTREAM'));
    const id = await (node ? c.xAdd('x', '*', { order: '9876' }) : c.xadd('x', '*', 'order', '9876'));
    const got = await (node ? c.xReadGroup('g', 'a', { key: 'x', id: '>' }, { COUNT: 10, BLOCK: 100 }) : c.xreadgroup('GROUP', 'g', 'a', 'COUNT', 10, 'BLOCK', 100, 'STREAMS', 'x', '>'));
    same(node ? got[0].messages[0].id : got[0][1][0][0], id, 'XREADGROUP');
    same(Number((await (node ? c.xPending('x', 'g') : c.xpending('x', 'g')))[node ? 'pending' : 0]), 1, 'XPENDING');
    same(await (node ? c.xAck('x', 'g', id) : c.xack('x', 'g', id)), 1, 'XACK');
  });
  await feature('sorted sets', async () => {
    const reply = node
      ? await c.multi().zRemRangeByScore('z', '-inf', 5).zAdd('z', { score: 10, value: 'a' }).zCard('z').pExpire('z', 60000).exec()
      : (await c.pipeline().zremrangebyscore('z', '-inf', 5).zadd('z', 10, 'a').zcard('z').pexpire('z', 60000).exec()).map((r) => r[1]);
    same(reply.map(Number), [0, 1, 1, 1], 'the pipeline');
  });
  await feature('scripts', async () => {
    const run = (token) => (node ? c.eval(script, { keys: ['lock'], arguments: [token] }) : c.eval(script, 1, 'lock', token));
    same(await run('you'), 0, 'EVAL');
    same(await run('me'), 1, 'EVAL');
    const sha = await (node ? c.scriptLoad('return ARGV[1]') : c.script('LOAD', 'return ARGV[1]'));
    same(await (node ? c.evalSha(sha, { keys: ['k'], arguments: ['x'] }) : c.evalsha(sha, 1, 'k', 'x')), 'x', 'EVALSHA');
  });
  await feature('pub/sub', async () => {
    const sub = await connect({});
    const heard = new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error('no message')), 5000).unref();
      if (node) sub.subscribe('news', resolve).then(() => c.publish('news', 'hello'), reject);
      else {
        sub.on('message', (channel, message) => resolve(message));
        sub.subscribe('news').then(() => c.publish('news', 'hello'), reject);
      }
    });
    same(await heard, 'hello', 'the message');
  });
  await feature('RESP3', async () => {
    if (which === 'iovalkey') return 'not in it';
    const three = await connect({ resp: 3 });
    await (node ? three.hSet('r', { a: '1' }) : three.hset('r', { a: '1' }));
    same({ ...(await (node ? three.hGetAll('r') : three.hgetall('r'))) }, { a: '1' }, 'HGETALL');
    const info = await (node ? three.sendCommand(['CLIENT', 'INFO']) : three.call('CLIENT', 'INFO'));
    if (!/ resp=3/.test(String(info))) throw new Error(`the connection is: ${info}`);
  });
  await feature('TLS', async () => {
    const secure = await connect({ tls: true });
    same(await secure.ping(), 'PONG', 'PING');
  });
} catch (error) {
  results.error = String(error.message ?? error);
}
for (const end of close) end();
const name = { ioredis: 'ioredis', 'node-redis': 'redis', iovalkey: 'iovalkey' }[which];
const version = JSON.parse(readFileSync(new URL(`../node/node_modules/${name}/package.json`, import.meta.url))).version;
console.log(JSON.stringify({ version, results }));
