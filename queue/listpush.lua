#!lua
-- KEYS[1]  the list
-- ARGV[1]  how many items it may have; 0 is no limit
-- ARGV[2..]  items, in order
-- reply    how many items it has then, or -1 if there is no room for all of them: it has none of them then
local n = redis.call('LLEN', KEYS[1])
if ARGV[1] ~= '0' and n + #ARGV - 1 > tonumber(ARGV[1]) then
  return -1
end
return redis.call('LPUSH', KEYS[1], unpack(ARGV, 2))
