#!lua
-- KEYS[1..]  the state of a subject with one limit, a bucket: until when it fills, 13 digits of Unix ms and
--          then ticks if any; expires then
-- ARGV[1]  burst
-- ARGV[2]  ticks in a ms
-- ARGV[3]  ticks for a unit
-- ARGV[4..]  for each key a cost and a count: so many times cost units, each whole or not at all
--          behind them, in tests only: now, Unix us
-- reply    {now in Unix ms, then for each key how often it was granted, and the ticks until it is full}
--
-- What decide.lua does for a limit of kind b, and does so slower. The same key may come again.
local ticks, unit = tonumber(ARGV[2]), tonumber(ARGV[3])
local full = tonumber(ARGV[1]) * unit
local now, us, longer = ARGV[4 + #KEYS * 2], nil, 0
if now then
  longer, us = 86400000, tonumber(now) % 1000
  now = (now - us) / 1000
else
  local time = redis.call('TIME')
  us = time[2] % 1000
  now = time[1] * 1000 + (time[2] - us) / 1000
end
local past = math.floor(us * ticks / 1000) -- ticks of this ms that are over
local find, sub = string.find, string.sub
local reply = {now}
local values, written = redis.call('MGET', unpack(KEYS)), {} -- one that is no string is not there

for i = 1, #KEYS do
  local key, cost, count = KEYS[i], tonumber(ARGV[i * 2 + 2]), tonumber(ARGV[i * 2 + 3])
  local value, level, dirty = written[key] or values[i], 0, false
  if value and find(value, '^%d+$') then
    local rest = sub(value, 14)
    level = (tonumber(sub(value, 1, 13)) - now) * ticks - past
    if rest ~= '' then
      level = level + (#rest > 16 and 9007199254740992 or tonumber(rest))
    end
    if level < 0 then
      level = 0
    elseif level > full then
      level, dirty = full, true -- the clock stepped back
    end
  end
  local free, price = full - level, cost * unit
  local granted = price <= free and math.min(count, (free - free % price) / price) or 0
  if granted > 0 then
    level = level + granted * price
  elseif not dirty and level > 0 then
    dirty = redis.call('PTTL', key) == -1 -- it has lost its expiry, and gets it back
  end
  if granted > 0 or dirty then
    local rest = (past + level) % ticks
    local ms = (past + level - rest) / ticks
    value = now + ms .. (rest == 0 and '' or rest < 1e14 and rest or string.format('%.0f', rest))
    redis.call('SET', key, value, 'PX', ms + 1 + longer)
    written[key] = value
  end
  reply[i * 2], reply[i * 2 + 1] = granted, level
end
return reply
