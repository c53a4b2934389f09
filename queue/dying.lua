#!lua flags=no-writes
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- ARGV[1]  how many messages at most
-- reply    the receipt, the blob and the reason (or nil) of each message that is to be moved to the dead letters
local base = string.sub(KEYS[1], 1, -5)
local out = {}
for _, member in ipairs(redis.call('ZRANGE', base .. 'dead', 0, ARGV[1] - 1)) do
  local id = string.match(member, '^[^:]+')
  out[#out + 1] = member
  out[#out + 1] = redis.call('HGET', base .. 'msg', id)
  out[#out + 1] = redis.call('HGET', base .. 'why', id)
end
return out
