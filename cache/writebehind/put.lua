#!lua
-- KEYS[1]  the value
-- KEYS[2]  the log: what is known of each key that waits
-- KEYS[3]  when each key is due, ms
-- KEYS[4]  the counters of the partition
-- KEYS[5]  who loads the value: a token
-- ARGV[1]  the key
-- ARGV[2]  what the value begins with
-- ARGV[3]  the value
-- ARGV[4]  the window, ms
-- ARGV[5]  how many keys the log holds at most
-- reply    the version of the write, as text; 0 if the log is full
--
-- A key that waits keeps its place: the newest value goes out when the first was due. One that is at the origin
-- just now gets a place when that call has ended.
local old = redis.call('HGET', KEYS[2], ARGV[1])
if not old and redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[5]) then
  return '0'
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local version = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('HGET', KEYS[4], 'version') or 0)
if version <= last then
  version = last + 1
end
version = string.format('%.0f', version)
local since, flight, due = now, '0', true
if old then
  local was, begun, at, tries = string.match(old, '^(%d+) (%d+) (%d+) %d+ (%d+)')
  flight = at
  due = at == '0' and tries ~= '0'
  if not due and was ~= at then
    since = tonumber(begun)
  end
end
local value = ARGV[2] .. version .. ' ' .. ARGV[3]
redis.call('HSET', KEYS[4], 'version', version)
redis.call('SET', KEYS[1], value)
redis.call('HSET', KEYS[2], ARGV[1], string.format('%s %.0f %s %d 0 0 0 0 ', version, since, flight, #value))
if due then
  redis.call('ZADD', KEYS[3], now + tonumber(ARGV[4]), ARGV[1])
end
redis.call('DEL', KEYS[5])
return version
