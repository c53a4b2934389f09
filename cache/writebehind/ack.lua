#!lua flags=allow-oom
-- KEYS[1]  the log: what is known of each key that waits, a dot before it; and four counts
-- KEYS[2]  when each key is due, ms
-- KEYS[3]  what is at the origin: key, since when (ms)
-- KEYS[4]  the dead letters
-- KEYS[5]  the lease of who drains
-- KEYS[6..]  for each key: the value, and who loads it
-- ARGV[1]  its token
-- ARGV[2]  how long values are kept, ms; 0 not at all
-- ARGV[3]  the window, ms
-- ARGV[4..]  for each key: the key, the number of the claim, the version that was written
-- reply    how many writes are done; -1 if the lease is another's
--
-- What was written meanwhile is due when its own window ends. What somebody loads may be from before: it is not kept.
if redis.pcall('GET', KEYS[5]) ~= ARGV[1] then
  return -1
end
local done, last = 0, tonumber(redis.call('HGET', KEYS[1], 'version') or 0)
for i = 6, #KEYS, 2 do
  local at = 4 + (i - 6) / 2 * 3
  local key, claim, written = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local flight, since, size = string.match(redis.call('HGET', KEYS[1], '.' .. key) or '', '^(%d+) %d (%d+) (%d+)')
  if flight == claim then
    done = done + 1
    last = math.max(last, tonumber(written))
    redis.call('ZREM', KEYS[3], key)
    redis.call('HDEL', KEYS[4], key)
    redis.call('DEL', KEYS[i + 1])
    local head = redis.pcall('GETRANGE', KEYS[i], 0, 24)
    local version = type(head) == 'string' and string.match(head, '^\251\1[PD](%d+) ')
    if version and version ~= written then -- its place first: if that fails, the entry is still of this claim
      redis.call('ZADD', KEYS[2], tonumber(since) + tonumber(ARGV[3]), key)
      redis.call('HSET', KEYS[1], '.' .. key, table.concat({'0 0', since, size, version, '0 0 0 0 '}, ' '))
    else
      redis.call('HDEL', KEYS[1], '.' .. key)
      if tonumber(ARGV[2]) > 0 then
        redis.call('PEXPIRE', KEYS[i], ARGV[2])
      else
        redis.call('DEL', KEYS[i])
      end
    end
  end
end
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', last))
redis.call('HINCRBY', KEYS[1], 'done', done)
return done
