#!lua
-- KEYS[1]  the session
-- KEYS[2]  its user's index, if it has a user
-- ARGV[1]  idle timeout, ms
-- ARGV[2]  absolute timeout, s; 0 for none
-- ARGV[3]  the value, a member on each line
-- reply    when it was created, Unix s; -1 if something lies there: a session, or what remembers one that was ended
if redis.call('EXISTS', KEYS[1]) == 1 then
  return -1
end
local time = redis.call('TIME')
local left = tonumber(ARGV[1])
if ARGV[2] ~= '0' then
  left = math.min(left, ARGV[2] * 1000 - math.floor(time[2] / 1000))
end
local seconds = string.format('%010.0f', tonumber(time[1]))
redis.call('SET', KEYS[1], '1' .. seconds .. ' ' .. seconds .. ' ' .. ARGV[1] .. ' ' .. ARGV[2] .. '\n' .. ARGV[3], 'PX', left)
if KEYS[2] then
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + left), string.match(KEYS[1], '[^:]*$'))
  if redis.call('PTTL', KEYS[2]) < left then
    redis.call('PEXPIRE', KEYS[2], left)
  end
end
return tonumber(time[1])
