#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  the group
-- ARGV[2]  replay: they are delivered to the group again; discard: they are deleted
-- ARGV[3]  how many at most, if there are no ids
-- ARGV[4..]  the ids of dead letters; none for the oldest ones
-- reply    {-2 if there is no log, -1 if it was deleted}; else {1, how many there were, how many dead letters there were before}
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
if call('HEXISTS', KEYS[1], 'parts') == 0 then
  return {call('EXISTS', KEYS[2]) - 2}
end
local g = ARGV[1]
local dead = base .. 'dead:' .. g
local ids = {unpack(ARGV, 4)}
if #ids == 0 then
  ids = call('ZRANGE', dead, 0, ARGV[3] - 1)
end
local n, before = 0, call('ZCARD', dead)
for _, id in ipairs(ids) do
  if call('ZREM', dead, id) == 1 then
    n = n + 1
    if ARGV[2] == 'replay' then
      call('HSET', base .. 'try:' .. g, id, '0 0 ')
      call('ZADD', base .. 'due:' .. g, 0, id)
    else
      call('HDEL', base .. 'side:' .. g, id)
      call('HDEL', base .. 'try:' .. g, id)
    end
  end
end
if n > 0 and ARGV[2] == 'replay' then
  call('HINCRBY', KEYS[1], 'replays', 1)
  for _, one in ipairs(call('ZRANGE', base .. 'wait', 0, -1)) do
    local channel, id = string.match(one, '^(%S+) (%S+)$')
    if channel then
      redis.pcall('PUBLISH', channel, id)
    end
  end
  call('DEL', base .. 'wait')
end
return {1, n, before}
