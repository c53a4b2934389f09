#!lua flags=allow-oom
-- KEYS[1]  the session
-- KEYS[2]  its user's index, if it has a user
-- ARGV[1]  for how long it is remembered that it was ended, ms
-- ARGV[2]  1 to remember it also where there is no session
-- reply    {1, ''} if there was one; {0, ''} if not; {3, place} if it is there now, and has to be ended too
local record = redis.call('GET', KEYS[1])
if KEYS[2] then
  redis.call('ZREM', KEYS[2], string.match(KEYS[1], '[^:]*$'))
end
if record == '-' or not record and ARGV[2] ~= '1' then
  return {0, ''}
end
redis.call('SET', KEYS[1], '-', 'PX', ARGV[1])
if not record then
  return {0, ''}
end
local place = string.match(record, '^2([^\n]*)\n')
if place then
  return {3, place}
end
return {1, ''}
