#!lua flags=allow-oom
-- KEYS[1]  the log: what is known of each key that waits, a dot before it; and four counts
-- KEYS[2]  when each key is due, ms
-- KEYS[3]  what is at the origin: key, since when (ms)
-- KEYS[4]  the dead letters
-- KEYS[5]  the lease of who drains
-- KEYS[6..]  for each key: the value, and who loads it
-- ARGV[1]  its token
-- ARGV[2]  how many failures make a dead letter
-- ARGV[3]  for how long (ms) a write fails until it is one in any case; 0 for ever
-- ARGV[4]  how many dead letters there are at most
-- ARGV[5]  the window, ms
-- ARGV[6]  how many writes were done when the keys were claimed
-- ARGV[7..]  for each key: the key, the number of the claim, the version that failed (0 if it could not be read), the
--            kind of failure, when to try again (ms from now), the reason
-- reply    for each key: 1 if it is a dead letter now, 0 if it is tried again, 2 if it could not be one; {-1} if the
--          lease is another's
--
-- The kinds: 3 will always fail; 2 was rejected by itself; 1 failed alone, and nobody knows whether the origin works; 0
-- failed among others, or was not tried, and does not count. Of 1 only those count before which the origin has taken another
-- write since the last failure: an outage makes no dead letters.
if redis.pcall('GET', KEYS[5]) ~= ARGV[1] then
  return {-1}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local counts = redis.call('HMGET', KEYS[1], 'done', 'version')
local done, last = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
local reply = {}
for i = 6, #KEYS, 2 do
  local at = 7 + (i - 6) * 3
  local key, claim, failed, kind, delay, reason = unpack(ARGV, at, at + 5)
  local outcome = 0
  local flight, since, size, tries, fails, seen, failing =
    string.match(redis.call('HGET', KEYS[1], '.' .. key) or '', '^(%d+) %d (%d+) (%d+) %d+ (%d+) (%d+) (%d+) (%d+)')
  local head = redis.pcall('GETRANGE', KEYS[i], 0, 24)
  local version = type(head) == 'string' and string.match(head, '^\251\1[PD](%d+) ') or '0'
  if flight == claim then
    last = math.max(last, tonumber(failed))
    redis.call('ZREM', KEYS[3], key)
  end
  if flight == claim and version ~= failed then -- it was written meanwhile
    redis.call('ZADD', KEYS[2], tonumber(since) + tonumber(ARGV[5]), key)
    redis.call('HSET', KEYS[1], '.' .. key, table.concat({'0 0', since, size, version, '0 0 0 0 '}, ' '))
  elseif flight == claim then
    if kind > '1' or kind == '1' and tonumber(ARGV[6]) > tonumber(seen) then
      fails = fails + 1
    end
    if failing == '0' then
      failing = string.format('%.0f', now)
    end
    local limit = tonumber(ARGV[3])
    local dead = kind == '3' or tonumber(fails) >= tonumber(ARGV[2]) or limit > 0 and now - tonumber(failing) >= limit
    if dead and redis.call('HEXISTS', KEYS[4], key) == 0 and redis.call('HLEN', KEYS[4]) >= tonumber(ARGV[4]) then
      dead, outcome = false, 2
    end
    tries = tries + 1
    if dead then
      outcome = 1
      local value = redis.pcall('GET', KEYS[i])
      if type(value) ~= 'string' then
        value = ''
      end
      redis.call('HSET', KEYS[4], key, string.format('%s %.0f %d %d ', failed, now, tries, #reason) .. reason .. value)
      redis.call('HDEL', KEYS[1], '.' .. key)
      redis.call('DEL', KEYS[i], KEYS[i + 1])
      redis.call('HINCRBY', KEYS[1], 'dead', 1)
    else
      redis.call('ZADD', KEYS[2], now + tonumber(delay), key)
      redis.call('HSET', KEYS[1], '.' .. key, string.format('0 0 %s %s %s %d %d %.0f %s ', since, size, failed, tries, fails, done, failing) .. reason)
    end
  end
  table.insert(reply, outcome)
end
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', last))
return reply
