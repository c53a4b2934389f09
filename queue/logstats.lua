#!lua flags=no-writes
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- reply    {-2 if there is no log, -1 if it was deleted}; else {1, entries, bytes, age of the oldest in ms or -1, appended, dropped, last
-- reply    id}, then for each group its name, how many entries it has not read, how many it has and has not acknowledged, how many stand
-- reply    aside, how many are dead, how many consumers it has, the id that it has read up to, 1 if somebody has the partition
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
local m = call('HMGET', KEYS[1], 'parts', 'seq', 'cum', 'last', 'dropped')
if not m[1] then
  return {call('EXISTS', KEYS[2]) - 2}
end
local log = base .. 'log'
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seq, cum = tonumber(m[2]) or 0, tonumber(m[3]) or 0
local function head(id)
  local e = call('XRANGE', log, id, '+', 'COUNT', 1)[1]
  if e then
    local n, bytes = string.match(e[2][1] == 'b' and e[2][2] or '', '^(%d+) (%d+) ')
    return tonumber(n), tonumber(bytes), e[1]
  end
end
local first, firstcum, firstid = head('0-0')
local out = {1, call('XLEN', log), firstcum and cum - firstcum or 0, firstid and math.max(0, now - tonumber(string.match(firstid, '^%d+'))) or -1, seq,
  tonumber(m[5]) or 0, m[4] or '0-0'}
local groups = redis.pcall('XINFO', 'GROUPS', log)
if groups.err then
  return out
end
for _, fields in ipairs(groups) do
  local is = {}
  for i = 1, #fields, 2 do
    is[fields[i]] = fields[i + 1]
  end
  local last, g = is['last-delivered-id'], is.name
  local ms, n = string.match(last .. '-0', '^(%d+)%-(%d+)')
  local at, _, id = head(ms .. '-' .. (#n > 15 and n or string.format('%.0f', n + 1)))
  local more = {g, at and seq + 1 - at or id and 1 or 0, is.pending, call('ZCARD', base .. 'due:' .. g), call('ZCARD', base .. 'dead:' .. g), is.consumers,
    ms .. '-' .. n, call('EXISTS', base .. 'own:' .. g)}
  for i = 1, 8 do
    out[#out + 1] = more[i]
  end
end
return out
