#!lua flags=no-writes
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  the group
-- ARGV[2]  due for what comes again, dead for dead letters
-- ARGV[3]  the place of the first one
-- ARGV[4]  how many at most
-- ARGV[5]  at how many bytes to stop; the entry that reaches them is still there
-- reply    {-2 if there is no log, -1 if it was deleted}; else {1, the time (Unix ms), how often dead letters were replayed, how many
-- reply    were looked at}, then id, when (Unix ms), what is known of its deliveries, and text of each entry
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
if call('HEXISTS', KEYS[1], 'parts') == 0 then
  return {call('EXISTS', KEYS[2]) - 2}
end
local time = call('TIME')
local from, left = tonumber(ARGV[3]), tonumber(ARGV[5])
local out = {1, time[1] * 1000 + math.floor(time[2] / 1000), tonumber(call('HGET', KEYS[1], 'replays') or 0), 0}
local some = call('ZRANGE', base .. ARGV[2] .. ':' .. ARGV[1], from, from + ARGV[4] - 1, 'WITHSCORES')
for i = 1, #some, 2 do
  if left <= 0 then
    break
  end
  local id, n = some[i], #out
  local blob = call('HGET', base .. 'side:' .. ARGV[1], id) or ''
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = id, some[i + 1], call('HGET', base .. 'try:' .. ARGV[1], id) or '', blob
  out[4], left = out[4] + 1, left - #blob
end
return out
