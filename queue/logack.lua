#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  the group
-- ARGV[2]  the token of the owner of the partition
-- ARGV[3..]  the ids of entries that are done
-- reply    {-1} if the log was deleted, {-4} if the partition is another's, {-3} if there is no group; else {1}
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
local g = ARGV[1]
if redis.pcall('GET', base .. 'own:' .. g) ~= ARGV[2] then
  return {call('EXISTS', KEYS[2]) == 1 and -1 or -4}
end
local n = call('XACK', base .. 'log', g, unpack(ARGV, 3))
local due = base .. 'due:' .. g
if n < #ARGV - 2 or call('EXISTS', due) == 1 then
  -- What stands aside is told by its place among those that are due: what the group has dead, and met again after a Seek, stays.
  for i = 3, #ARGV do
    if call('ZREM', due, ARGV[i]) == 1 then
      call('HDEL', base .. 'side:' .. g, ARGV[i])
      call('HDEL', base .. 'try:' .. g, ARGV[i])
      n = n + 1
    end
  end
  -- What is neither here nor there was acknowledged by somebody else, or its group is gone.
  if n < #ARGV - 2 then
    local r = redis.pcall('XPENDING', base .. 'log', g)
    if r.err then
      return {-3}
    end
  end
end
return {1}
