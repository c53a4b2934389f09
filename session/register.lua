#!lua
-- KEYS[1]  the registry of ends
-- KEYS[2]  its notes
-- ARGV[1]  the place of a session
-- ARGV[2]  after which time to look whether it has ended, ms
-- ARGV[3]  the note for who is told; '' for none, '-' to leave what there is
-- reply    1
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]), ARGV[1])
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
elseif ARGV[3] ~= '-' then
  redis.call('HSET', KEYS[2], ARGV[1], string.sub(ARGV[3], 2))
end
return 1
