#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  1 to make the queue although it was deleted a moment ago
-- ARGV[2]  how many partitions; empty for as many as there are
-- ARGV[3]  1 for a FIFO queue; empty for what it is
-- ARGV[4]  for how long messages are kept by default, ms
-- ARGV[5..]  names of settings, each followed by its value
-- reply    {-1} if it was deleted; {-2} if it is not FIFO; {-3, how many} if its partitions are others; {-4} if a limit of receives
-- reply    lacks a queue for dead letters; {-5, delay, retention}, ms, if messages would not live until they can be received; else {1, 1 if it is new}, then the names and values of all its settings and counters
local base = string.sub(KEYS[1], 1, -5)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local m = redis.call('HMGET', KEYS[1], 'fifo', 'parts', 'recv', 'dlq', 'keep', 'delay')
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
local keep, delay = given.keep or m[5] or ARGV[4], given.delay or m[6] or '0'
if (given.keep or given.delay) and tonumber(delay) >= tonumber(keep) then
  return {-5, tonumber(delay), tonumber(keep)}
end
if not m[1] then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'fifo', ARGV[3] == '1' and '1' or '0', 'parts', ARGV[2] == '' and '1' or ARGV[2],
    'keep', ARGV[4], 'created', string.format('%.0f', now))
end
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
-- What the scripts ask for at every call stands in one field for each of them.
local function settings(...)
  local all = redis.call('HMGET', KEYS[1], ...)
  for i = 1, #all do
    all[i] = all[i] or '0'
  end
  return all
end
local c = settings('fifo', 'max', 'maxbytes', 'keep', 'delay', 'recv', 'flight', 'gflight', 'rate', 'per', 'grate', 'gper', 'parts')
local dlq = redis.call('HGET', KEYS[1], 'dlq')
redis.call('HSET', KEYS[1], 'cs', table.concat({c[1], c[2], c[3], c[4], c[5], c[13]}, ' '),
  'cr', table.concat({c[6], c[4], c[7], c[8], c[9], c[10], c[11], c[12], c[5], c[1], c[13]}, ' '),
  'ca', table.concat({c[1], c[6], dlq and dlq ~= '' and '1' or '0', c[7], c[4]}, ' '))
-- Without limits nothing looks at the groups that they stopped.
while m[1] == '0' and c[8] == '0' and c[11] == '0' do
  local stopped = redis.call('ZPOPMIN', base .. 'locked', 100)
  if #stopped == 0 then
    break
  end
  for i = 1, #stopped, 2 do
    if redis.call('ZSCORE', base .. 'heads', stopped[i]) then
      redis.call('RPUSH', base .. 'groups', stopped[i])
    end
  end
end
return {1, m[1] and 0 or 1, unpack(redis.call('HGETALL', KEYS[1]))}
