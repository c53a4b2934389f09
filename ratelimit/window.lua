#!lua
-- KEYS[1..]  the state of a subject with one limit, a fixed window: "index used"; expires with the window
-- ARGV[1]  limit
-- ARGV[2]  window, ms
-- ARGV[3..]  for each key a cost and a count: so many times cost units, each whole or not at all
--          behind them, in tests only: now, Unix us
-- reply    {now in Unix ms, then for each key how often it was granted, and the units left}
--
-- What decide.lua does for a limit of kind w, and does so slower. The same key may come again.
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local now, longer = ARGV[3 + #KEYS * 2], 0
if now then
  now, longer = math.floor(now / 1000), 86400000
else
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local index = (now - now % window) / window
local head = index .. ' '
local width = #head
local expiry = (index + 1) * window - now + longer
local most = 9007199254740992
local match, sub = string.match, string.sub
local reply = {now}
local values, written = redis.call('MGET', unpack(KEYS)), {} -- one that is no string is not there

for i = 1, #KEYS do
  local key, cost, count = KEYS[i], tonumber(ARGV[i * 2 + 1]), tonumber(ARGV[i * 2 + 2])
  local value, used, dirty = written[key] or values[i], 0, false
  if value then
    local digits
    if sub(value, 1, width) == head then
      digits = match(value, '^%d+$', width + 1)
    else
      local its
      its, digits = match(value, '^(%d+) (%d+)$')
      if its and (#its > 16 or tonumber(its) > index) then
        dirty = true -- the clock stepped back: what was used counts here
      else
        digits = nil
      end
    end
    if digits then
      used = #digits > 16 and most or math.min(tonumber(digits), most)
    end
  end
  local left = limit - used
  local granted = cost <= left and math.min(count, (left - left % cost) / cost) or 0
  if granted > 0 then
    used = used + granted * cost
  elseif not dirty and used > 0 then
    dirty = redis.call('PTTL', key) == -1 -- it has lost its expiry, and gets it back
  end
  if granted > 0 or dirty then
    value = head .. (used < 1e14 and used or string.format('%.0f', used))
    redis.call('SET', key, value, 'PX', expiry)
    written[key] = value
  end
  reply[i * 2], reply[i * 2 + 1] = granted, math.max(0, limit - used)
end
return reply
