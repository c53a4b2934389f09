// flatrate's sessions from Node: the keys and scripts of the Go package session, so that both sides share them. The
// client is iovalkey's or ioredis's; give it a commandTimeout. Node 20 or later, Express 4 or 5.
//
//   const sessions = new Sessions(client)
//   app.use(sessions.middleware())
//   app.post('/cart', async (req, res) => {
//     req.session.value.cart = [...(req.session.value.cart ?? []), req.body.item]
//     await req.session.save() // before the response: it may have to set the cookie
//     res.send('added')
//   })
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'

const names = ['create', 'read', 'save', 'leave', 'end']
export const scripts = Object.fromEntries(names.map((name) =>
  [name, readFileSync(new URL(`../../../session/${name}.lua`, import.meta.url), 'utf8')]))

const form = /^[A-Z2-7]{26}\.(?:[\w-]{4}|[\w-]{16})$/
const spot = /^(?:[\w-]{4}|[\w-]{16}):[\w-]{22}$/

export const digest = (token) => createHash('sha256').update(token).digest().subarray(0, 16).toString('base64url')
export const userTag = (user) => createHash('sha256').update('user:' + user).digest().subarray(0, 12).toString('base64url')

// place says where the session of a token lies, or null for what can't be a token.
export const place = (token) => (form.test(token) ? `${token.slice(27)}:${digest(token)}` : null)

// keys of the scripts about one session: its own, and its user's index if it has a user.
export function keys(prefix, at) {
  const [tag, token] = at.split(':')
  const own = `${prefix}:sess:{${tag}}:${token}`
  return tag.length === 16 ? [own, `${prefix}:sess:{${tag}}:user`] : [own]
}

export function newToken(tag) {
  const bits = [...randomBytes(26)].map((byte) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'[byte & 31]).join('')
  return `${bits}.${tag ?? randomBytes(3).toString('base64url')}`
}

// parse reads a record: null for one that remembers a session which was ended.
export function parse(text) {
  if (text === '-') return null
  let moved = ''
  if (text.startsWith('2')) {
    const end = text.indexOf('\n')
    moved = text.slice(1, end)
    if (!spot.test(moved)) throw new Error('the key holds no session')
    text = text.slice(end + 1)
  }
  const m = /^1(\d{10,}) (\d+) (\d+) (\d+)\n(\{[^]*\})$/.exec(text)
  if (!m) throw new Error('the key holds no session')
  const members = JSON.parse(m[5])
  if (Object.hasOwn(members, '@k')) throw new Error('the session is sealed')
  const own = (name) => name.startsWith('@')
  return {
    moved, seen: +m[1], created: +m[2], idle: +m[3], absolute: +m[4],
    value: Object.fromEntries(Object.entries(members).filter(([name]) => !own(name))),
  }
}

const lines = (value) => Object.entries(value).filter(([, v]) => v !== undefined).map(([name, v]) => {
  if (/^@|["\\\x00-\x1f\x7f]/.test(name)) throw new Error(`the name ${JSON.stringify(name)} can't be a member's`)
  return [name, JSON.stringify(v)]
})

export class Sessions {
  constructor(client, { prefix = 'fr', cookie = '__Host-session', idle = 1_800_000, absolute = 0 } = {}) {
    Object.assign(this, { client, prefix, cookie, idle, absolute })
  }

  #run(script, all, ...args) {
    return this.client.eval(scripts[script], all.length, ...all, ...args)
  }

  // get answers the session of a token, or null.
  async get(token) {
    const at = place(token ?? '')
    let found = at && (await this.#look(at))
    if (!found) return null
    let target = at
    for (let moved = found.moved, hops = 0; moved; hops++) { // it got another token a moment ago: it is as it was
      target = moved
      const now = hops < 4 ? await this.#look(moved) : null
      if (!now) return null
      moved = now.moved
    }
    return new Session(this, token, target, found.value, target !== at)
  }

  async #look(at) {
    const [text] = await this.#run('read', keys(this.prefix, at))
    return text === null ? null : parse(text)
  }

  // create begins a session, of a user or of nobody.
  async create(value, user) {
    const token = newToken(user === undefined ? undefined : userTag(user))
    const body = '{' + lines(value).map(([name, v]) => `${JSON.stringify(name)}:${v}`).join(',\n') + '}'
    await this.#run('create', keys(this.prefix, place(token)), this.idle, this.absolute, body)
    return new Session(this, token, place(token), value, false)
  }

  // save sends the members that changed: false if the session has ended.
  async save(session, before, now) {
    const changed = lines(now).filter(([name, v]) => v !== JSON.stringify(before[name])).flat()
    for (const name of Object.keys(before)) if (now[name] === undefined) changed.push(name, '')
    for (let hops = 0; changed.length > 0 && hops < 4; hops++) {
      const [code, detail] = await this.#run('save', keys(this.prefix, session.at), '@=x', ...changed)
      if (code === 0) return false
      if (code === 1) return true
      if (code !== 3) throw new Error(`the session is too large: ${detail} bytes`)
      session.at = detail
      session.old = true // a login must leave alone what is there: it may be a user's by now
    }
    return changed.length === 0
  }

  // end ends a session: nothing brings it back.
  async end(at) {
    for (let hops = 0; at && hops < 4; hops++) {
      const [code, target] = await this.#run('end', keys(this.prefix, at), 3_600_000, '0')
      at = code === 3 ? target : null
    }
  }

  // login gives the value to a new session of the user. The old token is good for requests under way, for ten seconds.
  async login(session, user) {
    const next = await this.create(session.value, user)
    if (session.at && !session.old) await this.#run('leave', keys(this.prefix, session.at), 10_000, next.at, 3_600_000)
    return next
  }

  // middleware sets req.session, with value, save, login and end.
  middleware() {
    return async (req, res, next) => {
      try {
        const sent = [...(req.headers.cookie ?? '').matchAll(/([^;=\s]+)=([^;]*)/g)].filter((m) => m[1] === this.cookie).map((m) => m[2])
        const token = new Set(sent).size === 1 ? sent[0] : undefined
        let session = (await this.get(token)) ?? new Session(this, undefined, undefined, {}, false)
        const tell = (value, rest = '') => res.append('Set-Cookie', `${this.cookie}=${value}; Path=/; Secure; HttpOnly; SameSite=Lax${rest}`)
        req.session = {
          get value() { return session.value },
          save: async () => {
            if (session.at) return session.save()
            if (Object.keys(session.value).length === 0) return true // nothing is stored for a visitor without data
            session = await this.create(session.value)
            tell(session.token)
            return true
          },
          login: async (user) => {
            session = await this.login(session, user)
            tell(session.token)
          },
          end: async () => {
            await this.end(session.at)
            session = new Session(this, undefined, undefined, {}, false)
            tell('', '; Max-Age=0')
          },
        }
        next()
      } catch (err) {
        next(err)
      }
    }
  }
}

export class Session {
  #sessions
  #before
  constructor(sessions, token, at, value, old) {
    this.#sessions = sessions
    this.#before = structuredClone(value)
    Object.assign(this, { token, at, value, old })
  }

  async save() {
    const ok = await this.#sessions.save(this, this.#before, this.value)
    if (ok) this.#before = structuredClone(this.value)
    return ok
  }
}
