#!lua
-- KEYS[1]  the value
-- KEYS[2]  who loads it: a token
-- ARGV[1]  token of who has loaded it
-- ARGV[2]  the value
-- ARGV[3]  how long it is kept, ms
-- reply    1 if it is stored; 0 if somebody has written since it was asked for
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] or redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return 1
