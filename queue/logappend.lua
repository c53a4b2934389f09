#!lua
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  how many partitions the log has
-- ARGV[2..]  the entries
-- reply    {-2 if there is no log or it has other partitions, -1 if it was deleted}; else {1, the number of the first entry, why the
-- reply    next one was not taken: 0 all were, 1 the log is full, else the server's words}, then the ids of those that were taken
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
local m = call('HMGET', KEYS[1], 'parts', 'max', 'maxbytes', 'seq', 'cum', 'first', 'firstcum')
if m[1] ~= ARGV[1] then
  return {m[1] and -2 or call('EXISTS', KEYS[2]) - 2}
end
local max, maxbytes = tonumber(m[2]) or 0, tonumber(m[3]) or 0
local seq, cum = tonumber(m[4]) or 0, tonumber(m[5]) or 0
local first, firstcum = tonumber(m[6]) or 1, tonumber(m[7]) or 0
local log = base .. 'log'
local out = {1, seq + 1, 0}
for i = 2, #ARGV do
  local size = #ARGV[i]
  if max > 0 and seq + 2 - first > max or maxbytes > 0 and cum + size - firstcum > maxbytes then
    out[3] = 1
    break
  end
  -- An entry knows its number, and how many bytes came before it: so counts and sizes need no look at the others.
  local id = redis.pcall('XADD', log, '*', 'b', string.format('%.0f %.0f ', seq + 1, cum) .. ARGV[i])
  if type(id) ~= 'string' then
    out[3] = id.err
    break
  end
  seq, cum = seq + 1, cum + size
  out[#out + 1] = id
end
if #out > 3 then
  call('HSET', KEYS[1], 'seq', string.format('%.0f', seq), 'cum', string.format('%.0f', cum), 'last', out[#out])
  local wait = base .. 'wait'
  local who = redis.pcall('ZRANGE', wait, 0, -1)
  if who[1] then
    call('DEL', wait)
    for _, one in ipairs(who) do
      local channel, id = string.match(one, '^(%S+) (%S+)$')
      if channel then
        redis.pcall('PUBLISH', channel, id)
      end
    end
  end
end
return out
