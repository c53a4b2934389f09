#!lua
-- KEYS[1]  the session
-- KEYS[2]  its user's index, if it has a user
-- ARGV[1]  options, if it begins with "@=": how many bytes the record may have, c to compare what is replaced, x to
--          extend the idle time; else the first of the members
-- ARGV[2..]  for each member: name, value ('' to remove it), and if it is compared what it was ('' for none)
-- reply    {1, ms until a read should extend the idle time, 0 if it was not}; {0, 0} if the session has ended;
--          {2, member} if that is not what it was; {3, place} if the session is there now; {4, bytes} if there would be
--          too many
--
-- A session that has ended is never made again. Members whose names begin with '@' are not compared.
local record = redis.call('GET', KEYS[1])
if not record or record == '-' then
  return {0, 0}
end
local place = string.match(record, '^2([^\n]*)\n')
if place then
  return {3, place}
end
local created, idle, absolute, body = string.match(record, '^1%d+ (%d+) (%d+) (%d+)\n{(.*)}$')
if not created then
  return redis.error_reply('ERR the key holds no session')
end
local options = string.match(ARGV[1], '^@=(.*)$')
local most = tonumber(string.match(options or '', '%d+') or 65536)
local compare = options and string.find(options, 'c', 1, true)
local order, new, old = {}, {}, {}
for i = options and 2 or 1, #ARGV, compare and 3 or 2 do
  order[#order + 1] = ARGV[i]
  new[ARGV[i]] = ARGV[i + 1]
  if compare then
    old[ARGV[i]] = ARGV[i + 2]
  end
  if string.find(ARGV[i + 1], '\n', 1, true) then
    return redis.error_reply('ERR a value has a line end')
  end
end
local lines, changed, done = {}, false, {}
for name, value in string.gmatch(body .. ',\n', '"([^"]*)":(.-),\n') do
  local becomes = new[name]
  if becomes then
    if compare and string.byte(name) ~= 64 and old[name] ~= value then
      return {2, name}
    end
    done[name] = true
    changed = changed or becomes ~= value
    value = becomes
  end
  if value ~= '' then
    lines[#lines + 1] = '"' .. name .. '":' .. value
  end
end
for _, name in ipairs(order) do
  if not done[name] then
    if compare and string.byte(name) ~= 64 and old[name] ~= '' then
      return {2, name}
    end
    if new[name] ~= '' then
      changed = true
      lines[#lines + 1] = '"' .. name .. '":' .. new[name]
    end
  end
end
if not (options and string.find(options, 'x', 1, true)) then
  if changed then
    local saved = string.match(record, '^[^\n]*\n') .. '{' .. table.concat(lines, ',\n') .. '}'
    if #saved > most and #saved > #record then
      return {4, tostring(#saved)}
    end
    redis.call('SET', KEYS[1], saved, 'KEEPTTL')
  end
  return {1, '0'}
end
local time = redis.call('TIME')
local left = tonumber(idle)
if absolute ~= '0' then
  left = math.min(left, (created + absolute - time[1]) * 1000 - math.floor(time[2] / 1000))
end
if left <= 0 then
  redis.call('DEL', KEYS[1])
  return {0, 0}
end
local saved = '1' .. string.format('%010.0f', tonumber(time[1])) .. ' ' .. created .. ' ' .. idle .. ' ' .. absolute .. '\n{' .. table.concat(lines, ',\n') .. '}'
if #saved > most and #saved > #record then
  return {4, tostring(#saved)}
end
redis.call('SET', KEYS[1], saved, 'PX', left)
if KEYS[2] then
  local ends = time[1] * 1000 + math.floor(time[2] / 1000) + left
  redis.call('ZADD', KEYS[2], 'XX', string.format('%.0f', ends), string.match(KEYS[1], '[^:]*$'))
  if redis.call('PTTL', KEYS[2]) < left then
    redis.call('PEXPIRE', KEYS[2], left)
  end
end
return {1, tostring(math.ceil(idle / 20))}
