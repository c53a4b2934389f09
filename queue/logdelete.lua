#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- reply    {-2 if there is no log, -1 if it was deleted}; else {1}
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
if call('HEXISTS', KEYS[1], 'parts') == 0 then
  return {call('EXISTS', KEYS[2]) - 2}
end
for _, g in ipairs(call('SMEMBERS', base .. 'groups')) do
  call('UNLINK', base .. 'own:' .. g, base .. 'side:' .. g, base .. 'try:' .. g, base .. 'due:' .. g, base .. 'dead:' .. g, base .. 'members:' .. g)
end
for _, one in ipairs(call('ZRANGE', base .. 'wait', 0, -1)) do
  local channel, id = string.match(one, '^(%S+) (%S+)$')
  if channel then
    redis.pcall('PUBLISH', channel, id)
  end
end
call('UNLINK', KEYS[1], base .. 'log', base .. 'groups', base .. 'wait')
call('SET', KEYS[2], '', 'PX', 60000)
return {1}
