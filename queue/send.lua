#!lua
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  how many messages; in Go, then a space, 1 for a FIFO queue or 0, and its partitions, as the process knows them
-- ARGV[2..]  for each its blob, but for the two numbers at the blob's beginning, behind its options if it has some; in tests the
--          time (Unix ms) at the end
-- reply    {-2 if there is no queue, or another one, -1 if it was deleted}; else {messages that wait, the last sequence number}, and, unless all
-- reply    were sent, for each s and its sequence number, d and the id of its double, o (was sent once already), f (the queue is full), k and for how long the queue
-- reply    keeps messages, ms (its delay is not shorter), or e and why
-- reply    it can't be sent
--
-- Options begin with a space, and end with a newline: seven words, any of them empty, with a space between: delay in ms, deduplication
-- key, key of a unique job, for how many ms it is unique (0: until it is done), name and number of what is sent once, mark of a message
-- that is moved. A message with a group has them, even if all are empty.
-- A blob: Unix ms, sequence number, id, length of the attributes, group, key of a unique job, a newline, the attributes, the body.
local call, match = redis.call, string.match
local base = string.sub(KEYS[1], 1, -5)
local m = call('HMGET', KEYS[1], 'cs', 'n', 'size', 'swept', 'seq', 'sent')
if not m[1] then
  return {call('EXISTS', KEYS[2]) - 2}
end
local count, kind = match(ARGV[1], '^(%d+) ?(.*)$')
count = tonumber(count)
local now = tonumber(ARGV[count + 2])
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local fifo, max, maxbytes, keep, delay, parts = match(m[1], '^(%d) (%d+) (%d+) (%d+) (%d+) (%d+)$')
if kind ~= '' and kind ~= fifo .. ' ' .. parts then -- it was made anew as another one
  return {-2}
end
fifo, max, maxbytes, keep, delay = fifo == '1', tonumber(max), tonumber(maxbytes), tonumber(keep), tonumber(delay)
local n, size, seq = math.max(0, tonumber(m[2]) or 0), math.max(0, tonumber(m[3]) or 0), tonumber(m[5]) or 0
local changed = {}
local plain, most = not fifo and delay == 0, 31622400000 -- 366 days

-- Before anything is written, all options are read, and keys of another type met.
local parsed, need, odd = {}, {}, 0
for i = 1, count do
  local rest = ARGV[i + 1]
  local special = string.byte(rest, 1, 1) == 32
  if special or not plain then
    local p, from, _ = {wait = '', dedup = '', ms = '', name = '', number = '', moved = ''}, 1, nil
    if special then
      p.wait, p.dedup, _, p.ms, p.name, p.number, p.moved, from = match(rest, '^ (%d*) (%S*) (%S*) (%d*) (%S*) (%d*) (%S*)\n()')
    end
    if from then
      p.rest = string.sub(rest, from)
      p.id, _, p.group, p.unique = match(p.rest, '^(%S+) (%d+) (%S*) (%S*)\n')
    end
    if p.id then
      p.wait, p.ms, p.number = tonumber(p.wait) or delay, tonumber(p.ms), tonumber(p.number)
    end
    if not p.id or p.wait > most or (p.ms or 0) > most or p.unique ~= '' and not p.ms or p.name ~= '' and not p.number or fifo and p.group == '' then
      p.bad = true
    else
      local grouped = fifo or p.group ~= '' and p.wait == 0
      need.heads, need.locked = need.heads or grouped, need.locked or fifo and delay > 0
      need.ready = need.ready or not grouped and p.wait == 0
      need.delay = need.delay or not grouped and p.wait > 0
      need.dedup, need.unique = need.dedup or p.dedup ~= '', need.unique or p.unique ~= ''
      need.cron, need.moved = need.cron or p.name ~= '', need.moved or p.moved ~= ''
    end
    parsed[i], odd = p, odd + 1
  end
end
call('LLEN', base .. 'groups')
if odd > 0 then
  need.ready = need.ready or odd < count -- else it is the first one that is written
  need.msg, need.dedupq = need.delay, need.dedup
  for part, command in pairs({
    heads = 'ZCARD', locked = 'ZCARD', ready = 'LLEN', delay = 'ZCARD', msg = 'HLEN', dedup = 'HLEN', dedupq = 'LLEN', unique = 'HLEN',
    cron = 'HLEN', moved = 'ZCARD',
  }) do
    if need[part] then
      call(command, base .. part)
    end
  end
end

-- What nobody receives is dropped at its end of life too, a little at a time: the first of each list is the oldest.
if now >= (tonumber(m[4]) or 0) then
  local dropped, swept = 0, now + 1000
  for i = 1, 100 do
    local group = redis.pcall('ZRANGEBYSCORE', base .. 'heads', '-inf', now - keep - 1, 'LIMIT', 0, 1)[1]
    local list = group and base .. 'g:' .. group or base .. 'ready'
    local blob = redis.pcall('LINDEX', list, 0)
    if type(blob) ~= 'string' or now - tonumber(match(blob, '^%d+')) <= keep then
      break
    end
    local id, unique = match(blob, '^%d+ %d+ (%S+) %d+ %S* (%S*)\n')
    if unique ~= '' and type(redis.pcall('HLEN', base .. 'unique')) ~= 'number' then
      break
    end
    call('LPOP', list)
    dropped, n, size = dropped + 1, n - 1, size - #blob
    if unique ~= '' and match(call('HGET', base .. 'unique', unique) or '', '^%S+') == id then
      call('HDEL', base .. 'unique', unique)
    end
    if group then
      local head = call('LINDEX', list, 0)
      if head then
        call('ZADD', base .. 'heads', match(head, '^%d+'), group)
      else
        call('ZREM', base .. 'heads', group)
      end
    end
    if i == 100 then
      swept = now
    end
  end
  changed = {'swept', swept}
  if dropped > 0 then
    call('HINCRBY', KEYS[1], 'expired', dropped)
  end
