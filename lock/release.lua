#!lua flags=allow-oom
-- KEYS[1]  the owner's token
-- KEYS[2]  the waiting tokens, first come first
-- KEYS[3]  their places: token -> until when it is kept (Unix ms), its time to live (ms), the channel that wakes it
-- KEYS[4]  is there if who leaves must get nothing any more
-- KEYS[5]  the last fencing token of the tag
-- ARGV[1]  token of who leaves
-- ARGV[2]  how long a grant waits to be claimed, ms
-- ARGV[3]  for how long to refuse what who leaves may still be asking for, ms; 0 if that was answered
-- ARGV[4]  channel of the process that leaves: it tells its own waiters, whose grant needs no claim
-- reply    {1 if the lock was theirs else 0, token that ARGV[4] has to be told of or '', its fencing token}
--
-- Gives up the lock, which goes to the first who waits and lives; or, without the lock, the place.
local owner, waiting, places, token = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
if ARGV[3] ~= '0' then
  redis.call('SET', KEYS[4], '', 'PX', ARGV[3])
end
if redis.pcall('GET', owner) ~= token then
  if redis.call('HDEL', places, token) == 1 then
    redis.call('LREM', waiting, 1, token)
  end
  return {0, '', 0}
end
local first = redis.call('LPOP', waiting)
if first then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  while first do
    local place = redis.call('HGET', places, first)
    redis.call('HDEL', places, first)
    local ends, ttl, channel = string.match(place or '', '^(%d+) (%d+) (.*)')
    if ends and tonumber(ends) > now then
      -- As in acquire.lua; where the counter is no number, the claim says so.
      local last = redis.pcall('GET', KEYS[5])
      last = type(last) == 'table' and 2 ^ 53 or tonumber(last) or 0
      if channel ~= ARGV[4] or last >= 2 ^ 53 then
        redis.call('SET', owner, first, 'PX', ARGV[2])
        redis.pcall('PUBLISH', channel, first)
        return {1, '', 0}
      end
      local fence = math.max(last + 1, time[1] * 1000000 + time[2])
      redis.call('SET', owner, first, 'PX', ttl)
      redis.call('SET', KEYS[5], string.format('%.0f', fence))
      return {1, first, fence}
    end
    first = redis.call('LPOP', waiting)
  end
end
redis.call('DEL', owner)
return {1, '', 0}
