#!lua flags=no-writes
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  the time (Unix ms), in tests
-- reply    {-2 if there is no queue, -1 if it was deleted}; else {messages, those in flight, those delayed, those to be moved to the
-- reply    dead letters, bytes, age in ms of the oldest that waits or -1, groups with messages, 1 if paused, sent, acked, expired}
local base = string.sub(KEYS[1], 1, -5)
local m = redis.call('HMGET', KEYS[1], 'fifo', 'paused', 'n', 'size', 'sent', 'acked', 'expired')
if not m[1] then
  return {redis.call('EXISTS', KEYS[2]) - 2}
end
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local oldest
local function old(sent)
  sent = tonumber(sent)
  if sent and (not oldest or sent < oldest) then
    oldest = sent
  end
end
old(string.match(redis.call('LINDEX', base .. 'ready', 0) or '', '^%d+'))
old(redis.call('ZRANGE', base .. 'heads', 0, 0, 'WITHSCORES')[2])
for _, part in ipairs({'flight', 'delay'}) do
  local due = redis.call('ZRANGEBYSCORE', base .. part, '-inf', now, 'LIMIT', 0, 1)[1]
  if due then
    old(string.match(redis.call('HGET', base .. 'msg', string.match(due, '^[^:]+')) or '', '^%d+'))
  end
end
return {math.max(0, tonumber(m[3]) or 0), redis.call('ZCOUNT', base .. 'flight', '(' .. now, '+inf'), redis.call('ZCOUNT', base .. 'delay', '(' .. now, '+inf'),
  redis.call('ZCARD', base .. 'dead'), math.max(0, tonumber(m[4]) or 0), oldest and math.max(0, now - oldest) or -1, redis.call('ZCARD', base .. 'heads'),
  tonumber(m[2]) or 0, tonumber(m[5]) or 0, tonumber(m[6]) or 0, tonumber(m[7]) or 0}