end

local fresh, status, records, known = {}, {}, {}, {}
local sent, special, woken = 0, false, 0

local function full(bytes)
  return max > 0 and n + 1 > max or maxbytes > 0 and size + bytes > maxbytes
end

-- What the queue has already: the status of a double, or nil.
local function double(dedup, unique, name, number, moved)
  if dedup ~= '' then
    local id, at = match(known[dedup] or call('HGET', base .. 'dedup', dedup) or '', '^(%S+) (%d+)$')
    if id and now - tonumber(at) < 300000 then
      return 'd' .. id
    end
  end
  if unique ~= '' then
    local id, ends = match(known[' ' .. unique] or call('HGET', base .. 'unique', unique) or '', '^(%S+) (%d+)$')
    if id and (ends == '0' or tonumber(ends) > now) then
      return 'd' .. id
    end
  end
  if name ~= '' and (tonumber(call('HGET', base .. 'cron', name)) or -1) >= number then
    return 'o'
  end
  if moved ~= '' and (known['  ' .. moved] or call('ZSCORE', base .. 'moved', moved)) then
    return 'o'
  end
end

local head, quota = now .. ' 0 ', max > 0 or maxbytes > 0

-- Puts a message of a group where it waits; returns an error if a key of another type lies there.
local function append(group, blob)
  local length = redis.pcall('RPUSH', base .. 'g:' .. group, blob)
  if type(length) ~= 'number' then
    return length.err
  end
  -- The first of a group makes it known, unless something of it is in flight.
  if length == 1 then
    call('ZADD', base .. 'heads', now, group)
    if type(redis.pcall('ZSCORE', base .. 'locked', group)) ~= 'string' then
      if delay > 0 and fifo then
        call('ZADD', base .. 'locked', now + delay, group)
      else
        call('RPUSH', base .. 'groups', group)
      end
      woken = woken + 1
    end
  elseif not fifo then
    woken = woken + 1
  end
end

for i = 1, count do
  local p = parsed[i]
  if not p then
    local blob = head .. ARGV[i + 1]
    if quota and full(#blob) then
      status[i], special = 'f', true
    else
      sent = sent + 1
      fresh[#fresh + 1], status[i] = blob, 's0'
      n, size = n + 1, size + #blob
    end
  elseif not p.bad and p.wait >= keep then
    status[i], special = string.format('k%.0f', keep), true
  elseif p.bad then
    status[i], special = "eits options can't be read", true
  else
    local wait, dedup, ms, name, number, moved = p.wait, p.dedup, p.ms, p.name, p.number, p.moved
    local id, group, unique = p.id, p.group, p.unique
    local blob = now .. ' ' .. (fifo and seq + 1 or 0) .. ' ' .. p.rest
    local grouped = fifo or group ~= '' and wait == 0
    local had = double(dedup, unique, name, number, moved) or full(#blob) and 'f'
    local refused = not had and grouped and append(group, blob)
    if had or refused then
      status[i], special = had or 'e' .. refused, true
    else
      if grouped then
        seq = fifo and seq + 1 or 0
      elseif wait == 0 then
        fresh[#fresh + 1] = blob
      else
        call('HSET', base .. 'msg', id, blob)
        call('ZADD', base .. 'delay', now + wait, id)
        woken = woken + (wait < 2000 and 1 or 0) -- who waits asks once a second, and learns of later ones then
      end
      n, size, sent, status[i] = n + 1, size + #blob, sent + 1, 's' .. seq
      if dedup ~= '' then
        known[dedup] = id .. ' ' .. now
        records[#records + 1] = {'dedup', dedup, known[dedup]}
      end
      if unique ~= '' then
        known[' ' .. unique] = id .. ' ' .. (ms == 0 and 0 or now + ms)
        records[#records + 1] = {'unique', unique, known[' ' .. unique]}
      end
      if name ~= '' then
        call('HSET', base .. 'cron', name, number)
      end
      if moved ~= '' then
        known['  ' .. moved] = true
        call('ZADD', base .. 'moved', now, moved)
        call('ZREMRANGEBYSCORE', base .. 'moved', '-inf', now - 86400000)
      end
    end
  end
end

woken = woken + #fresh
if #fresh > 0 and call('RPUSH', base .. 'ready', unpack(fresh)) == #fresh then
  call('RPUSH', base .. 'groups', '')
end
for _, r in ipairs(records) do
  call('HSET', base .. r[1], r[2], r[3])
  if r[1] == 'dedup' then
    call('RPUSH', base .. 'dedupq', now .. ' ' .. r[2])
  end
end
for _ = 1, 2 * #records do
  local at, dedup = match(call('LINDEX', base .. 'dedupq', 0) or '', '^(%d+) (%S+)$')
  if not at or now - tonumber(at) < 300000 then
    break
  end
  call('LPOP', base .. 'dedupq')
  if match(call('HGET', base .. 'dedup', dedup) or '', '%d+$') == at then
    call('HDEL', base .. 'dedup', dedup)
  end
end
n, size = math.max(0, n), math.max(0, size)
call('HSET', KEYS[1], 'n', n, 'size', size, 'seq', seq, 'sent', (tonumber(m[6]) or 0) + sent, unpack(changed))
while woken > 0 do
  local who = redis.pcall('ZPOPMIN', base .. 'wait')
  if not who[1] then
    break
  end
  if tonumber(who[2]) > now then
    local channel, id = match(who[1], '^(%S+) (%S+)$')
    redis.pcall('PUBLISH', channel, id)
    woken = woken - 1
  end
end
if special then
  return {n, seq, unpack(status)}
end
return {n, seq}
