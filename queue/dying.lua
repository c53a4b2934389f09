#!lua flags=no-writes
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  how many messages at most
-- ARGV[2]  how many of the first ones to leave out
-- reply    {-2 if there is no queue, -1 if it was deleted}; else {1}, then the receipt, the blob and the reason (or nil) of each message that is to be moved to the dead letters
local base = string.sub(KEYS[1], 1, -5)
if redis.call('HEXISTS', KEYS[1], 'fifo') == 0 then
  return {redis.call('EXISTS', KEYS[2]) - 2}
end
local out = {1}
for _, member in ipairs(redis.call('ZRANGE', base .. 'dead', ARGV[2], ARGV[1] + ARGV[2] - 1)) do
  local id = string.match(member, '^[^:]+')
  out[#out + 1] = member
  out[#out + 1] = redis.call('HGET', base .. 'msg', id)
  out[#out + 1] = redis.call('HGET', base .. 'why', id)
end
return out
