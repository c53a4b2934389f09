#!lua flags=no-writes
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  how many messages at most
-- ARGV[2]  at how many bytes to stop; the message that reaches them is still there
-- reply    {-2 if there is no queue, -1 if it was deleted}; else {1}, then an empty text, or the receipt of what was received before,
-- reply    and the blob of each message that waits
local base = string.sub(KEYS[1], 1, -5)
if redis.call('HEXISTS', KEYS[1], 'fifo') == 0 then
  return {redis.call('EXISTS', KEYS[2]) - 2}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local out, left, bytes = {1}, tonumber(ARGV[1]), tonumber(ARGV[2])
local function add(member, blob)
  if blob and left > 0 then
    out[#out + 1], out[#out + 2] = member, blob
    left, bytes = left - 1, bytes - #blob
    if bytes <= 0 then
      left = 0
    end
  end
end
-- One by one: the size of the next one is not known before it is read.
local function list(key)
  local i = 0
  while left > 0 do
    local blob = redis.call('LINDEX', key, i)
    if not blob then
      return
    end
    add('', blob)
    i = i + 1
  end
end
for _, part in ipairs({'flight', 'delay'}) do
  for _, member in ipairs(left > 0 and redis.call('ZRANGEBYSCORE', base .. part, '-inf', now, 'LIMIT', 0, left) or {}) do
    if left > 0 then
      add(part == 'flight' and member or '', redis.call('HGET', base .. 'msg', string.match(member, '^[^:]+')))
    end
  end
end
list(base .. 'ready')
for _, group in ipairs(left > 0 and redis.call('ZRANGE', base .. 'heads', 0, left - 1) or {}) do
  list(base .. 'g:' .. group)
end
return out
