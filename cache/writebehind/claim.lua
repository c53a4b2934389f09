#!lua flags=allow-oom
-- KEYS[1]  the log: what is known of each key that waits, a dot before it; and four counts
-- KEYS[2]  when each key is due, ms
-- KEYS[3]  what is at the origin: key, since when (ms)
-- KEYS[4]  the lease of who drains
-- ARGV[1]  its token
-- ARGV[2]  how many keys at most
-- ARGV[3]  how many bytes of values at most, but one key in any case
-- ARGV[4]  until when (ms) what is due is taken, if that is later than now
-- reply    0 if the lease is another's; else now (ms), for how long nothing more is due (ms; -1 if nothing waits), how
--          many keys are at the origin, the number of this claim, how many writes were done before it, and for each key: the
--          key, its tries
if redis.pcall('GET', KEYS[4]) ~= ARGV[1] then
  return {0}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply, bytes, claim = {now, -1, 0, 0, tonumber(redis.call('HGET', KEYS[1], 'done') or 0)}, 0, false
local keys = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', math.max(now, tonumber(ARGV[4])), 'LIMIT', 0, ARGV[2])
for _, key in ipairs(keys) do
  local since, size, base, tries, rest = string.match(redis.call('HGET', KEYS[1], '.' .. key) or '', '^%d+ %d (%d+) (%d+) (%d+) (%d+) (.*)$')
  if since then
    bytes = bytes + tonumber(size)
    if bytes > tonumber(ARGV[3]) and claim then
      break
    end
    claim = claim or redis.call('HINCRBY', KEYS[1], 'claims', 1)
    redis.call('HSET', KEYS[1], '.' .. key, table.concat({claim, '0', since, size, base, tries, rest}, ' '))
    redis.call('ZADD', KEYS[3], now, key)
    table.insert(reply, key)
    table.insert(reply, tries)
  end
  redis.call('ZREM', KEYS[2], key)
end
local next = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if next[2] then
  reply[2] = math.max(0, tonumber(next[2]) - now)
end
reply[3] = redis.call('ZCARD', KEYS[3])
reply[4] = claim or 0
return reply
