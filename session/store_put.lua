#!lua
-- KEYS[1]  what is kept for a token
-- KEYS[2]  the index of its shard
-- ARGV[1]  for how long, ms
-- ARGV[2]  the bytes, behind a 1
-- reply    1 if they are kept; 0 if the token was deleted before
if redis.call('GETRANGE', KEYS[1], 0, 0) == '-' then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[1]), string.match(KEYS[1], '[^:]*$'))
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[1]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
return 1
