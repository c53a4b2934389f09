#!lua
-- KEYS[1]  the session
-- KEYS[2]  where it moves
-- KEYS[3]  its user's index, if it has a user
-- ARGV[1]  for how long the old key still answers, ms; 0 for not at all
-- ARGV[2]  the place of KEYS[2]
-- ARGV[3]  for how long it is remembered that the old key was ended, ms
-- ARGV[4]  the value's own key for its new place, if it is sealed, else ''
-- reply    {1, ''}; {0, ''} if the session has ended; {3, place} if it has moved already
local record = redis.call('GET', KEYS[1])
if not record or record == '-' then
  return {0, ''}
end
local place = string.match(record, '^2([^\n]*)\n')
if place then
  return {3, place}
end
local created, idle, absolute = string.match(record, '^1%d+ (%d+) (%d+) (%d+)\n')
if not created then
  return redis.error_reply('ERR the key holds no session')
end
local time = redis.call('TIME')
local left = tonumber(idle)
if absolute ~= '0' then
  left = math.min(left, (created + absolute - time[1]) * 1000 - math.floor(time[2] / 1000))
end
if left <= 0 then
  redis.call('DEL', KEYS[1])
  return {0, ''}
end
local new = '1' .. string.format('%010.0f', tonumber(time[1])) .. string.sub(record, 12)
if ARGV[4] ~= '' then
  local head, tail = string.match(new, '^([^\n]*\n{"@k":)"[^"]*"(.*)$')
  if not head then
    return redis.error_reply('ERR the session is not sealed')
  end
  new = head .. ARGV[4] .. tail
end
redis.call('SET', KEYS[2], new, 'PX', left)
if ARGV[1] == '0' then
  redis.call('SET', KEYS[1], '-', 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], '2' .. ARGV[2] .. '\n' .. record, 'PX', math.min(left, tonumber(ARGV[1])))
end
if KEYS[3] then
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now))
  redis.call('ZREM', KEYS[3], string.match(KEYS[1], '[^:]*$'))
  redis.call('ZADD', KEYS[3], string.format('%.0f', now + left), string.match(KEYS[2], '[^:]*$'))
  if redis.call('PTTL', KEYS[3]) < left then
    redis.call('PEXPIRE', KEYS[3], left)
  end
end
return {1, ''}
