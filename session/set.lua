#!lua
-- KEYS[1]  the session
-- ARGV[1]  idle timeout, ms
-- ARGV[2]  how many members it may have
-- ARGV[3]  how many fields to remove
-- ARGV[4..]  the names to remove; then the fields to set: name, value, name, value ...
-- reply    1 if it was saved, 0 if the session had ended, -1 if it would have too many members
--
-- A session that has ended is never made again: a request that was under way at its logout must not
-- bring it back. What has no @created is no session.
if redis.call('HEXISTS', KEYS[1], '@created') == 0 then
  return 0
end
local set = 4 + tonumber(ARGV[3])
local members, most = redis.call('HLEN', KEYS[1]) - 1, tonumber(ARGV[2])
if members + (#ARGV - set + 1) / 2 > most then
  local more = 0
  for i = 4, set - 1 do
    more = more - redis.call('HEXISTS', KEYS[1], ARGV[i])
  end
  for i = set, #ARGV, 2 do
    more = more + 1 - redis.call('HEXISTS', KEYS[1], ARGV[i])
  end
  if more > 0 and members + more > most then
    return -1
  end
end
if set > 4 then
  redis.call('HDEL', KEYS[1], unpack(ARGV, 4, set - 1))
end
if set <= #ARGV then
  redis.call('HSET', KEYS[1], unpack(ARGV, set))
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
