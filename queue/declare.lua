#!lua
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  1 to make the queue although it was deleted a moment ago
-- ARGV[2]  how many partitions; empty for as many as there are
-- ARGV[3]  1 for a FIFO queue; empty for what it is
-- ARGV[4]  for how long messages are kept by default, ms
-- ARGV[5..]  names of settings, each followed by its value
-- reply    {-1} if it was deleted; {-2} if it is not FIFO; {-3, how many} if its partitions are others; {-4} if a limit of receives
-- reply    lacks a queue for dead letters; else {1, 1 if it is new}, then the names and values of all its settings and counters
local base = string.sub(KEYS[1], 1, -5)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local m = redis.call('HMGET', KEYS[1], 'fifo', 'parts', 'recv', 'dlq')
local given = {}
for i = 5, #ARGV, 2 do
  given[ARGV[i]] = ARGV[i + 1]
end
if not m[1] and ARGV[1] ~= '1' and redis.call('EXISTS', KEYS[2]) == 1 then
  return {-1}
end
if m[1] == '0' and ARGV[3] == '1' then
  return {-2}
end
if m[2] and ARGV[2] ~= '' and ARGV[2] ~= m[2] then
  return {-3, tonumber(m[2])}
end
if (given.recv or m[3] or '0') ~= '0' and (given.dlq or m[4] or '') == '' then
  return {-4}
end
if not m[1] then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'fifo', ARGV[3] == '1' and '1' or '0', 'parts', ARGV[2] == '' and '1' or ARGV[2],
    'keep', ARGV[4], 'created', string.format('%.0f', now))
end
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
if given.gflight and m[1] == '0' then -- groups that the old limit stopped are looked at again
  for _, group in ipairs(redis.call('ZRANGEBYSCORE', base .. 'locked', '8e15', '+inf')) do
    redis.call('ZADD', base .. 'locked', string.format('%.0f', now), group)
  end
end
return {1, m[1] and 0 or 1, unpack(redis.call('HGETALL', KEYS[1]))}
