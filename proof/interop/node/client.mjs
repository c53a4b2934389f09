// What TestRecipes runs: node client.mjs vectors|contend SOCKET [ROUNDS]. It prints one line of JSON.
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import Redis from 'iovalkey'
import { Locker, keys, scripts } from '../../../docs/recipes/lock/recipe.mjs'

const [, , what, socket, rounds] = process.argv
const client = new Redis(socket, { commandTimeout: 10_000 })
const wrong = []

let last = 0
function matches(got, want) {
  if (Array.isArray(want)) return Array.isArray(got) && got.length === want.length && want.every((w, i) => matches(got[i], w))
  if (want === 'fence') {
    const grown = got > last
    last = got
    return grown
  }
  if (typeof want === 'object') return got >= want.from && got <= want.to
  return got === want
}

async function vectors() {
  const v = JSON.parse(readFileSync(new URL('../../../docs/recipes/lock/vectors.json', import.meta.url), 'utf8'))
  for (const k of v.keys) {
    const got = keys('fr', k.name, k.token)
    if (JSON.stringify(got) !== JSON.stringify(k.keys)) wrong.push(`keys of ${k.name}: ${got}`)
  }
  for (const s of v.steps) {
    const all = keys('fr', 'abc', s.token).slice(0, s.script === 'extend' ? 1 : 5)
    const got = await client.eval(scripts[s.script], all.length, ...all, ...s.args)
    if (!matches(got, s.reply)) wrong.push(`${s.says}: ${JSON.stringify(got)}`)
  }
  return { keys: v.keys.length, steps: v.steps.length, wrong }
}

async function contend() {
  const locker = new Locker(client, { ttl: 5_000 })
  let turns = 0, overlaps = 0
  for (; turns < rounds; turns++) {
    const lock = await locker.acquire('one', { timeout: 60_000 })
    if ((await client.incr('inside')) !== 1) overlaps++
    await client.rpush('fences', lock.fence)
    await pause(Math.random() * 3)
    await client.decr('inside')
    if (lock.signal.aborted) wrong.push(`lost: ${lock.signal.reason}`)
    await lock.release()
  }
  return { turns, overlaps, wrong }
}

// kept holds a short lock over several times to live: only renewals keep it. Then it loses it.
async function kept() {
  const locker = new Locker(client, { ttl: 1_000 })
  const lock = await locker.acquire('kept')
  await pause(2_500)
  if (lock.signal.aborted) wrong.push(`not renewed: ${lock.signal.reason}`)
  if (await locker.tryAcquire('kept')) wrong.push('a second holder')
  await client.del(keys('fr', 'kept', '')[0])
  if (!lock.signal.aborted) await new Promise((done) => lock.signal.addEventListener('abort', done))
  if (await client.exists(keys('fr', 'kept', '')[0])) wrong.push('made anew by a renewal')
  await lock.release().then(() => wrong.push('a lost lock was released'), () => {})
  for (const bad of [() => locker.acquire(''), () => new Locker(client, { ttl: 1 }), () => new Locker(client, { prefix: 'a{b' })]) {
    try {
      await bad()
      wrong.push(`accepted: ${bad}`)
    } catch { /* as it should */ }
  }
  await locker.acquire('kept').then((l) => l.release())
  return { wrong }
}

console.log(JSON.stringify(await { vectors, contend, kept }[what]()))
client.disconnect()
