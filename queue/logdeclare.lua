#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  1 to make the log although it was deleted a moment ago
-- ARGV[2]  how many partitions; empty for as many as there are
-- ARGV[3]  for how long entries are kept by default, ms
-- ARGV[4]  for how long dead letters are, ms
-- ARGV[5]  when the first partition was made (Unix ms); empty for the first one
-- ARGV[6..]  names of settings, each followed by its value
-- reply    {-1} if it was deleted; {-3, how many} if its partitions are others; else {1, partitions, when it was made}
local m = redis.call('HMGET', KEYS[1], 'parts', 'created')
if not m[1] and ARGV[1] ~= '1' and redis.call('EXISTS', KEYS[2]) == 1 then
  return {-1}
end
if m[1] and ARGV[2] ~= '' and ARGV[2] ~= m[1] then
  return {-3, tonumber(m[1])}
end
if not m[1] then
  local time = redis.call('TIME')
  m[1] = ARGV[2] == '' and '1' or ARGV[2]
  m[2] = ARGV[5] ~= '' and ARGV[5] or string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'parts', m[1], 'created', m[2], 'keep', ARGV[3], 'keepdead', ARGV[4])
end
for i = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
return {1, tonumber(m[1]), m[2]}
