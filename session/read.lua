#!lua flags=allow-oom
-- KEYS[1]  the session
-- KEYS[2]  its user's index, if it has a user
-- reply    {the record, or nil; ms until a read should ask this again}
--
-- The idle time is extended if a twentieth of it has passed since it was.
local record = redis.call('GET', KEYS[1])
if not record then
  return {false, 0}
end
local created, idle, absolute = string.match(record, '^1%d+ (%d+) (%d+) (%d+)\n')
if not created then
  return {record, 0}
end
local time = redis.call('TIME')
local left = tonumber(idle)
if absolute ~= '0' then
  left = math.min(left, (created + absolute - time[1]) * 1000 - math.floor(time[2] / 1000))
end
if left <= 0 then
  redis.call('DEL', KEYS[1])
  return {false, 0}
end
local slack = math.ceil(idle / 20)
local due = redis.call('PTTL', KEYS[1]) - left + slack
if due > 0 then
  return {record, math.min(due, left)}
end
redis.call('SETRANGE', KEYS[1], 1, string.format('%010.0f', tonumber(time[1])))
redis.call('PEXPIRE', KEYS[1], left)
if KEYS[2] then
  local ends = time[1] * 1000 + math.floor(time[2] / 1000) + left
  redis.call('ZADD', KEYS[2], 'XX', string.format('%.0f', ends), string.match(KEYS[1], '[^:]*$'))
  if redis.call('PTTL', KEYS[2]) < left then
    redis.call('PEXPIRE', KEYS[2], left)
  end
end
return {record, math.min(slack, left)}
