#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  a and how many receipts: all of their messages are done; or m and how many
-- ARGV[2..]  the receipts; with m three words for each: what to do, the receipt, why; in tests the time (Unix ms) at the end
-- reply    {-2 if there is no queue, -1 if it was deleted}; else {messages to be moved to the dead letters}, then for each receipt
-- reply    1 if it was done, 0 if the receipt is not the message's last one or the message is gone, 2 if there are no dead letters,
-- reply    3 if the message would not live until it comes again
--
-- What to do: a, the message is done; e and ms, it stays in flight for so long from now on; n and ms, it failed, and comes again
-- after so long; r, it is rejected: it goes to the dead letters at once.
local call, match = redis.call, string.match
local base = string.sub(KEYS[1], 1, -5)
local m = call('HMGET', KEYS[1], 'ca', 'n', 'size', 'acked')
if not m[1] then
  return {call('EXISTS', KEYS[2]) - 2}
end
local mode, count = match(ARGV[1], '^(%a)(%d+)$')
count = tonumber(count)
local step = mode == 'a' and 1 or 3
local fifo, recv, dlq, flightMax, keep = match(m[1], '^(%d) (%d+) (%d) (%d+) (%d+)$')
keep = tonumber(keep)
fifo, recv, dlq = fifo == '1', tonumber(recv), dlq == '1'
local now = tonumber(ARGV[count * step + 2])
local function clock()
  if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
end
if fifo or step == 3 then
  clock()
end
local n, size = tonumber(m[2]) or 0, tonumber(m[3]) or 0
local flight, msg, locked, held = base .. 'flight', base .. 'msg', base .. 'locked', base .. 'held'
local asked = {}
for i = 1, count do
  asked[i] = ARGV[step == 1 and i + 1 or i * 3]
end
local scores = call('ZMSCORE', flight, unpack(asked))

-- Keys of another type are met before anything is written.
call('HLEN', msg)
if step == 3 then
  call('ZCARD', base .. 'dead')
  call('HLEN', base .. 'why')
  call('HLEN', base .. 'unique')
end
for i, member in ipairs(asked) do
  if scores[i] and (string.byte(member, -1) ~= 58 or string.byte(member, -23) ~= 58) then -- it has a group
    call('HLEN', held)
    if call('ZCARD', locked) > 0 then
      call('ZCARD', base .. 'heads')
      call('LLEN', base .. 'groups')
    end
    break
  end
end

local result, left, done, ids, unique, touched, freed = {}, {}, {}, {}, {}, {}, {}
local acked, died, woken = 0, 0, 0

for i, member in ipairs(asked) do
  local what, ms, why = 'a', nil, ''
  if step == 3 then
    what, ms = match(ARGV[i * 3 - 1], '^(%a)(%d*)$')
    why = ARGV[i * 3 + 1]
  end
  result[i] = 1
  if not scores[i] or left[member] then
    result[i] = 0
  elseif what == 'n' and (recv == 0 or tonumber(match(member, '^[^:]+:(%d+):')) < recv) and now + ms >= tonumber(match(member, '^[^:]+:%d+:(%d+):')) + keep then
    result[i] = 3
  elseif what == 'r' and not dlq then
    result[i] = 2
  else
    local id, times, bytes, flag, group = match(member, '^([^:]+):(%d+):%d+:(%d+):([-u])[^:]*:(.*)$')
    if what == 'e' or what == 'n' and (recv == 0 or tonumber(times) < recv) then
      call('ZADD', flight, 'XX', now + ms, member)
      if tonumber(ms) < 2000 then -- who waits asks once a second, and learns of later ones then
        woken = woken + 1
      end
      if group ~= '' then
        touched[group] = true
      end
    else
      left[member] = true
      done[#done + 1] = member
      if group ~= '' then
        touched[group] = true
        freed[group] = (freed[group] or 0) + 1
      end
      if what == 'a' then
        acked, n, size = acked + 1, n - 1, size - bytes
        ids[#ids + 1] = id
        if flag == 'u' then
          unique[#unique + 1] = id
        end
      else
        died = died + 1
        call('ZADD', base .. 'dead', now, member)
      end
    end
    if why ~= '' and what ~= 'a' then
      call('HSET', base .. 'why', id, why)
    end
  end
end

local keys = {}
if #unique > 0 then
  for i, blob in ipairs(call('HMGET', msg, unpack(unique))) do
    local key = blob and match(blob, '^%d+ %d+ %S+ %d+ %S* (%S*)\n')
    if key and match(call('HGET', base .. 'unique', key) or '', '^%S+') == unique[i] then
      keys[#keys + 1] = key
    end
  end
end
if acked > 0 then
  call('HDEL', base .. 'why', unpack(ids))
  call('HDEL', msg, unpack(ids))
  call('HSET', KEYS[1], 'n', math.max(0, n), 'size', math.max(0, size), 'acked', (tonumber(m[4]) or 0) + acked)
end
if #keys > 0 then
  call('HDEL', base .. 'unique', unpack(keys))
end
if #done > 0 then
  call('ZREM', flight, unpack(done))
  woken = woken + (flightMax ~= '0' and #done or 0)
end

-- Groups of which nothing is in flight any more go on.
local function ready(groups)
  if #groups == 0 then
    return
  end
  call('ZREM', locked, unpack(groups))
  local more = {}
  for i, score in ipairs(call('ZMSCORE', base .. 'heads', unpack(groups))) do
    if score then
      more[#more + 1] = groups[i]
    end
  end
  if #more > 0 then
    call('RPUSH', base .. 'groups', unpack(more))
    woken = woken + #more
  end
end

local names, free = {}, {}
for group in pairs(touched) do
  if fifo or freed[group] then
    names[#names + 1] = group
  end
end
if fifo and #names > 0 then
  local there, of = {}, {} -- what is still in flight of these groups, and whose it is
  for i, receipts in ipairs(call('HMGET', held, unpack(names))) do
    for member in string.gmatch(not left[receipts] and receipts or '', '%S+') do
      if not left[member] then
        there[#there + 1], of[#of + 1] = member, names[i]
      end
    end
  end
  local order, last = {}, {}
  for from = 1, #there, 1000 do
    for i, score in ipairs(call('ZMSCORE', flight, unpack(there, from, math.min(#there, from + 999)))) do
      if score then
        local member, group = there[from + i - 1], of[from + i - 1]
        order[group], last[group] = order[group] or {}, math.max(last[group] or 0, tonumber(score))
        table.insert(order[group], member)
      end
    end
  end
  for _, group in ipairs(names) do
    if order[group] then
      call('HSET', held, group, table.concat(order[group], ' '))
      call('ZADD', locked, string.format('%.0f', last[group]), group)
      if last[group] < now + 2000 then
        woken = woken + 1
      end
    else
      free[#free + 1] = group
    end
  end
  if #free > 0 then
    call('HDEL', held, unpack(free))
    ready(free)
  end
else
  for _, group in ipairs(names) do
    if call('HINCRBY', held, group, -freed[group]) <= 0 then
      call('HDEL', held, group)
    end
    if call('ZSCORE', locked, group) then
      free[#free + 1] = group
    end
  end
  ready(free)
end
while woken > 0 do
  local who = redis.pcall('ZPOPMIN', base .. 'wait')
  if not who[1] then
    break
  end
  clock()
  if tonumber(who[2]) > now then
    local channel, id = match(who[1], '^(%S+) (%S+)$')
    redis.pcall('PUBLISH', channel, id)
    woken = woken - 1
  end
end
local dead = redis.pcall('ZCARD', base .. 'dead')
return {type(dead) == 'number' and dead or 0, unpack(result)}
