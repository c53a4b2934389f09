#!lua
-- KEYS[1]  the entry
-- KEYS[2]  who fills it: a token
-- KEYS[3]  who waits for it: channel, a space, id
-- ARGV[1]  the entry to store
-- ARGV[2]  its time to live, ms
-- reply    1
--
-- What others are loading is older: their token goes.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
local waiting = redis.pcall('SMEMBERS', KEYS[3])
redis.call('DEL', KEYS[3])
for _, who in ipairs(waiting) do
  local channel, id = string.match(who, '^(%S+) (.*)$')
  if channel then
    redis.call('PUBLISH', channel, id)
  end
end
return 1
