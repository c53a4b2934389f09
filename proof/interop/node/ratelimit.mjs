// What the tests run: node ratelimit.mjs vectors|share|places SOCKET [PLAN ROUNDS [CALLERS]]. It prints one line of JSON.
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import Redis from 'iovalkey'
import { RateLimiter } from '../../../docs/recipes/ratelimit/recipe.mjs'

const [, , what, socket, plan, rounds, callers] = process.argv
const client = new Redis(socket, { commandTimeout: 10_000 })
const wrong = []
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b)

async function vectors() {
  const { plans } = JSON.parse(readFileSync(new URL('../../../docs/recipes/ratelimit/vectors.json', import.meta.url), 'utf8'))
  let steps = 0
  for (const p of plans) {
    await client.flushall()
    const limiter = new RateLimiter(client, p)
    if (!same(limiter.keys(p.subject), p.keys)) wrong.push(`${p.says}: keys ${limiter.keys(p.subject)}`)
    const args = limiter.limits.flatMap((l) => l.args.map(String))
    if (!same(args, p.args)) wrong.push(`${p.says}: arguments ${args}`)
    for (const s of p.steps) {
      const got = await limiter.run(p.subject, s.token, s.cost, s.count, s.now)
      if (!same(got, s.reply)) wrong.push(`${p.says}, step ${steps}: ${got}`)
      steps++
    }
  }
  return { keys: plans.length, steps, wrong }
}

// together waits until all callers are here.
async function together() {
  await client.incr('here')
  while ((await client.get('here')) < Number(callers)) await pause(1)
}

// share takes units until there are none.
async function share() {
  const limiter = new RateLimiter(client, JSON.parse(plan))
  let turns = 0
  await together()
  for (let denied = 0; denied < rounds;) {
    const result = await limiter.allow('shared')
    turns += result.granted
    if (result.allowed) continue
    denied++
    if (!(result.retryAfter > 0) || result.limits.every((l) => l.remaining > 0)) wrong.push(`denied: ${JSON.stringify(result)}`)
  }
  return { turns, wrong }
}

// places holds places of a limit of two, and looks at how many are inside.
async function places() {
  const limiter = new RateLimiter(client, JSON.parse(plan))
  let turns = 0, overlaps = 0
  while (turns < rounds) {
    const result = await limiter.allow('shared')
    if (!result.allowed) {
      await pause(1)
      continue
    }
    turns++
    if ((await client.incr('inside')) > 2) overlaps++
    await pause(Math.random() * 3)
    await client.decr('inside')
    if (!(await limiter.release('shared', result))) wrong.push('a place was lost')
    if (await limiter.release('shared', result)) wrong.push('a place was released twice')
  }
  return { turns, overlaps, wrong }
}

// calls goes through what the others leave out.
async function calls() {
  const limiter = new RateLimiter(client, { limits: [{ algorithm: 'bucket', limit: 1, window: 3_600_000, burst: 10 }] })
  const most = await limiter.allowAtMost('a', 7)
  if (!most.allowed || most.granted !== 7) wrong.push(most)
  await limiter.refund('a', most, 2)
  const peek = await limiter.peek('a', 5)
  if (!peek.allowed || peek.granted !== 0 || peek.limits[0].remaining !== 5) wrong.push(peek)
  const never = await limiter.allow('a', 11)
  if (never.allowed || never.retryAfter !== Infinity) wrong.push(never)
  const many = await limiter.allow('a', 6)
  if (many.allowed || many.retryAfter <= 3_590_000 || many.retryAfter > 3_600_000) wrong.push(many)
  const limits = [{ algorithm: 'fixed', limit: 1, window: 1 }]
  for (const bad of [
    () => limiter.allow('a', 0), () => limiter.allow('a', 1.5), () => limiter.allow('a', 2 ** 54), () => limiter.allow(5),
    () => new RateLimiter(client, { limits: [] }), () => new RateLimiter(client, { limits, prefix: 'a{b' }),
    () => new RateLimiter(client, { limits: [{ algorithm: 'gcra', limit: 1, window: 1 }] }),
    () => new RateLimiter(client, { limits: [{ algorithm: 'fixed', limit: 0, window: 1 }] }),
    () => new RateLimiter(client, { limits: [{ algorithm: 'fixed', limit: 1 }] }),
    () => new RateLimiter(client, { limits: [{ algorithm: 'quota', limit: 1, period: 'year' }] }),
    () => new RateLimiter(client, { limits: [{ algorithm: 'concurrency', limit: 1 }, { algorithm: 'concurrency', limit: 1 }] }),
  ]) {
    try {
      await bad()
      wrong.push(`accepted: ${bad}`)
    } catch { /* as it should */ }
  }
  await client.script('FLUSH')
  await limiter.peek('a') // sends the script again
  await client.config('SET', 'maxmemory', '1')
  await limiter.allow('a').then(() => wrong.push('admitted by a full server'), () => {})
  return { wrong: wrong.map(String) }
}

console.log(JSON.stringify(await { vectors, share, places, calls }[what]()))
client.disconnect()
