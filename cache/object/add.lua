#!lua
-- KEYS[1]  the object
-- ARGV[1]  the field
-- ARGV[2]  what is added
-- ARGV[3]  i for a whole number, f for another one
-- ARGV[4]  the least a whole number may be; empty for 64 bits
-- ARGV[5]  the most
-- reply    the new value, as text; nil if there is no object; an error that begins with RANGE if it would be out of range
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local had = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[3] == 'f' then -- the server counts on beyond 64 bits
  local sum = (tonumber(had or 0) or 0) + tonumber(ARGV[2])
  if sum == math.huge or sum == -math.huge then
    return redis.error_reply('RANGE the field would be out of range')
  end
  return redis.call('HINCRBYFLOAT', KEYS[1], ARGV[1], ARGV[2])
end
if had and ARGV[4] == '0' and string.match(had, '^%d+$') and (#had > 19 or #had == 19 and had > '9223372036854775807') then
  return redis.error_reply('RANGE the field is beyond what the server counts')
end
local has = redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
if ARGV[4] ~= '' and has < tonumber(ARGV[4]) or ARGV[5] ~= '' and has > tonumber(ARGV[5]) then
  if had then
    redis.call('HSET', KEYS[1], ARGV[1], had)
  else
    redis.call('HDEL', KEYS[1], ARGV[1])
  end
  return redis.error_reply('RANGE the field would be out of range')
end
return redis.call('HGET', KEYS[1], ARGV[1])
