// flatrate's rate limits from Node: the keys and the script of the Go package ratelimit, so that all count together.
// The client is iovalkey's or ioredis's; give it a commandTimeout. Node 20 or later.
//
//   const limiter = new RateLimiter(client, { limits: [{ algorithm: 'bucket', limit: 10, window: 1_000, burst: 50 }] })
//   const result = await limiter.allow('user:42') // an error is no admission
//   if (!result.allowed) retry(result.retryAfter) // ms; Infinity if the cost is above a limit
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'

const script = readFileSync(new URL('../../../ratelimit/decide.lua', import.meta.url), 'utf8')
const sha = createHash('sha1').update(script).digest('hex')

const letters = { fixed: 'w', sliding: 's', log: 'l', bucket: 'b', concurrency: 'c', quota: 'q' }
const periods = { day: 1, week: 2, month: 3 }
const most = 2 ** 53
const longest = 100 * 365 * 86_400_000 // ms

export function escape(name) {
  if (name === '') return '%'
  const escaped = name.replace(/[\x00-\x20\x7f%{}]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0'))
  return Buffer.byteLength(escaped) > 512 ? '%~' + createHash('sha256').update(name).digest('hex') : escaped
}

const group = (name) => escape(name).replaceAll(':', '%3A')

function whole(what, n, least, greatest) {
  if (!Number.isInteger(n) || n < least || n > greatest) throw new RangeError(`${what} is ${n}, not from ${least} to ${greatest}`)
  return n
}

function short(ms) {
  for (const [length, name] of [[86_400_000, 'd'], [3_600_000, 'h'], [60_000, 'm'], [1_000, 's']]) {
    if (ms % length === 0) return ms / length + name
  }
  return ms + 'ms'
}

const gcd = (a, b) => (b === 0 ? a : gcd(b, a % b))

// compile is what a limit is in a key and in the script's arguments.
function compile(l) {
  const letter = letters[l.algorithm]
  if (!letter) throw new RangeError(`algorithm is ${l.algorithm}`)
  whole('limit', l.limit, 1, letter === 'l' ? 10_000 : most)
  if (letter === 'c') return { shape: 'c', args: ['c', l.limit, whole('lease', l.lease ?? 30_000, 1, longest), ''] }
  if (letter === 'q') {
    if (!periods[l.period]) throw new RangeError(`period is ${l.period}`)
    const offset = whole('offset', l.offset ?? 0, 0, { day: 1, week: 7, month: 28 }[l.period] * 86_400_000 - 1)
    return { shape: 'q' + l.period[0] + (offset ? '-' + short(offset) : ''), args: ['q', l.limit, periods[l.period], offset] }
  }
  const window = whole('window', l.window, 1, longest)
  const shape = letter + short(window)
  if (letter === 'w') return { shape, args: ['w', l.limit, window, 0] }
  if (letter === 's') return { shape, args: ['s', l.limit, window, Math.ceil(window / 60)] }
  if (letter === 'l') {
    let bytes = 2
    for (let fits = 65_536; fits < 4 * window; fits *= 256) bytes++
    return { shape, args: ['l', l.limit, window, bytes] }
  }
  const burst = whole('burst', l.burst ?? l.limit, 1, most)
  const common = gcd(l.limit, window)
  const ticks = whole('the numerator of the rate', l.limit / common, 1, 1e9)
  const unit = window / common
  if (burst > most / unit || (burst * unit) / ticks > longest) throw new RangeError(`burst is ${burst}: too much beside the rate`)
  return { shape: `b${l.limit}-${short(window)}-${burst}`, ticks, args: ['b', burst, ticks, unit] }
}

export class RateLimiter {
  // limits: one to 16, at most one of them of concurrency. All times are whole ms.
  constructor(client, { prefix = 'fr', name = '', limits }) {
    if (Buffer.byteLength(prefix) > 64 || /[\x00-\x20\x7f{}]/.test(prefix) || prefix === '') throw new RangeError('prefix')
    whole('the number of limits', limits?.length, 1, 16)
    this.client = client
    this.limits = limits.map(compile)
    this.places = this.limits.findIndex((l) => l.shape === 'c')
    if (this.limits.filter((l) => l.shape === 'c').length > 1) throw new RangeError('a second limit of concurrency')
    this.head = `${prefix}:rate:${name && group(name) + ':'}${group(this.limits.map((l) => l.shape).join(''))}:`
  }

  keys(subject) {
    if (typeof subject !== 'string' || !subject.isWellFormed()) throw new TypeError('the subject is no text')
    const key = `${this.head}{${escape(subject)}}`
    return this.places < 0 ? [key] : [key, key + ':held']
  }

  // allow asks for cost units, all or none.
  allow(subject, cost = 1) {
    return this.#ask(subject, whole('the cost', cost, 1, most), 1)
  }

  // allowAtMost asks for up to n units: result.granted says how many.
  async allowAtMost(subject, n) {
    return this.#ask(subject, 1, whole('n', n, 1, most))
  }

  // peek says what allow would, and changes nothing.
  async peek(subject, cost = 1) {
    return this.#ask(subject, whole('the cost', cost, 1, most), 0)
  }

  // refund gives back n of the units that result was granted.
  async refund(subject, result, n) {
    if (whole('n', n, 0, result.granted) > 0) await this.run(subject, '', n, -result.at)
  }

  // release gives up the place of a limit of concurrency; false if it was lost to the end of its lease.
  async release(subject, result) {
    if (!result.token) return false
    return (await this.client.zrem(this.keys(subject)[1], result.token)) > 0
  }

  async #ask(subject, cost, count) {
    const token = count > 0 && this.places >= 0 ? randomBytes(16).toString('hex') : ''
    const [at, times, ...numbers] = await this.run(subject, token, cost, count)
    const limits = this.limits.map((l, i) => {
      const [remaining, all, now] = numbers.slice(3 * i, 3 * i + 3)
      const ms = (n) => (l.ticks ? Math.ceil((n * 1000) / l.ticks) / 1000 : n)
      return { limit: l.args[1], remaining, resetAfter: ms(all), retryAfter: times > 0 ? 0 : now < 0 ? Infinity : ms(now) }
    })
    const retryAfter = Math.max(...limits.map((l) => l.retryAfter))
    const allowed = count > 0 ? times > 0 : retryAfter === 0
    return { allowed, granted: times * cost, retryAfter, limits, at, token: allowed ? token : '' }
  }

  // run sends the script; the test vectors say what it answers. now, in Unix microseconds, is for tests only.
  async run(subject, token, cost, count, ...now) {
    const keys = this.keys(subject)
    const args = this.limits.flatMap((l) => (l.shape === 'c' ? [...l.args.slice(0, 3), token] : l.args))
    const all = [keys.length, ...keys, this.limits.length, 1, ...args, cost, count, ...now]
    try {
      return await this.client.evalsha(sha, ...all)
    } catch (err) {
      if (!String(err.message).startsWith('NOSCRIPT')) throw err // it may have been counted: do not repeat it
      return await this.client.eval(script, ...all)
    }
  }
}
