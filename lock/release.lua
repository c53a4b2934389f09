#!lua flags=allow-oom
-- KEYS[1]  the owner's token
-- KEYS[2]  the waiting tokens, first come first
-- KEYS[3]  their places: token -> until when it is kept (Unix ms), a space, the channel that wakes it
-- ARGV[1]  token of who leaves
-- ARGV[2]  how long a grant waits to be claimed, ms
-- reply    1 if the lock was theirs, else 0
--
-- Gives up the lock, which goes to the first who waits and lives; or, without the lock, the place.
local owner, waiting, places, token = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
if redis.pcall('GET', owner) ~= token then
  if redis.call('HDEL', places, token) == 1 then
    redis.call('LREM', waiting, 1, token)
  end
  return 0
end
local first = redis.call('LPOP', waiting)
if not first then
  redis.call('DEL', owner)
  return 1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
while first do
  local place = redis.call('HGET', places, first)
  redis.call('HDEL', places, first)
  if place and tonumber(string.match(place, '^%d+')) > now then
    redis.call('SET', owner, first, 'PX', ARGV[2])
    redis.call('PUBLISH', string.match(place, ' (.*)'), first)
    return 1
  end
  first = redis.call('LPOP', waiting)
end
redis.call('DEL', owner)
return 1
