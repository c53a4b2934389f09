#!lua
-- KEYS[1]  the owner's token
-- KEYS[2]  the waiting tokens, first come first
-- KEYS[3]  their places: token -> until when it is kept (Unix ms), its time to live (ms), the channel that wakes it
-- KEYS[4]  is there if who asks has already gone
-- KEYS[5]  the last fencing token of the tag
-- ARGV[1]  token of who asks
-- ARGV[2]  time to live, ms
-- ARGV[3]  how long to keep a place in the queue without being asked again, ms; 0 to take none
-- ARGV[4]  channel that wakes who asks
-- ARGV[5]  how long a grant waits to be claimed, ms
-- reply    {fencing token, 0} if the lock is theirs; else {0, ms until the owner's lease ends}
--
-- Asking again with the same token claims a grant, or keeps the place.
local owner, waiting, places, counter = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
local token, keep = ARGV[1], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function take()
  -- The clock keeps the counter growing if the server has lost it; the counter, if the clock steps back.
  local last = tonumber(redis.call('GET', counter)) or 0
  if last >= 2 ^ 53 then
    return redis.error_reply('ERR the fencing counter is above 2^53')
  end
  local fence = math.max(last + 1, time[1] * 1000000 + time[2])
  redis.call('SET', owner, token, 'PX', ARGV[2])
  redis.call('SET', counter, string.format('%.0f', fence))
  return {fence, 0}
end

-- This call was overtaken by the one that gives up what it might have got.
if redis.call('EXISTS', KEYS[4]) == 1 then
  return {0, redis.call('PTTL', owner)}
end
local holder = redis.pcall('GET', owner)
if holder == token then
  return take()
end
if not holder then
  local first = redis.call('LINDEX', waiting, 0)
  while first do
    local place = redis.call('HGET', places, first)
    if first == token or not place or tonumber(string.match(place, '^%d+')) <= now then
      redis.call('LPOP', waiting)
      redis.call('HDEL', places, first)
      if first == token then
        return take()
      end
      first = redis.call('LINDEX', waiting, 0)
    else
      redis.call('LPOP', waiting)
      redis.call('HDEL', places, first)
      redis.call('SET', owner, first, 'PX', ARGV[5])
      redis.pcall('PUBLISH', string.match(place, '^%d+ %d+ (.*)'), first)
      break
    end
  end
  if not first then
    return take()
  end
end
if keep > 0 then
  local place = string.format('%.0f', now + keep) .. ' ' .. ARGV[2] .. ' ' .. ARGV[4]
  if redis.call('HSET', places, token, place) == 1 or redis.call('EXISTS', waiting) == 0 then
    redis.call('RPUSH', waiting, token)
  end
  -- Every living waiter asks again before its place is lost, so the queue outlives none of them.
  redis.call('PEXPIRE', places, keep)
  redis.call('PEXPIRE', waiting, keep)
end
return {0, redis.call('PTTL', owner)}
