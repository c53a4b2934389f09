#!lua
-- KEYS[1]  the entry
-- KEYS[2]  who fills it: a token
-- KEYS[3]  who waits for it: channel, a space, id
-- ARGV[1]  token of who has written
-- ARGV[2]  the entry to store; empty to store nothing
-- ARGV[3]  its time to live, ms
-- reply    1 if it was stored; 0 if it is removed, as after another invalidation or write
local stored = ARGV[2] ~= '' and redis.pcall('GET', KEYS[2]) == ARGV[1]
if stored then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('DEL', KEYS[1])
end
redis.call('DEL', KEYS[2])
local waiting = redis.pcall('SMEMBERS', KEYS[3])
redis.call('DEL', KEYS[3])
for _, who in ipairs(waiting) do
  local channel, id = string.match(who, '^(%S+) (.*)$')
  if channel then
    redis.call('PUBLISH', channel, id)
  end
end
return stored and 1 or 0
