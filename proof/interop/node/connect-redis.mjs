// A site on express-session and connect-redis: what a session of it looks like to whoever takes it over.
//
//	node connect-redis.mjs SOCKET SECRET VALUE
//
// logs in so that req.session has the members of VALUE (JSON), and prints the cookie and the key as JSON.
import express from 'express'
import session from 'express-session'
import { RedisStore } from 'connect-redis'
import { createClient } from 'redis'

const [socket, secret, value] = process.argv.slice(2)
const client = createClient({ socket: { path: socket } })
await client.connect()
const app = express()
app.use(session({
  store: new RedisStore({ client }), secret, resave: false, saveUninitialized: false,
  cookie: { maxAge: 30 * 60 * 1000 },
}))
app.get('/login', (req, res) => {
  Object.assign(req.session, JSON.parse(value))
  res.json({ id: req.session.id })
})
const server = app.listen(0, '127.0.0.1', async () => {
  const response = await fetch(`http://127.0.0.1:${server.address().port}/login`)
  const { id } = await response.json()
  const cookie = response.headers.get('set-cookie').split(';')[0]
  console.log(JSON.stringify({ cookie, key: 'sess:' + id }))
  await client.close()
  server.close()
  server.closeAllConnections()
})
