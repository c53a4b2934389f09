#!lua flags=allow-oom
-- KEYS[1]  who holds: token -> until when (Unix ms)
-- KEYS[2]  the waiting tokens, first come first
-- KEYS[3]  their places: token -> until when it is kept (Unix ms), a space, how many may hold, a space, the channel
-- KEYS[4]  is there if who leaves must get nothing any more
-- ARGV[1]  token of who leaves
-- ARGV[2]  how long a grant waits to be claimed, ms
-- ARGV[3]  for how long to refuse what who leaves may still be asking for, ms; 0 if that was answered
-- reply    {1 if they held else 0, '', 0}
--
-- Gives up the hold or the place. Both may let others in: a writer that waits no longer frees the readers
-- behind it.
local holders, waiting, places, token = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function fits(limit)
  local n = redis.call('ZCARD', holders)
  return n == 0 or n < tonumber(limit) and string.sub(redis.call('ZRANGE', holders, 0, 0)[1], 1, 1) ~= 'w'
end

if ARGV[3] ~= '0' then
  redis.call('SET', KEYS[4], '', 'PX', ARGV[3])
end
redis.call('ZREMRANGEBYSCORE', holders, '-inf', string.format('%.0f', now))
local held = redis.call('ZREM', holders, token)
if held == 0 and redis.call('HDEL', places, token) == 1 then
  redis.call('LREM', waiting, 1, token)
end
local first = redis.call('LINDEX', waiting, 0)
while first do
  local ends, limit, channel = string.match(redis.call('HGET', places, first) or '', '^(%d+) (%d+) (.*)')
  local lives = ends and tonumber(ends) > now
  if lives and not fits(limit) then
    break
  end
  redis.call('LPOP', waiting)
  redis.call('HDEL', places, first)
  if lives then
    redis.call('ZADD', holders, string.format('%.0f', now + tonumber(ARGV[2])), first)
    local last = redis.call('ZRANGE', holders, -1, -1, 'WITHSCORES')
    redis.call('PEXPIRE', holders, string.format('%.0f', tonumber(last[2]) - now))
    redis.pcall('PUBLISH', channel, first)
  end
  first = redis.call('LINDEX', waiting, 0)
end
return {held, '', 0}
