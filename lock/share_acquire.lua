#!lua
-- KEYS[1]  who holds: token -> until when (Unix ms)
-- KEYS[2]  the waiting tokens, first come first
-- KEYS[3]  their places: token -> until when it is kept (Unix ms), a space, ARGV[6], a space, the channel that wakes it
-- KEYS[4]  is there if who asks has already gone
-- KEYS[5]  the last fencing token of the tag
-- ARGV[1]  token of who asks; one that begins with w holds alone
-- ARGV[2]  time to live, ms
-- ARGV[3]  how long to keep a place in the queue without being asked again, ms; 0 to take none
-- ARGV[4]  channel that wakes who asks
-- ARGV[5]  how long a grant waits to be claimed, ms
-- ARGV[6]  how many may hold at once, who asks among them
-- reply    {1, or a fencing token for who holds alone, 0} if they hold; else {0, ms until the first lease ends}
--
-- Asking again with the same token claims a grant, or keeps the place.
local holders, waiting, places, counter = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
local token, keep = ARGV[1], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function alone(who)
  return string.sub(who, 1, 1) == 'w'
end

local function fits(limit)
  local n = redis.call('ZCARD', holders)
  return n == 0 or n < tonumber(limit) and not alone(redis.call('ZRANGE', holders, 0, 0)[1])
end

local function hold(who, ms)
  redis.call('ZADD', holders, string.format('%.0f', now + tonumber(ms)), who)
  local last = redis.call('ZRANGE', holders, -1, -1, 'WITHSCORES')
  redis.call('PEXPIRE', holders, string.format('%.0f', tonumber(last[2]) - now))
end

redis.call('ZREMRANGEBYSCORE', holders, '-inf', string.format('%.0f', now))
-- This call was overtaken by the one that gives up what it might have got.
if redis.call('EXISTS', KEYS[4]) == 1 then
  return {0, 0}
end
-- As in acquire.lua, whose counter it is; read before anything is written, since it may be no number.
local fence
if alone(token) then
  local last = tonumber(redis.call('GET', counter)) or 0
  if last >= 2 ^ 53 then
    return redis.error_reply('ERR the fencing counter is above 2^53')
  end
  fence = math.max(last + 1, time[1] * 1000000 + time[2])
end
local mine = redis.call('ZSCORE', holders, token)
if mine then
  hold(token, ARGV[2])
end
-- Grants go in order: the first who lives and does not fit holds up all behind it.
local first = redis.call('LINDEX', waiting, 0)
while first do
  local ends, limit, channel = string.match(redis.call('HGET', places, first) or '', '^(%d+) (%d+) (.*)')
  if first == token then
    ends, limit = math.huge, ARGV[6]
  end
  local lives = ends and tonumber(ends) > now
  if lives and not fits(limit) then
    break
  end
  redis.call('LPOP', waiting)
  redis.call('HDEL', places, first)
  if first == token then
    mine = true
    hold(token, ARGV[2])
  elseif lives then
    hold(first, ARGV[5])
    redis.pcall('PUBLISH', channel, first)
  end
  first = redis.call('LINDEX', waiting, 0)
end
if not mine and not first and fits(ARGV[6]) then
  mine = true
  hold(token, ARGV[2])
end
if mine and alone(token) then
  redis.call('SET', counter, string.format('%.0f', fence))
  return {fence, 0}
elseif mine then
  return {1, 0}
end
if keep > 0 then
  local place = string.format('%.0f', now + keep) .. ' ' .. ARGV[6] .. ' ' .. ARGV[4]
  if redis.call('HSET', places, token, place) == 1 or redis.call('EXISTS', waiting) == 0 then
    redis.call('RPUSH', waiting, token)
  end
  -- Every living waiter asks again before its place is lost, so the queue outlives none of them.
  redis.call('PEXPIRE', places, keep)
  redis.call('PEXPIRE', waiting, keep)
end
return {0, tonumber(redis.call('ZRANGE', holders, 0, 0, 'WITHSCORES')[2]) - now}
