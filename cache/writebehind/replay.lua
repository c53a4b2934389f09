#!lua
-- KEYS[1]  the value
-- KEYS[2]  the log: what is known of each key that waits, a dot before it; and four counts
-- KEYS[3]  when each key is due, ms
-- KEYS[4]  the dead letters
-- KEYS[5]  who loads the value: a token
-- ARGV[1]  the key
-- ARGV[2]  the version of the letter; empty for any
-- ARGV[3]  1 to write it again, 0 to throw it away
-- reply    1 if that is done; 0 if there is no such letter; 2 if it is thrown away for a newer write that waits
local letter = redis.call('HGET', KEYS[4], ARGV[1])
local version, _, _, long, at = string.match(letter or '', '^(%d+) (%d+) (%d+) (%d+) ()')
if not version or ARGV[2] ~= '' and ARGV[2] ~= version then
  return 0
end
if ARGV[3] ~= '1' then
  redis.call('HDEL', KEYS[4], ARGV[1])
  return 1
end
if redis.call('HEXISTS', KEYS[2], '.' .. ARGV[1]) == 1 then
  redis.call('HDEL', KEYS[4], ARGV[1])
  return 2
end
local value = string.sub(letter, at + tonumber(long))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[3], now, ARGV[1]) -- first, as it may fail: then the letter stays
redis.call('HSET', KEYS[2], '.' .. ARGV[1], string.format('0 0 %.0f %d %s 1 0 0 0 ', now, #value, version))
redis.call('SET', KEYS[1], value)
redis.call('DEL', KEYS[5])
redis.call('HDEL', KEYS[4], ARGV[1])
return 1
