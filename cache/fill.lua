#!lua
-- KEYS[1]  the entry
-- KEYS[2]  who fills it: a token
-- KEYS[3]  who waits for it: channel, a space, id
-- ARGV[1]  token of who fills
-- ARGV[2]  the entry to store; empty to store nothing
-- ARGV[3]  its time to live, ms
-- ARGV[4]  for how long nobody shall fill it again, ms; 0 for no such time
-- reply    1 if the token was still there: what was loaded is not older than any invalidation; else 0
local mine = redis.pcall('GET', KEYS[2]) == ARGV[1]
if mine then
  if ARGV[2] ~= '' then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  end
  if ARGV[4] == '0' then
    redis.call('DEL', KEYS[2])
  else
    redis.call('SET', KEYS[2], '-', 'PX', ARGV[4])
  end
end
local waiting = redis.pcall('SMEMBERS', KEYS[3])
redis.call('DEL', KEYS[3])
for _, who in ipairs(waiting) do
  local channel, id = string.match(who, '^(%S+) (.*)$')
  if channel then
    redis.call('PUBLISH', channel, id)
  end
end
return mine and 1 or 0
