#!lua flags=allow-oom
-- KEYS[1]  the log: what is known of each key that waits, a dot before it; and four counts
-- KEYS[2]  when each key is due, ms
-- KEYS[3]  what is at the origin: key, since when (ms)
-- KEYS[4]  the lease of who drains
-- ARGV[1]  its token
-- ARGV[2]  how many keys at most
-- reply    how many keys are left; -1 if the lease is another's
--
-- What somebody who is gone had at the origin is due again, at once. It may have got there: what was written since gets a
-- higher version, as if it had, since its entry shows that it was tried.
if redis.pcall('GET', KEYS[4]) ~= ARGV[1] then
  return -1
end
local orphans = redis.call('ZRANGE', KEYS[3], 0, tonumber(ARGV[2]) - 1)
for _, key in ipairs(orphans) do
  local since, size, base, tries, rest = string.match(redis.call('HGET', KEYS[1], '.' .. key) or '', '^%d+ %d (%d+) (%d+) (%d+) (%d+) (.*)$')
  if since then
    redis.call('HSET', KEYS[1], '.' .. key, table.concat({'0 0', since, size, base, math.max(1, tonumber(tries)), rest}, ' '))
    redis.call('ZADD', KEYS[2], since, key)
  end
  redis.call('ZREM', KEYS[3], key)
end
return redis.call('ZCARD', KEYS[3])
