#!lua flags=no-writes
-- KEYS[1]  the registry of ends
-- KEYS[2]  its notes
-- ARGV[1]  how many at most
-- reply    place, note, place, note ... of those to look at
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local reply = {}
for _, place in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  reply[#reply + 1] = place
  reply[#reply + 1] = redis.call('HGET', KEYS[2], place) or ''
end
return reply
