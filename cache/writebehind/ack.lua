#!lua flags=allow-oom
-- KEYS[1]  the log
-- KEYS[2]  when each key is due, ms
-- KEYS[3]  what is at the origin: key, since when (ms)
-- KEYS[4]  the counters of the partition
-- KEYS[5]  the dead letters
-- KEYS[6]  the lease of who drains
-- KEYS[7..]  the values
-- ARGV[1]  its token
-- ARGV[2]  how long values are kept, ms; 0 not at all
-- ARGV[3]  the window, ms
-- ARGV[4..]  for each value: the key, the version that was claimed, the version that was written
-- reply    how many writes are done; -1 if the lease is another's
--
-- What was written meanwhile is due when its own window ends.
if redis.pcall('GET', KEYS[6]) ~= ARGV[1] then
  return -1
end
local done = 0
for i = 7, #KEYS do
  local at = 4 + (i - 7) * 3
  local key, claimed, written = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local entry = redis.call('HGET', KEYS[1], key)
  local version, since, flight, size = string.match(entry or '', '^(%d+) (%d+) (%d+) (%d+)')
  if flight == claimed then
    done = done + 1
    redis.call('ZREM', KEYS[3], key)
    redis.call('HDEL', KEYS[5], key)
    if version ~= written then
      redis.call('HSET', KEYS[1], key, table.concat({version, since, '0', size, '0 0 0 0 '}, ' '))
      redis.call('ZADD', KEYS[2], tonumber(since) + tonumber(ARGV[3]), key)
    else
      redis.call('HDEL', KEYS[1], key)
      if tonumber(ARGV[2]) > 0 then
        redis.call('PEXPIRE', KEYS[i], ARGV[2])
      else
        redis.call('DEL', KEYS[i])
      end
    end
  end
end
redis.call('HINCRBY', KEYS[4], 'done', done)
return done
