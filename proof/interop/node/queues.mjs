// What the tests run: node queues.mjs vectors|calls|send|wake SOCKET [ROUNDS]. It prints one line of JSON.
import { readFileSync } from 'node:fs'
import Redis from 'iovalkey'
import { FullError, Producer, QueueError, keys, message, partitionOf } from '../../../docs/recipes/queue/recipe.mjs'

const [, , what, socket, rounds] = process.argv
const client = new Redis(socket, { commandTimeout: 10_000 })
const wrong = []
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b)

async function vectors() {
  const v = JSON.parse(readFileSync(new URL('../../../docs/recipes/queue/vectors.json', import.meta.url), 'utf8'))
  const declare = readFileSync(new URL('../../../queue/declare.lua', import.meta.url), 'utf8')
  let steps = 0
  for (const k of v.keys) if (!same(keys('fr', k.name, k.partition), k.keys)) wrong.push(`${k.name}: ${keys('fr', k.name, k.partition)}`)
  for (const p of v.places) if (partitionOf(p.where, p.parts) !== p.partition) wrong.push(`${p.where} in ${p.parts}: ${partitionOf(p.where, p.parts)}`)
  for (const q of v.queues) {
    const check = async (all) => {
      for (const { command: [name, ...args], reply } of all) {
        const got = await client.call(name, ...args)
        if (!same(got, reply)) wrong.push(`${q.says}: ${name} ${args}: ${JSON.stringify(got)}`)
      }
    }
    await client.flushall()
    for (let i = 0; i < q.parts; i++) await client.eval(declare, 2, ...keys('fr', q.name, i), ...q.declare)
    await check(q.before ?? [])
    const producer = new Producer(client, q.name)
    Object.assign(producer, { fifo: q.fifo, parts: q.parts })
    for (const s of q.steps) {
      const args = s.messages.map((m) => {
        const options = { attributes: m.attributes, group: m.group, dedupId: m.dedup_id, delay: m.delay, unique: m.unique, uniqueFor: m.unique_for }
        const { arg, where } = message(m.id, producer, m.body_base64 ? Buffer.from(m.body_base64, 'base64') : m.body, options)
        const want = m.arg_base64 ? Buffer.from(m.arg_base64, 'base64') : Buffer.from(m.arg)
        if (!arg.equals(want)) wrong.push(`${q.says}, ${m.id}: ${arg}`)
        if (where && partitionOf(where, q.parts) !== s.partition) wrong.push(`${q.says}, ${m.id}: partition ${partitionOf(where, q.parts)}`)
        return arg
      })
      const got = await producer.run(s.partition, args, s.now)
      if (!same(got, s.reply)) wrong.push(`${q.says}, step ${steps}: ${got}`)
      steps++
    }
    await check(q.after)
  }
  return { keys: v.keys.length, steps, wrong }
}

// send sends numbers in groups, each twice: the second one is a duplicate.
async function send() {
  const producer = new Producer(client, 'shared')
  for (let i = 0; i < rounds; i++) {
    const m = (g) => ({ body: `node ${g} ${i}`, group: `g${g}`, dedupId: `node ${g} ${i}`, attributes: { from: 'node' } })
    const { body, ...options } = m(0)
    const sent = [await producer.send(body, options), ...await producer.sendBatch([m(1), m(2), m(3)])]
    const again = [...await producer.sendBatch([m(0), m(1), m(2)]), await producer.send(m(3).body, { group: 'g3', dedupId: m(3).dedupId })]
    sent.forEach((s, n) => {
      if (s.error || s.duplicate || !(s.sequence > 0) || !again[n].duplicate || again[n].id !== s.id) wrong.push(JSON.stringify([s, again[n]]))
    })
  }
  return { turns: 4 * rounds, wrong }
}

async function wake() {
  const sent = await new Producer(client, 'waited').send(Buffer.from([0, 255]))
  return { turns: sent.duplicate ? 0 : 1, wrong }
}

// calls goes through what the others leave out.
async function calls() {
  const small = new Producer(client, 'small') // room for two messages
  const full = await small.sendBatch([{ body: '1' }, { body: '2' }, { body: '3' }])
  if (full[1].error || !full[0].id || !(full[2].error instanceof FullError)) wrong.push(JSON.stringify(full))
  const many = new Producer(client, 'many', { maxBody: 400_000 }) // standard, three partitions
  const large = await many.sendBatch([...Array(300).keys()].map((i) => ({ body: `${i}` })).concat(Array(5).fill({ body: 'x'.repeat(400_000) })))
  if (large.length !== 305 || large.some((s) => s.error || s.duplicate || s.sequence !== 0) || new Set(large.map((s) => s.id)).size !== 305) wrong.push('many')
  const fails = async (name, f, type) => {
    try {
      await f()
      wrong.push(`${name}: accepted`)
    } catch (err) {
      if (!(err instanceof type)) wrong.push(`${name}: ${err}`)
    }
  }
  await fails('full', () => small.send('4'), FullError)
  await fails('no queue', () => new Producer(client, 'missing').send('x'), QueueError)
  const deleted = new Producer(client, 'deleted')
  Object.assign(deleted, { fifo: false, parts: 1 })
  await fails('deleted', () => deleted.send('x'), QueueError)
  const fifo = new Producer(client, 'fifo')
  await fails('no group', () => fifo.send('x'), QueueError)
  await fails('delay', () => fifo.send('x', { group: 'g', delay: 5 }), QueueError)
  for (const [name, f] of Object.entries({
    'no body': () => many.send(), 'a number': () => many.send(5), 'half a pair': () => many.send('\ud800'), long: () => many.send('x'.repeat(400_001)),
    group: () => many.send('x', { group: 'x'.repeat(129) }), attribute: () => many.send('x', { attributes: { 'fr.x': '1' } }),
    'no name': () => many.send('x', { attributes: { '': '1' } }), 'many attributes': () => many.send('x', { attributes: Object.fromEntries([...Array(101).keys()].map((i) => ['a' + i, ''])) }),
    delay: () => many.send('x', { delay: 1.5 }), past: () => many.send('x', { delay: -1 }), 'unique for': () => many.send('x', { uniqueFor: 5 }),
    option: () => many.send('x', { dedup_id: 'd' }), prefix: () => new Producer(client, 'x', { prefix: 'a{b' }), name: () => new Producer(client, ''),
    'long name': () => new Producer(client, 'x'.repeat(257)),
  })) {
    await fails(name, f, Error)
  }
  await client.script('FLUSH')
  await many.send('x') // sends the script again
  await client.config('SET', 'maxmemory', '1')
  await fails('a full server', () => many.send('x'), Error)
  return { wrong: wrong.map(String) }
}

console.log(JSON.stringify(await { vectors, send, wake, calls }[what]()))
client.disconnect()
