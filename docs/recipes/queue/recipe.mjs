// flatrate's queues from Node, for those who send: the keys and the script of the Go package queue, whose consumers receive.
// The client is iovalkey's or ioredis's; give it a commandTimeout. Node 20 or later.
//
//   const producer = new Producer(client, 'orders')
//   const sent = await producer.send(body, { group: 'customer:7', dedupId: 'order-42' }) // body: text or bytes
//   sent.id, sent.duplicate // an error is no message sent, or one of which nobody knows
//
// All times are whole ms. Text is sent as UTF-8.
import { createHash, randomBytes, randomInt } from 'node:crypto'
import { readFileSync } from 'node:fs'

const script = readFileSync(new URL('../../../queue/send.lua', import.meta.url), 'utf8')
const sha = createHash('sha1').update(script).digest('hex')

const longest = 366 * 86_400_000 // ms
const batchMessages = 128, batchBytes = 1 << 20 // in one call

// The queue is not there, was deleted, or is not what the message is for.
export class QueueError extends Error {}
// The queue's quota has no room for the message.
export class FullError extends QueueError {}

export function escape(name) {
  if (name === '') return '%'
  const escaped = name.replace(/[\x00-\x20\x7f%{}]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0'))
  return Buffer.byteLength(escaped) > 512 ? '%~' + createHash('sha256').update(name).digest('hex') : escaped
}

const label = (text) => text && escape(text)

export function keys(prefix, name, partition) {
  const head = `${prefix}:queue:{${escape(`${name}:${partition}`)}}:`
  return [head + 'meta', head + 'gone']
}

// partitionOf is the partition of whatever has to be in one: FNV-1a of 64 bits, folded.
export function partitionOf(where, parts) {
  let h = 14695981039346656037n
  for (const byte of Buffer.from(where)) h = BigInt.asUintN(64, (h ^ BigInt(byte)) * 1099511628211n)
  return Number((h ^ (h >> 32n)) % BigInt(parts))
}

function text(what, value, least, most) {
  if (typeof value !== 'string' || !value.isWellFormed()) throw new TypeError(`${what} is no text`)
  const n = Buffer.byteLength(value)
  if (n < least || n > most) throw new RangeError(`${what} has ${n} bytes, not ${least} to ${most}`)
  return value
}

function bytes(what, value) {
  if (typeof value === 'string') return Buffer.from(text(what, value, 0, Infinity))
  if (!(value instanceof Uint8Array)) throw new TypeError(`${what} is neither text nor bytes`)
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
}

function whole(what, ms) {
  if (!Number.isInteger(ms) || ms < 0 || ms > longest) throw new RangeError(`${what} is ${ms}, not from 0 to ${longest}`)
  return ms
}

// message is what is sent: an argument of the script, and what it has to be in one partition with (empty: it is all the same).
export function message(id, queue, body, options = {}) {
  const { attributes = {}, group = '', dedupId = '', delay = 0, unique = '', uniqueFor = 0, ...unknown } = options
  for (const name in unknown) throw new RangeError(`there is no option ${name}`)
  body = bytes('the body', body)
  text('group', group, 0, 128)
  text('unique', unique, 0, 128)
  let dedup = label(text('dedupId', dedupId, 0, 128))
  const key = label(unique)
  const all = Object.entries(attributes).map(([name, value]) => {
    if (text('the name of an attribute', name, 1, 256).startsWith('fr.')) throw new RangeError(`attribute ${name} begins with fr.`)
    return [Buffer.from(name), bytes(`attribute ${name}`, value)]
  })
  const size = all.reduce((sum, [name, value]) => sum + name.length + value.length, body.length)
  if (all.length > 100 || size > queue.maxBody) throw new RangeError(`over 100 attributes, or over ${queue.maxBody} bytes with the body`)
  if (whole('uniqueFor', uniqueFor) && !unique) throw new RangeError('uniqueFor without unique')
  if (whole('delay', delay) && queue.fifo) throw new QueueError('a FIFO queue has no delay of a message')
  if (queue.fifo && !group) throw new QueueError('a FIFO queue requires a group')
  const where = group || key || dedup
  if (queue.fifo && queue.parts > 1 && dedup) dedup = `${Buffer.byteLength(group)}/${label(group)}/${dedup}`
  const words = [delay || '', dedup, key, key && uniqueFor, '', '', '']
  const head = group || dedup || key || delay ? ` ${words.join(' ')}\n` : ''
  all.sort(([a], [b]) => Buffer.compare(a, b))
  const encoded = Buffer.concat(all.flatMap(([name, value]) => [Buffer.from(`${name.length}:${value.length}:`), name, value]))
  const arg = Buffer.concat([Buffer.from(`${head}${id} ${encoded.length} ${label(group)} ${key}\n`), encoded, body])
  return { id, arg, where }
}

// Producer sends to a queue that is there: a Go program makes it, or flatrate queue send --create.
export class Producer {
  #waiting = []

  constructor(client, name, { prefix = 'fr', maxBody = 256 << 10 } = {}) {
    if (Buffer.byteLength(prefix) > 64 || /[\x00-\x20\x7f{}]/.test(prefix) || prefix === '') throw new RangeError('prefix')
    Object.assign(this, { client, name: text('the name', name, 1, 256), prefix, maxBody, parts: 0 })
  }

  // open asks what the queue is; the first send does so too.
  async open() {
    const [fifo, parts] = await this.client.hmget(keys(this.prefix, this.name, 0)[0], 'fifo', 'parts')
    if (fifo === null || parts === null) throw new QueueError('there is no such queue')
    this.#waiting = new Array(Number(parts)).fill(0)
    Object.assign(this, { fifo: fifo === '1', parts: Number(parts) })
  }

  // send sends one message. FullError: there is no room. Another error: it may have been sent; give it a dedupId to repeat it.
  async send(body, options) {
    const [sent] = await this.sendBatch([{ ...options, body }])
    if (sent.error) throw sent.error
    return sent
  }

  // sendBatch sends messages: send's options with a body. Each stands for itself, and has an error if it was not sent.
  async sendBatch(messages) {
    if (!this.parts) await this.open()
    const parts = new Map()
    const all = messages.map(({ body, ...options }) => message(randomBytes(16).toString('base64url'), this, body, options))
    for (const [i, m] of all.entries()) {
      const partition = this.#choose(m.where)
      if (!parts.has(partition)) parts.set(partition, [])
      parts.get(partition).push(i)
    }
    const results = new Array(all.length)
    for (const [partition, queued] of parts) {
      for (let at = 0; at < queued.length;) {
        let end = at + 1
        for (let size = all[queued[at]].arg.length; end < queued.length && end - at < batchMessages; end++) {
          size += all[queued[end]].arg.length
          if (size > batchBytes) break
        }
        const batch = queued.slice(at, end)
        let sent
        try {
          sent = await this.#call(partition, batch.map((i) => all[i]))
        } catch (error) { // those of other calls stand for themselves
          sent = batch.map(() => ({ duplicate: false, error }))
        }
        batch.forEach((i, n) => { results[i] = sent[n] })
        at = end
      }
    }
    return results
  }

  #choose(where) {
    if (where) return partitionOf(where, this.parts)
    const [a, b] = [randomInt(this.parts), randomInt(this.parts)]
    return this.#waiting[b] < this.#waiting[a] ? b : a
  }

  async #call(partition, messages) {
    const [waiting, last, ...statuses] = await this.run(partition, messages.map((m) => m.arg))
    if (waiting < 0) {
      this.parts = 0
      throw new QueueError(waiting === -1 ? 'the queue was deleted' : 'there is no such queue')
    }
    this.#waiting[partition] = waiting
    const { fifo } = this
    return messages.map(({ id }, i) => {
      const status = statuses.length ? statuses[i] : `s${fifo ? last - messages.length + 1 + i : 0}`
      if (status[0] === 's') return { id, sequence: Number(status.slice(1)), duplicate: false }
      if (status[0] === 'd') return { id: status.slice(1), sequence: 0, duplicate: true }
      if (status[0] !== 'f') return { duplicate: false, error: new QueueError(`the queue refused it: ${status}`) }
      return { duplicate: false, error: new FullError('the queue is full') }
    })
  }

  // run sends the script; the test vectors say what it answers. now, in Unix ms, is for tests only.
  async run(partition, args, ...now) {
    const all = [2, ...keys(this.prefix, this.name, partition), args.length, ...args, ...now]
    try {
      return await this.client.evalsha(sha, ...all)
    } catch (err) {
      if (!String(err.message).startsWith('NOSCRIPT')) throw err // it may have been sent: do not repeat it
      return await this.client.eval(script, ...all)
    }
  }
}
