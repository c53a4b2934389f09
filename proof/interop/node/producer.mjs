// What the tests run: node producer.mjs vectors | send SOCKET NAME N. It prints one line of JSON.
import { readFileSync } from 'node:fs'
import Redis from 'iovalkey'
import { argument, NoQueue, partition, Producer } from '../../../docs/recipes/queue/recipe.mjs'

const [, , what, socket, name, n] = process.argv
const wrong = []
let steps = 0
const check = (about, got, want) => {
  steps++
  if (JSON.stringify(got) !== JSON.stringify(want)) wrong.push(`${about}: ${JSON.stringify(got)}, want ${JSON.stringify(want)}`)
}

if (what === 'vectors') {
  const v = JSON.parse(readFileSync(new URL('../../../docs/recipes/queue/vectors.json', import.meta.url), 'utf8'))
  for (const k of v.keys) check(k.name, new Producer(null, k.name).keys(k.partition).map(String), k.keys)
  for (const p of v.partitions) check(p.key, partition(Buffer.from(p.key), p.parts), p.partition)
  for (const m of v.messages) check(m.id, argument(m.id, Buffer.from(m.body, 'base64'), m).toString('base64'), m.argument)
} else {
  const client = new Redis(socket, { commandTimeout: 10_000 })
  const producer = new Producer(client, name)
  for (let i = 0; i < Number(n); i++) {
    const sent = await producer.send(`node ${i}`, { group: 'node', dedup: `node ${i}`, attributes: { n: String(i) } })
    check('sent', [sent.id.length, sent.duplicate], [22, false])
    const again = await producer.send('again', { group: 'node', dedup: `node ${i}` })
    check('again', [again.id, again.duplicate], [sent.id, true])
  }
  await producer.send(Buffer.alloc(300_000), { group: 'node' }).then(() => wrong.push('a body over the limit'), () => {})
  await new Producer(client, 'nothere').send('').then(() => wrong.push('a queue that is not there'), (e) => {
    if (!(e instanceof NoQueue)) wrong.push(String(e))
  })
  client.disconnect()
}
console.log(JSON.stringify({ Steps: steps, Wrong: wrong }))
