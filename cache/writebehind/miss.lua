#!lua
-- KEYS[1]  the value
-- KEYS[2]  who loads it: a token
-- ARGV[1]  token of who wants to
-- ARGV[2]  how long it lasts, ms
-- reply    the value; nil if there is none, and the token stands
local value = redis.call('GET', KEYS[1])
if not value then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
return value
