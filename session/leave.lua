#!lua
-- KEYS[1]  the session
-- KEYS[2]  its user's index, if it has a user
-- ARGV[1]  for how long the key still answers, ms; 0 for not at all
-- ARGV[2]  the place where the session is now
-- ARGV[3]  for how long it is remembered that the old key was ended, ms
-- reply    {1, the record as it was}; {0, ''} if the session has ended; {3, place} if it has moved already
local record = redis.call('GET', KEYS[1])
if not record or record == '-' then
  return {0, ''}
end
local place = string.match(record, '^2([^\n]*)\n')
if place then
  return {3, place}
end
local left = redis.call('PTTL', KEYS[1])
if ARGV[1] == '0' or left < 1 then
  redis.call('SET', KEYS[1], '-', 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], '2' .. ARGV[2] .. '\n' .. record, 'PX', math.min(left, tonumber(ARGV[1])))
end
if KEYS[2] then
  redis.call('ZREM', KEYS[2], string.match(KEYS[1], '[^:]*$'))
end
return {1, record}
