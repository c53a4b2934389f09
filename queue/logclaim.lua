#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  the group
-- ARGV[2]  the token of the owner of the partition
-- ARGV[3]  the consumer's name
-- ARGV[4]  the id from which on to look
-- ARGV[5]  how many entries to look at
-- ARGV[6]  only those that have waited for so long, ms
-- reply    {-2 if there is no log, -1 if it was deleted}; {-3} if there is no group; {-4} if the partition is another's; else {1, the
-- reply    time (Unix ms), how many are gone from the stream, the last id that was looked at or empty if none is left}, then id,
-- reply    text, how often it was delivered, and for how long it has waited since (ms), of each entry
--
-- What others have read and not acknowledged is the owner's now. Consumers that have nothing any more are removed.
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
local log, g = base .. 'log', ARGV[1]
if redis.pcall('GET', base .. 'own:' .. g) ~= ARGV[2] then
  return {-4}
end
local pending = redis.pcall('XPENDING', log, g, 'IDLE', ARGV[6], ARGV[4], '+', ARGV[5])
if pending.err then
  if string.find(pending.err, '^NOGROUP') then
    return {call('HEXISTS', KEYS[1], 'parts') == 1 and -3 or call('EXISTS', KEYS[2]) - 2}
  end
  return pending
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local out = {1, now, 0, ''}
for _, p in ipairs(pending) do
  local e = call('XRANGE', log, p[1], p[1])[1]
  if e then
    if p[2] ~= ARGV[3] then
      call('XCLAIM', log, g, ARGV[3], 0, p[1], 'RETRYCOUNT', p[4], 'JUSTID')
    end
    local n = #out
    out[n + 1], out[n + 2], out[n + 3], out[n + 4] = p[1], e[2][1] == 'b' and e[2][2] or '', p[4], p[3]
  else
    call('XACK', log, g, p[1])
    out[3] = out[3] + 1
  end
end
if #pending == tonumber(ARGV[5]) then
  out[4] = pending[#pending][1]
else
  for _, fields in ipairs(call('XINFO', 'CONSUMERS', log, g)) do
    local name, has
    for i = 1, #fields, 2 do
      if fields[i] == 'name' then
        name = fields[i + 1]
      elseif fields[i] == 'pending' then
        has = fields[i + 1]
      end
    end
    if name ~= ARGV[3] and has == 0 then
      call('XGROUP', 'DELCONSUMER', log, g, name)
    end
  end
end
return out
