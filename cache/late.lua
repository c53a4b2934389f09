#!lua
-- KEYS[1]  who loads beside somebody else: token -> until when, Unix ms
-- ARGV[1]  token of who asks
-- ARGV[2]  how many may
-- ARGV[3]  for how long, ms
-- reply    1 if who asks may, else 0
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
