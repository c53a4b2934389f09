#!lua flags=allow-oom
-- KEYS[1]  who holds: token -> until when (Unix ms)
-- ARGV[1]  token of who extends
-- ARGV[2]  new time to live, ms
-- reply    1 if they held and still do, -1 if not
--
-- A lease that is gone is never made again: another may have got in since.
local holders, token = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = redis.call('ZSCORE', holders, token)
if not ends or tonumber(ends) <= now then
  return -1
end
redis.call('ZADD', holders, string.format('%.0f', now + tonumber(ARGV[2])), token)
local last = redis.call('ZRANGE', holders, -1, -1, 'WITHSCORES')
redis.call('PEXPIRE', holders, string.format('%.0f', tonumber(last[2]) - now))
return 1
