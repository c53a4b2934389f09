#!lua
-- KEYS[1]  units used by the subject in its window; expires at the window's end
-- ARGV[1]  limit
-- ARGV[2]  window, ms
-- ARGV[3]  cost
-- reply    {1 if allowed else 0, units used, the window's end, now}; the times in Unix ms
--
-- Foreign values and keys without an expiry are healed: they end with the window.
local key, limit, window, cost = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = now - now % window + window

local used = tonumber(redis.pcall('GET', key))
local expires = redis.call('PEXPIRETIME', key)
-- A server removes a key up to 1 ms after its time: what ends before this window does is over.
if not (used and used >= 0) or (expires ~= -1 and expires < ends) then
  used = 0
end
used = math.min(used, limit)
-- A sum could round where a difference can't: limit and cost go up to 2^53.
if cost <= limit - used then
  used = used + cost
  redis.call('SET', key, used, 'PXAT', ends)
  return {1, used, ends, now}
end
if expires == -1 then
  redis.call('PEXPIREAT', key, ends)
end
return {0, used, ends, now}
