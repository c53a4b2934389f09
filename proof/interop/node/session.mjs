// What TestSessionRecipes runs: node session.mjs vectors|share SOCKET [TOKEN]. It prints one line of JSON.
import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import express from 'express'
import Redis from 'iovalkey'
import { Sessions, keys, parse, place, scripts, userTag } from '../../../docs/recipes/session/recipe.mjs'

const [, , what, socket, token] = process.argv
const client = new Redis(socket, { commandTimeout: 10_000 })
const wrong = []
const same = (what, got, want) => {
  if (!isDeepStrictEqual(got, want)) wrong.push(`${what}: ${JSON.stringify(got)}, want ${JSON.stringify(want)}`)
}

async function vectors() {
  const v = JSON.parse(readFileSync(new URL('../../../docs/recipes/session/vectors.json', import.meta.url), 'utf8'))
  for (const k of v.tokens) same(k.token, place(k.token) && keys('fr', place(k.token)), k.keys)
  for (const u of v.users) same(u.user, userTag(u.user), u.tag)
  for (const r of v.records) {
    let got = 'wrong'
    try {
      got = parse(r.record)
    } catch {}
    const want = r.wrong ? 'wrong' : r.ended ? null
      : { moved: r.moved, seen: r.seen, created: r.created, idle: r.idle, absolute: r.absolute, value: r.value }
    same(r.record, got, want)
  }
  for (const s of v.saves) {
    await client.set('fr:sess:{AAAA}:x', s.record)
    same(s.says, await client.eval(scripts.save, 1, 'fr:sess:{AAAA}:x', ...s.args), s.reply)
    const after = await client.get('fr:sess:{AAAA}:x')
    same(s.says, after.includes('\n') ? after.slice(after.indexOf('\n') + 1) : '', s.body)
  }
  return { keys: v.tokens.length, steps: v.saves.length, wrong }
}

// share changes a session of Go's, and begins one of its own in Express, from a visitor's first request to a login.
async function share() {
  const sessions = new Sessions(client, { cookie: 'session' })
  const theirs = await sessions.get(token)
  same('what Go wrote', theirs?.value, { user: 'ann', cart: { pear: 2 }, note: 'é <&> "\n' })
  theirs.value.theme = 'dark'
  delete theirs.value.cart
  same('a change of it', await theirs.save(), true)

  const app = express()
  app.use(sessions.middleware())
  app.get('/nothing', async (req, res) => res.send(String(await req.session.save())))
  app.get('/cart', async (req, res) => {
    req.session.value.cart = { fig: (req.session.value.cart?.fig ?? 0) + 1 }
    res.send(String(await req.session.save()))
  })
  app.get('/login', async (req, res) => {
    req.session.value.user = 'bob'
    await req.session.login('bob')
    res.send('in')
  })
  app.get('/out', async (req, res) => {
    await req.session.end()
    res.send(JSON.stringify(req.session.value))
  })
  const server = app.listen(0, '127.0.0.1')
  await new Promise((done) => server.once('listening', done))
  const ask = async (path, cookie) => {
    const res = await fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers: cookie ? { cookie } : {} })
    return [await res.text(), res.headers.get('set-cookie')?.split(';')[0]]
  }
  same('a visitor without data', await ask('/nothing'), ['true', undefined])
  const [, visitor] = await ask('/cart')
  same('a second request', await ask('/cart', visitor), ['true', undefined])
  const [, user] = await ask('/login', visitor)
  same('the token of before', (await sessions.get(visitor.slice(8))).value, { cart: { fig: 2 } })
  const [, other] = await ask('/login', visitor)
  const [, out] = await ask('/out', other)
  same('after the end', [out, await sessions.get(other.slice(8))], ['session=', null])
  server.close()
  return { token: user.slice(8), wrong }
}

console.log(JSON.stringify(await { vectors, share }[what]()))
client.disconnect()
