#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  the group
-- ARGV[2]  make: it is made if it is not there; seek: its position is set, what it has not acknowledged is forgotten; delete
-- ARGV[3]  the id before which nothing is delivered to it, or $ for what comes; with delete, empty
-- ARGV[4]  how many groups there may be
-- reply    {-2 if there is no log, -1 if it was deleted}; {-3} if there is no such group; {-5, last id} if the position is one that
-- reply    the log has not reached; {-6} if there are too many groups; else {1, 1 if it was made}
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
local m = call('HMGET', KEYS[1], 'parts', 'last')
if not m[1] then
  return {call('EXISTS', KEYS[2]) - 2}
end
local log, g = base .. 'log', ARGV[1]
local there, groups = false, redis.pcall('XINFO', 'GROUPS', log)
local count = 0
if not groups.err then
  count = #groups
  for _, fields in ipairs(groups) do
    for i = 1, #fields, 2 do
      there = there or fields[i] == 'name' and fields[i + 1] == g
    end
  end
end
if ARGV[2] == 'make' and there then
  return {1, 0}
end
if ARGV[2] ~= 'make' and not there then
  if ARGV[2] == 'delete' then
    call('SREM', base .. 'groups', g)
    call('DEL', base .. 'own:' .. g, base .. 'side:' .. g, base .. 'try:' .. g, base .. 'due:' .. g, base .. 'dead:' .. g, base .. 'members:' .. g)
  end
  return {-3}
end
if ARGV[2] == 'make' and count >= tonumber(ARGV[4]) then
  return {-6}
end
if ARGV[2] ~= 'delete' and ARGV[3] ~= '$' and ARGV[3] ~= '0' then
  local newest = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)
  local last = not newest.err and newest[1] and newest[1][1] or m[2] or '0-0'
  local ms, n = string.match(ARGV[3], '^(%d+)%-(%d+)$')
  local lastms, lastn = string.match(last, '^(%d+)%-(%d+)$')
  ms, n, lastms, lastn = tonumber(ms), tonumber(n), tonumber(lastms), tonumber(lastn)
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  -- A time of now or before is no position of the future, whatever came last.
  if (ms > lastms or ms == lastms and n > lastn) and ms > now then
    return {-5, last}
  end
end
if ARGV[2] ~= 'make' then
  call('XGROUP', 'DESTROY', log, g)
  -- Who has the partition has lost it, so nothing that was delivered before counts any more.
  call('DEL', base .. 'own:' .. g)
  for _, one in ipairs(call('ZRANGE', base .. 'wait', 0, -1)) do
    local channel, id = string.match(one, '^(%S+) (%S+)$')
    if channel then
      redis.pcall('PUBLISH', channel, id)
    end
  end
  call('DEL', base .. 'wait')
  local due = call('ZRANGE', base .. 'due:' .. g, 0, -1)
  for i = 1, #due, 1000 do
    local some = {unpack(due, i, math.min(i + 999, #due))}
    call('HDEL', base .. 'side:' .. g, unpack(some))
    call('HDEL', base .. 'try:' .. g, unpack(some))
  end
  call('DEL', base .. 'due:' .. g)
end
if ARGV[2] == 'delete' then
  call('SREM', base .. 'groups', g)
  call('DEL', base .. 'side:' .. g, base .. 'try:' .. g, base .. 'dead:' .. g, base .. 'members:' .. g)
  return {1, 0}
end
call('XGROUP', 'CREATE', log, g, ARGV[3], 'MKSTREAM')
call('SADD', base .. 'groups', g)
return {1, 1}
