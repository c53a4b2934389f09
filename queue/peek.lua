#!lua flags=no-writes
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  how many messages at most
-- reply    {-2 if there is no queue, -1 if it was deleted}; else {1}, then an empty text, or the receipt of what was received before,
-- reply    and the blob of each message that waits
local base = string.sub(KEYS[1], 1, -5)
if redis.call('HEXISTS', KEYS[1], 'fifo') == 0 then
  return {redis.call('EXISTS', KEYS[2]) - 2}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local out, left = {1}, tonumber(ARGV[1])
local function add(member, blob)
  if blob and left > 0 then
    out[#out + 1], out[#out + 2], left = member, blob, left - 1
  end
end
for _, part in ipairs({'flight', 'delay'}) do
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', base .. part, '-inf', now, 'LIMIT', 0, left)) do
    add(part == 'flight' and member or '', redis.call('HGET', base .. 'msg', string.match(member, '^[^:]+')))
  end
end
if left > 0 then
  for _, blob in ipairs(redis.call('LRANGE', base .. 'ready', 0, left - 1)) do
    add('', blob)
  end
end
for _, group in ipairs(left > 0 and redis.call('ZRANGE', base .. 'heads', 0, left - 1) or {}) do
  if left > 0 then
    for _, blob in ipairs(redis.call('LRANGE', base .. 'g:' .. group, 0, left - 1)) do
      add('', blob)
    end
  end
end
return out
