#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1..]  the receipts of messages that the dead letters have
-- reply    {-2 if there is no queue, -1 if it was deleted}; else {how many of them were still here}
local base = string.sub(KEYS[1], 1, -5)
if redis.call('HEXISTS', KEYS[1], 'fifo') == 0 then
  return {redis.call('EXISTS', KEYS[2]) - 2}
end
local gone, bytes = 0, 0
for i = 1, #ARGV do
  if redis.call('ZREM', base .. 'dead', ARGV[i]) == 1 then
    local id, size, flag = string.match(ARGV[i], '^([^:]+):%d+:%d+:(%d+):([-u])')
    if flag == 'u' then
      local unique = string.match(redis.call('HGET', base .. 'msg', id) or '', '^%d+ %d+ %S+ %d+ %S* (%S*)\n')
      if unique and string.match(redis.call('HGET', base .. 'unique', unique) or '', '^%S+') == id then
        redis.call('HDEL', base .. 'unique', unique)
      end
    end
    redis.call('HDEL', base .. 'msg', id)
    redis.call('HDEL', base .. 'why', id)
    gone, bytes = gone + 1, bytes + size
  end
end
if gone > 0 then
  redis.call('HINCRBY', KEYS[1], 'n', -gone)
  redis.call('HINCRBY', KEYS[1], 'size', -bytes)
  redis.call('HINCRBY', KEYS[1], 'died', gone)
end
return {gone}
