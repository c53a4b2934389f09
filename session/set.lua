#!lua
-- KEYS[1]  the session
-- ARGV[1]  idle timeout, ms
-- ARGV[2]  how many fields to remove
-- ARGV[3..]  the names to remove; then the fields to set: name, value, name, value ...
-- reply    1 if it was saved, 0 if the session had ended
--
-- A session that has ended is never made again: a request that was under way at its logout must not
-- bring it back.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local set = 3 + tonumber(ARGV[2])
if set > 3 then
  redis.call('HDEL', KEYS[1], unpack(ARGV, 3, set - 1))
end
if set <= #ARGV then
  redis.call('HSET', KEYS[1], unpack(ARGV, set))
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
