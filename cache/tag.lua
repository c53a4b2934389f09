#!lua
-- KEYS[1]  the tag's generation
-- ARGV[1]  a generation that never was, if there is none
-- ARGV[2]  how long it has to last from now on, ms
-- reply    the generation
local generation = redis.pcall('GET', KEYS[1])
if type(generation) ~= 'string' then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return generation
