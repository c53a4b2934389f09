// flatrate's lock from Node: the keys and scripts of the Go package lock, so that both sides exclude each
// other. The client is iovalkey's or ioredis's; give it a commandTimeout. Node 20 or later.
//
//   const locker = new Locker(client, { ttl: 30_000 })
//   const lock = await locker.acquire('invoice:42', { timeout: 5_000 })
//   try {
//     await charge(42, lock.fence, lock.signal) // signal aborts when the lock is lost
//   } finally {
//     await lock.release()
//   }
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'

const script = (file) => readFileSync(new URL(`../../../${file}.lua`, import.meta.url), 'utf8')
export const scripts = {
  acquire: script('lock/acquire'), extend: script('internal/lease/extend'), release: script('lock/release'),
}

const place = 3_000 // ms that a waiter keeps its place without asking again
const claim = 100 // ms that a grant waits to be claimed
const poll = 40 // ms between two questions of a waiter: less than half of claim
const gone = 3_000 // ms that a call whose answer was lost may still be on its way
const channel = 'recipe' // nobody listens there: waiters poll

export function escape(name) {
  if (name === '') return '%'
  const escaped = name.replace(/[\x00-\x20\x7f%{}]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0'))
  return Buffer.byteLength(escaped) > 512 ? '%~' + createHash('sha256').update(name).digest('hex') : escaped
}

// keys of acquire.lua and release.lua; extend.lua takes the first.
export function keys(prefix, name, token) {
  const sum = createHash('sha256').update(name).digest()
  const head = `${prefix}:lock:{${(sum[0] << 2) | (sum[1] >> 6)}}:`
  const part = (kind) => `${head}${kind}:${escape(name)}`
  return [part('own'), part('wait'), part('place'), `${head}gone:${escape(token)}`, `${head}fence`]
}

export class LockLostError extends Error {}

export class Locker {
  // ttl: for how long a holder that died blocks the others, in whole ms from 100 to a day.
  constructor(client, { prefix = 'fr', ttl = 30_000 } = {}) {
    if (!Number.isInteger(ttl) || ttl < 100 || ttl > 86_400_000) throw new RangeError(`ttl is ${ttl}, not from 100 to 86400000`)
    if (Buffer.byteLength(prefix) > 64 || /[\x00-\x20\x7f{}]/.test(prefix) || prefix === '') throw new RangeError('prefix')
    Object.assign(this, { client, prefix, ttl })
  }

  // tryAcquire answers null if somebody holds the lock or waits for it.
  async tryAcquire(name) {
    const attempt = this.#attempt(name)
    try {
      return await attempt.ask(0)
    } catch (err) {
      attempt.abandon()
      throw err
    }
  }

  // acquire waits its turn, for timeout ms; then it throws.
  async acquire(name, { timeout = 60_000 } = {}) {
    const attempt = this.#attempt(name)
    const end = performance.now() + timeout
    try {
      for (;;) {
        const lock = await attempt.ask(place)
        if (lock) return lock
        if (performance.now() > end) throw new Error(`lock ${name}: not acquired in ${timeout} ms`)
        await pause(poll)
      }
    } catch (err) {
      attempt.abandon()
      throw err
    }
  }

  #attempt(name) {
    if (typeof name !== 'string' || name === '' || !name.isWellFormed()) throw new TypeError('the name is empty or no text')
    const { client, ttl } = this
    const token = randomBytes(16).toString('hex')
    const all = keys(this.prefix, name, token)
    return {
      async ask(keep) {
        const sent = performance.now()
        const [fence] = await client.eval(scripts.acquire, 5, ...all, token, ttl, keep, channel, claim)
        return fence ? new Lock(client, name, all, token, fence, ttl, sent) : null
      },
      // What an unanswered call may have taken is given back, or ends with its time to live.
      abandon() {
        client.eval(scripts.release, 5, ...all, token, claim, gone, '').catch(() => {})
      },
    }
  }
}

class Lock {
  #client; #keys; #token; #ttl; #abort = new AbortController(); #expire; #renew

  constructor(client, name, keys, token, fence, ttl, sent) {
    Object.assign(this, { name, fence })
    this.#client = client; this.#keys = keys; this.#token = token; this.#ttl = ttl
    this.#kept(sent)
    this.#next(ttl / 3)
  }

  // signal aborts when the lock is released or lost: before the server can give it to another.
  get signal() { return this.#abort.signal }

  // release gives the lock back, to the next who waits. It throws a LockLostError if it was not held any more.
  async release() {
    const lost = this.signal.aborted
    this.#end(new LockLostError('released'))
    const [held] = await this.#client.eval(scripts.release, 5, ...this.#keys, this.#token, claim, 0, '')
    if (lost || !held) throw new LockLostError(`lock ${this.name}: was lost before its release`)
  }

  // The lock lives until the last confirmed call was sent, plus the time to live, less 1% and 2 ms.
  #kept(sent) {
    clearTimeout(this.#expire)
    const left = sent + this.#ttl - this.#ttl / 100 - 2 - performance.now()
    this.#expire = setTimeout(() => this.#end(new LockLostError('expired')), Math.max(0, left))
  }

  #next(ms) {
    this.#renew = setTimeout(async () => {
      const sent = performance.now()
      try {
        const answer = await this.#client.eval(scripts.extend, 1, this.#keys[0], this.#token, this.#ttl)
        if (this.signal.aborted) return
        if (answer !== 1) return this.#end(new LockLostError(answer === 0 ? 'taken by another' : 'lost by the server'))
        this.#kept(sent)
        this.#next(this.#ttl / 3)
      } catch {
        if (!this.signal.aborted) this.#next(Math.min(1_000, this.#ttl / 20)) // nobody knows: try again
      }
    }, ms)
  }

  #end(why) {
    clearTimeout(this.#expire)
    clearTimeout(this.#renew)
    this.#abort.abort(why)
  }
}
