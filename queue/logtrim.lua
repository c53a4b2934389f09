#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  for how many entries more there should be room
-- ARGV[2]  and for how many bytes
-- ARGV[3]  how many the first one of these has: if that is more than the log may have, nothing goes for it
-- reply    {-2 if there is no log, -1 if it was deleted}; else {1, how many entries are gone, how many of them a group had not
-- reply    acknowledged}
--
-- The oldest entries go: those that are too old, and as many as leave room. None that a group has not acknowledged goes, unless the
-- log is lossy.
local call = redis.call
local base = string.sub(KEYS[1], 1, -5)
local log = base .. 'log'
local m = call('HMGET', KEYS[1], 'parts', 'keep', 'max', 'maxbytes', 'seq', 'cum', 'lossy', 'keepdead', 'last')
if not m[1] then
  return {call('EXISTS', KEYS[2]) - 2}
end
if (tonumber(m[4]) or 0) > 0 and tonumber(ARGV[3]) > tonumber(m[4]) then
  return {1, 0, 0}
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, g in ipairs(call('SMEMBERS', base .. 'groups')) do
  local old = call('ZRANGEBYSCORE', base .. 'dead:' .. g, '-inf', now - m[8], 'LIMIT', 0, 100)
  if #old > 0 then
    call('ZREM', base .. 'dead:' .. g, unpack(old))
    call('HDEL', base .. 'side:' .. g, unpack(old))
    call('HDEL', base .. 'try:' .. g, unpack(old))
  end
end
local groups = redis.pcall('XINFO', 'GROUPS', log)
if groups.err then
  if string.find(groups.err, 'no such key') then
    call('HSET', KEYS[1], 'first', string.format('%.0f', (tonumber(m[5]) or 0) + 1), 'firstcum', m[6] or 0)
    return {1, 0, 0}
  end
  return groups
end

-- Ids are compared as texts: they have more digits than a number holds.
local function less(a, b)
  local am, as = string.match(a, '^(%d+)%-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)%-(%d+)$')
  if am == bm then
    am, bm = as, bs
  end
  if #am ~= #bm then
    return #am < #bm
  end
  return am < bm
end
local function after(id)
  local ms, n = string.match(id, '^(%d+)%-(%d+)$')
  return #n > 15 and id or ms .. '-' .. string.format('%.0f', n + 1)
end

-- Nothing from here on may go.
local floor
for _, fields in ipairs(groups) do
  local is = {}
  for i = 1, #fields, 2 do
    is[fields[i]] = fields[i + 1]
  end
  local last = is['last-delivered-id']
  if not string.find(last, '-', 1, true) then
    last = last .. '-0'
  end
  local needs = after(last)
  if is.pending > 0 then
    local first = call('XPENDING', log, is.name)[2]
    if first and less(first, needs) then
      needs = first
    end
  end
  if not floor or less(needs, floor) then
    floor = needs
  end
end

-- The first entry from an id on: its id, its number, the bytes before it.
local function from(id)
  for _ = 1, 8 do
    local e = call('XRANGE', log, id, '+', 'COUNT', 1)[1]
    if not e then
      return
    end
    local seq, cum = string.match(e[2][1] == 'b' and e[2][2] or '', '^(%d+) (%d+) ')
    if seq then
      return e[1], tonumber(seq), tonumber(cum)
    end
    id = after(e[1]) -- somebody else's
  end
end
local seq, cum = tonumber(m[5]) or 0, tonumber(m[6]) or 0
local firstid, firstseq, firstcum = from('0-0')
local target = string.format('%.0f-0', math.max(0, now - m[2]))
local least, leastcum = 0, 0 -- the number that may stay, and the bytes before it
local room, roombytes = tonumber(ARGV[1]), tonumber(ARGV[2])
-- A little more than asked goes at once, so that a log that is full is not searched at each call.
local function keep(most, more, have)
  if most == 0 or have + more <= most then
    return have
  end
  return math.max(0, most - more - math.floor(most / 64))
end
if firstid then
  local max, maxbytes = tonumber(m[3]) or 0, tonumber(m[4]) or 0
  least = seq + 1 - keep(max, room, seq + 1 - firstseq)
  leastcum = cum - keep(maxbytes, roombytes, cum - firstcum)
end
if firstid and (firstseq < least or firstcum < leastcum) then
  local function enough(id)
    local found, n, bytes = from(id)
    return not found or n >= least and bytes >= leastcum
  end
  local low, high = tonumber(string.match(firstid, '^%d+')), tonumber(string.match(m[9] or '0-0', '^%d+')) + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if enough(string.format('%.0f-0', middle)) then
      high = middle
    else
      low = middle + 1
    end
  end
  local at, most = 0, 1048576
  while at < most do
    local middle = math.floor((at + most) / 2)
    if enough(string.format('%.0f-%d', low - 1, middle)) then
      most = middle
    else
      at = middle + 1
    end
  end
  local id = string.format('%.0f-%d', low - 1, at)
  if less(target, id) then
    target = id
  end
end
local floorseq
if floor then
  local _, n = from(floor)
  floorseq = n or seq + 1
  if m[7] ~= '1' and less(floor, target) then
    target = floor
  end
end
local gone = call('XTRIM', log, 'MINID', '=', target)
local _, newseq, newcum = from('0-0')
newseq, newcum = newseq or seq + 1, newcum or cum
local dropped = floorseq and math.max(0, newseq - math.max(floorseq, firstseq or newseq)) or 0
call('HSET', KEYS[1], 'first', string.format('%.0f', newseq), 'firstcum', string.format('%.0f', newcum))
if dropped > 0 and gone > 0 then
  call('HINCRBY', KEYS[1], 'dropped', dropped)
else
  dropped = 0
end
return {1, gone, dropped}
