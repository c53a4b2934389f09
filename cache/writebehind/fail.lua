#!lua flags=allow-oom
-- KEYS[1]  the log
-- KEYS[2]  when each key is due, ms
-- KEYS[3]  what is at the origin: key, since when (ms)
-- KEYS[4]  the counters of the partition
-- KEYS[5]  the dead letters
-- KEYS[6]  the lease of who drains
-- KEYS[7..]  the values
-- ARGV[1]  its token
-- ARGV[2]  how many failures make a dead letter
-- ARGV[3]  for how long (ms) a write fails until it is one in any case; 0 for ever
-- ARGV[4]  how many dead letters there are at most
-- ARGV[5]  the window, ms
-- ARGV[6..]  for each value: the key, the version that was claimed, the version that failed, the kind of failure, when
--            to try again (ms from now), the reason
-- reply    for each value: 1 if it is a dead letter now, 0 if it is tried again, 2 if it could not be one; {-1} if the
--          lease is another's
--
-- The kinds: 2 will always fail, 1 failed alone, 0 failed and nobody knows whether the origin works. The latter counts
-- only if the origin has taken another write since the last failure: an outage makes no dead letters.
if redis.pcall('GET', KEYS[6]) ~= ARGV[1] then
  return {-1}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local done = tonumber(redis.call('HGET', KEYS[4], 'done') or 0)
local reply = {}
for i = 7, #KEYS do
  local at = 6 + (i - 7) * 6
  local key, claimed, failed, kind, delay, reason = unpack(ARGV, at, at + 5)
  local entry, outcome = redis.call('HGET', KEYS[1], key), 0
  local version, since, flight, size, tries, fails, seen, failing =
    string.match(entry or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)')
  if flight == claimed and version ~= failed then
    redis.call('ZREM', KEYS[3], key)
    redis.call('HSET', KEYS[1], key, table.concat({version, since, '0', size, '0 0 0 0 '}, ' '))
    redis.call('ZADD', KEYS[2], tonumber(since) + tonumber(ARGV[5]), key)
  elseif flight == claimed then
    redis.call('ZREM', KEYS[3], key)
    if kind ~= '0' or done > tonumber(seen) then
      fails = fails + 1
    end
    if failing == '0' then
      failing = string.format('%.0f', now)
    end
    local limit = tonumber(ARGV[3])
    local dead = kind == '2' or tonumber(fails) >= tonumber(ARGV[2]) or limit > 0 and now - tonumber(failing) >= limit
    if dead and redis.call('HEXISTS', KEYS[5], key) == 0 and redis.call('HLEN', KEYS[5]) >= tonumber(ARGV[4]) then
      dead, outcome = false, 2
    end
    tries = tries + 1
    if dead then
      outcome = 1
      local value = redis.pcall('GET', KEYS[i])
      if type(value) ~= 'string' then
        value = ''
      end
      redis.call('HSET', KEYS[5], key, string.format('%s %.0f %d %d ', version, now, tries, #reason) .. reason .. value)
      redis.call('HDEL', KEYS[1], key)
      redis.call('DEL', KEYS[i])
      redis.call('HINCRBY', KEYS[4], 'dead', 1)
    else
      redis.call('HSET', KEYS[1], key, string.format('%s %s 0 %s %d %d %.0f %s ', version, since, size, tries, fails, done, failing) .. reason)
      redis.call('ZADD', KEYS[2], now + tonumber(delay), key)
    end
  end
  table.insert(reply, outcome)
end
return reply
