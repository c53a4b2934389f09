// Messages for flatrate's queues from Node: the keys and the script of the Go package queue. The client is that of iovalkey or
// ioredis; give it a commandTimeout. Node 20 or later.
//
//   const producer = new Producer(client, 'mail')
//   const { id, sequence, duplicate } = await producer.send('hello', { group: 'tenant 1', dedup: 'order-42' })
//
// The queue has to be there: whoever consumes it in Go makes it.
import { createHash, randomBytes, randomInt } from 'node:crypto'
import { readFileSync } from 'node:fs'

const script = readFileSync(new URL('../../../queue/send.lua', import.meta.url), 'utf8')

export class QueueFull extends Error {}
export class NoQueue extends Error {}

const bytes = (s) => (typeof s === 'string' ? Buffer.from(s) : Buffer.from(s ?? ''))

export function escape(name) {
  if (name.length === 0) return Buffer.alloc(0)
  const out = []
  for (const c of name) {
    if (c <= 0x20 || c === 0x7f || c === 0x25 || c === 0x7b || c === 0x7d) {
      out.push(...Buffer.from('%' + c.toString(16).toUpperCase().padStart(2, '0')))
    } else out.push(c)
  }
  if (out.length > 512) return Buffer.from('%~' + createHash('sha256').update(name).digest('hex'))
  return Buffer.from(out)
}

// The partition of what has to be together: FNV-1a of 64 bits, folded.
export function partition(key, parts) {
  let h = 14695981039346656037n
  for (const c of key) h = ((h ^ BigInt(c)) * 1099511628211n) & 0xffffffffffffffffn
  return Number((h ^ (h >> 32n)) % BigInt(parts))
}

// What send.lua gets for a message; delay and uniqueFor are ms.
export function argument(id, body, { fifo = false, parts = 1, attributes = {}, group, dedup, delay = 0, unique, uniqueFor = 0 } = {}) {
  const label = { group: bytes(group), dedup: bytes(dedup), unique: bytes(unique) }
  for (const [what, text] of Object.entries(label)) if (text.length > 128) throw new RangeError(`${what} is over 128 bytes`)
  const pairs = Object.entries(attributes).map(([n, v]) => [bytes(n), bytes(v)]).sort((a, b) => Buffer.compare(a[0], b[0]))
  for (const [name] of pairs) {
    if (name.length < 1 || name.length > 256 || name.toString().startsWith('fr.')) {
      throw new RangeError("an attribute's name is empty, over 256 bytes, or begins with fr.")
    }
  }
  if (pairs.length > 100) throw new RangeError('over 100 attributes')
  if (fifo && (label.group.length === 0 || delay)) throw new RangeError('a FIFO queue needs a group, and has no delay of a message')
  const encoded = Buffer.concat(pairs.flatMap(([n, v]) => [Buffer.from(`${n.length}:${v.length}:`), n, v]))
  let mark = escape(label.dedup)
  if (fifo && parts > 1 && mark.length) mark = Buffer.concat([Buffer.from(`${label.group.length}/`), escape(label.group), Buffer.from('/'), mark])
  const words = (...all) => Buffer.concat(all.flatMap((w) => [Buffer.from(w)]))
  const options = label.group.length || mark.length || label.unique.length || delay
    ? words(' ', delay ? String(delay) : '', ' ', mark, ' ', escape(label.unique), ' ', label.unique.length ? String(uniqueFor) : '', '   \n')
    : Buffer.alloc(0)
  return words(options, `${id} ${encoded.length} `, escape(label.group), ' ', escape(label.unique), '\n', encoded, bytes(body))
}

export class Producer {
  #client
  #name
  #prefix
  #max
  #known

  // maxBody: bytes of body and attributes, as Config.MaxBody in Go.
  constructor(client, name, { prefix = 'fr', maxBody = 256 << 10 } = {}) {
    this.#name = bytes(name)
    if (this.#name.length < 1 || this.#name.length > 256) throw new RangeError('name has not 1 to 256 bytes')
    // eslint-disable-next-line no-control-regex
    if (!prefix || bytes(prefix).length > 64 || /[\x00-\x20\x7f{}]/.test(prefix)) {
      throw new RangeError('prefix is empty, over 64 bytes, or has a brace, a space or a control byte')
    }
    this.#client = client
    this.#prefix = prefix
    this.#max = maxBody
  }

  keys(part) {
    const tag = escape(Buffer.concat([this.#name, Buffer.from(`:${part}`)]))
    const head = Buffer.concat([Buffer.from(`${this.#prefix}:queue:{`), tag, Buffer.from('}:')])
    return ['meta', 'gone'].map((k) => Buffer.concat([head, Buffer.from(k)]))
  }

  async #open() {
    if (!this.#known) {
      const [fifo, parts] = await this.#client.hmget(this.keys(0)[0], 'fifo', 'parts')
      if (fifo === null) throw new NoQueue(this.#name.toString())
      this.#known = { fifo: fifo === '1', parts: Number(parts) }
    }
    return this.#known
  }

  // Sends a message: attributes, group, dedup, delay and uniqueFor (ms), unique. One round trip, after a first one.
  async send(body, message = {}) {
    const { fifo, parts } = await this.#open()
    const id = randomBytes(16).toString('base64url')
    const arg = argument(id, body, { ...message, fifo, parts })
    let size = bytes(body).length
    for (const [n, v] of Object.entries(message.attributes ?? {})) size += bytes(n).length + bytes(v).length
    if (size > this.#max) throw new RangeError(`body and attributes are over ${this.#max} bytes`)
    const where = [bytes(message.group), bytes(message.unique), escape(bytes(message.dedup))].find((w) => w.length)
    const part = where ? partition(where, parts) : randomInt(parts)
    const reply = await this.#client.eval(script, 2, ...this.keys(part), 1, arg)
    if (reply[0] < 0) {
      this.#known = undefined
      throw new NoQueue(this.#name.toString())
    }
    const status = reply.length > 2 ? reply[2] : `s${reply[1]}`
    if (status === 'f') throw new QueueFull(this.#name.toString())
    if (status[0] === 's') return { id, sequence: Number(status.slice(1)), duplicate: false }
    return { id: status.slice(1) || id, sequence: 0, duplicate: true }
  }
}
