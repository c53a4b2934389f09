#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  the group
-- ARGV[2]  the token of the owner of the partition
-- ARGV[3]  the consumer's name
-- ARGV[4]  how many entries at most
-- ARGV[5]  channel and id of who is to be woken when there are more; empty for nobody
-- reply    {-2 if there is no log, -1 if it was deleted}; {-3} if there is no group; {-4} if the partition is another's; else {1, the
-- reply    time (Unix ms), how often dead letters were replayed}, then id and text of each entry
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
local g = ARGV[1]
if redis.pcall('GET', base .. 'own:' .. g) ~= ARGV[2] then
  return {-4}
end
local r = redis.pcall('XREADGROUP', 'GROUP', g, ARGV[3], 'COUNT', ARGV[4], 'STREAMS', base .. 'log', '>')
if r and r.err then
  if string.find(r.err, '^NOGROUP') then
    return {call('HEXISTS', KEYS[1], 'parts') == 1 and -3 or call('EXISTS', KEYS[2]) - 2}
  end
  return r
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local out, n = {1, now, tonumber(call('HGET', KEYS[1], 'replays') or 0)}, 3
local entries = r and r[1] and r[1][2] or {}
for _, e in ipairs(entries) do
  out[n + 1], out[n + 2] = e[1], e[2][1] == 'b' and e[2][2] or ''
  n = n + 2
end
if #entries < tonumber(ARGV[4]) and ARGV[5] ~= '' then
  local wait = base .. 'wait'
  call('ZREMRANGEBYSCORE', wait, '-inf', now)
  if call('ZCARD', wait) < 1000 then
    call('ZADD', wait, now + 3000, ARGV[5])
  end
end
return out
