#!lua flags=allow-oom
-- KEYS[1]  settings and counters of the first partition; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  the group
-- ARGV[2]  channel and id of who wants partitions
-- ARGV[3]  for how long that counts, ms; 0 for no more
-- reply    {-2 if there is no log, -1 if it was deleted}; else {1}, then channel and id of all who do
local call = redis.call
if call('HEXISTS', KEYS[1], 'parts') == 0 then
  return {call('EXISTS', KEYS[2]) - 2}
end
local members = string.sub(KEYS[1], 1, -5) .. 'members:' .. ARGV[1]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
call('ZREMRANGEBYSCORE', members, '-inf', now)
if ARGV[3] == '0' then
  call('ZREM', members, ARGV[2])
elseif call('ZCARD', members) < 1000 or call('ZSCORE', members, ARGV[2]) then
  call('ZADD', members, now + ARGV[3], ARGV[2])
end
return {1, unpack(call('ZRANGE', members, 0, -1))}
