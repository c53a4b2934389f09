#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  the group
-- ARGV[2]  the token of the owner of the partition
-- ARGV[3]  how many dead letters there may be
-- ARGV[4..]  for each entry its id, after how many ms it may come again, d if it is dead or m if it only moves, and what is known of its
-- ARGV       deliveries
-- reply    {-1} if the log was deleted, {-4} if the partition is another's, {-3} if there is no group; else {1}, then for each entry 1 if it stands aside, 0 if it
-- reply    is gone, 2 if there are too many dead letters: it comes again in a minute
--
-- Entries leave the stream for a hash, so that what is not done for long pins nothing there.
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
local log, g = base .. 'log', ARGV[1]
local side, try, due, dead = base .. 'side:' .. g, base .. 'try:' .. g, base .. 'due:' .. g, base .. 'dead:' .. g
if redis.pcall('GET', base .. 'own:' .. g) ~= ARGV[2] then
  return {call('EXISTS', KEYS[2]) == 1 and -1 or -4}
end
if redis.pcall('XPENDING', log, g).err then
  return {-3}
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local out = {1}
for i = 4, #ARGV, 3 do
  local id, what = ARGV[i], ARGV[i + 1]
  local code = call('HEXISTS', side, id)
  -- A dead letter that the group meets again after a Seek is in the stream and aside.
  local pending = #call('XPENDING', log, g, id, id, 1) > 0 -- else it stands aside, or was acknowledged meanwhile
  if pending then
    local e = call('XRANGE', log, id, id)[1]
    if e then
      local blob = ''
      for f = 1, #e[2], 2 do
        if e[2][f] == 'b' then
          blob = e[2][f + 1]
        end
      end
      call('HSET', side, id, blob)
      code = 1
    end
  elseif what == 'm' and code == 1 then
    what = 'stays'
  end
  if code == 1 and what ~= 'stays' then
    call('HSET', try, id, ARGV[i + 2])
    if what == 'd' and not call('ZSCORE', dead, id) and call('ZCARD', dead) >= tonumber(ARGV[3]) then
      what, code = 60000, 2
    end
    if what == 'd' then
      call('ZADD', dead, now, id)
      call('ZREM', due, id)
    else
      call('ZADD', due, what == 'm' and 0 or now + what, id)
      call('ZREM', dead, id)
    end
  end
  if pending then -- at last, so that an error on the way loses nothing
    call('XACK', log, g, id)
  end
  out[#out + 1] = code
end
return out
