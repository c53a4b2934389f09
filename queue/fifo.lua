#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  how many messages at most, a number for each caller; 0 asks whether there are any
-- ARGV[2]  for how long they are in flight, ms
-- ARGV[3]  twenty letters or digits that make this delivery's receipts its own
-- ARGV[4]  the channel, a space and the id by which to wake who asks; empty for who does not wait
-- ARGV[5]  for how long they wait without asking again, ms; a space, and the queue's partitions as the process knows them
-- ARGV[6]  names this attempt: within five minutes the same attempt gets the same answer; empty for none
-- ARGV[7]  the time (Unix ms), in tests
-- reply    {-2 if there is no queue, or another one, -1 if it was deleted}; else {messages that wait, ms until there may be more or -1, messages
-- reply    to be moved to the dead letters, how many of the messages are each caller's}, then a receipt and a blob for each message
--
-- This is for FIFO queues. No two callers get messages of the same group. A group stands in groups, or in locked until nothing of it is in flight. What was received of it and is
-- not done is in held, in order, and comes again before anything else of the group.
local call, match = redis.call, string.match
local base = string.sub(KEYS[1], 1, -5)
local m = call('HMGET', KEYS[1], 'cr', 'n', 'size', 'paused')
if not m[1] then
  return {call('EXISTS', KEYS[2]) - 2}
end
local now = tonumber(ARGV[7])
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local want, hidden, nonce, attempt, paused = 0, tonumber(ARGV[2]), ARGV[3], ARGV[6], m[4] == '1'
local recv, keep, flightMax, _, rate, per, grate, gper, delay, fifo, parts = match(m[1], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d) (%d+)$')
local patient, known = match(ARGV[5], '^(%d+) (%d+)$')
if fifo ~= '1' or parts ~= known then -- it was made anew as another one
  return {-2}
end
recv, keep, flightMax, delay = tonumber(recv), tonumber(keep), tonumber(flightMax), tonumber(delay)
rate, per, grate, gper = tonumber(rate), tonumber(per), tonumber(grate), tonumber(gper)
local n, size, tat = math.max(0, tonumber(m[2]) or 0), math.max(0, tonumber(m[3]) or 0), rate > 0 and tonumber(call('HGET', KEYS[1], 'tat')) or 0
local until_ = tostring(now + hidden)
local new, plain, unique_ = ':1:' .. now .. ':', ':-' .. nonce .. ':', ':u' .. nonce .. ':'
local flight, msg, groups, locked, held, heads = base .. 'flight', base .. 'msg', base .. 'groups', base .. 'locked', base .. 'held', base .. 'heads'
local out, members, bodies, expired, gone = {}, {}, {}, 0, {}
local soon = -1 -- when there may be more
local n0 = n
local shares = {}
for share in string.gmatch(ARGV[1], '%d+') do
  want = want + share
end

local function at(time)
  if time and (soon < 0 or time < soon) then
    soon = time
  end
end

-- Keys of another type are met before anything is taken.
local flying, dead = call('ZCARD', flight), call('ZCARD', base .. 'dead')
call('HLEN', msg)
call('HLEN', held)
call('ZCARD', heads)
if attempt ~= '' then
  call('LLEN', base .. 'triesq')
end

local function answer()
  local waiting = paused and 0 or math.max(0, n - flying - dead)
  return {waiting, soon < 0 and -1 or math.max(0, math.ceil(soon - now)), dead, table.concat(shares, ' '), unpack(out)}
end

-- The same attempt again: the same messages and receipts, if nothing has become of them.
if attempt ~= '' then
  local time, receipts = match(call('HGET', base .. 'tries', attempt) or '', '^(%d+) (.+)$')
  if time and now - tonumber(time) < 300000 then
    local again, ids, live, seen = {}, {}, true, {}
    for member in string.gmatch(receipts, '%S+') do
      local score = call('ZSCORE', flight, member)
      live = live and score and tonumber(score) > now
      again[#again + 1], ids[#ids + 1] = member, match(member, '^[^:]+')
    end
    if live then
      local blobs = call('HMGET', msg, unpack(ids))
      for i, member in ipairs(again) do
        call('ZADD', flight, now + hidden, member)
        seen[match(member, '^[^:]+:%d+:%d+:%d+:[^:]*:(.*)$')] = true
        out[#out + 1] = member
        out[#out + 1] = blobs[i]
      end
      for group in pairs(seen) do
        local last = 0
        for member in string.gmatch(call('HGET', held, group) or '', '%S+') do
          last = math.max(last, tonumber(call('ZSCORE', flight, member)) or 0)
        end
        call('ZADD', locked, string.format('%.0f', last), group)
      end
      shares[1] = string.format('%d', #again)
      return answer()
    end
  end
end

-- How many of a token bucket of limit, refilled over ms, are there; and when the next one is.
local function tokens(full, limit, ms)
  local gap = ms / limit
  full = math.max(full, now)
  return math.floor((now + ms - full) / gap + 1e-6), full - ms + gap
end

local function drop(blob)
  expired, n, size = expired + 1, n - 1, size - #blob
  local id, unique = match(blob, '^%d+ %d+ (%S+) %d+ %S* (%S*)\n')
  local holder = unique ~= '' and redis.pcall('HGET', base .. 'unique', unique)
  if type(holder) == 'string' and match(holder, '^%S+') == id then
    call('HDEL', base .. 'unique', unique)
  end
end

local function lease(member, blob)
  local at = #out
  members[at + 1], members[at + 2] = until_, member
  out[at + 1], out[at + 2] = member, blob
  return member
end

local room, limited = paused and 0 or want, false
if rate > 0 then
  local left, next = tokens(tat, rate, per)
  if left < room then
    room, limited = math.max(0, left), true
    at(next)
  end
end
local fresh = room
if flightMax > 0 then
  fresh = math.min(room, flightMax - flying)
end

local share = 0 -- what the caller whose turn it is may still get

-- What is written of each group, together at the end; mine are the groups of this call.
local mine, toHeld, toLocked, toHeads = {}, {}, {}, {}
local wrong, later = nil, {} -- later are groups in whose place a key of another type lies

local function note(list, a, b)
  list[#list + 1], list[#list + 2] = a, b
end

local function flush()
  if #toHeld > 0 then
    call('HSET', held, unpack(toHeld))
  end
  if #toLocked > 0 then
    call('ZADD', locked, unpack(toLocked))
  end
  if #toHeads > 0 then
    call('ZADD', heads, unpack(toHeads))
  end
  toHeld, toLocked, toHeads = {}, {}, {}
end

-- Takes of a group what there is room for. again says that something of it may have been received before.
local function take(group, again)
  local list, before, debt = base .. 'g:' .. group, room, 0
  local limit = math.min(room, share)
  if grate > 0 then
    debt = tonumber(call('ZSCORE', base .. 'rates', group)) or 0
    local left, next = tokens(debt, grate, gper)
    limit = math.min(limit, left)
    if left < 1 then
      call('ZADD', locked, string.format('%.0f', math.ceil(next)), group)
      return
    end
  end
  local order, old, ids = {}, {}, {}
  for member in string.gmatch(again and call('HGET', held, group) or '', '%S+') do
    old[#old + 1], ids[#ids + 1] = member, match(member, '^[^:]+')
  end
  local blobs = #old > 0 and call('HMGET', msg, unpack(ids)) or {}
  for i, member in ipairs(old) do
    local id, times, first, bytes, flag = match(member, '^([^:]+):(%d+):(%d+):(%d+):([-u])')
    if limit == 0 then
      order[#order + 1] = member
    else
      gone[#gone + 1] = member
      if not blobs[i] then -- somebody has deleted it by hand
        n, size = n - 1, size - bytes
      elseif now - tonumber(match(blobs[i], '^%d+')) > keep then
        call('HDEL', msg, id)
        drop(blobs[i])
      elseif recv > 0 and tonumber(times) >= recv then
        dead = dead + call('ZADD', base .. 'dead', now, member)
      else
        order[#order + 1] = lease(id .. ':' .. times + 1 .. ':' .. first .. ':' .. bytes .. (flag == '-' and plain or unique_) .. group, blobs[i])
        limit, room, share = limit - 1, room - 1, share - 1
      end
    end
  end
  local popped, due, bad = false, nil, nil
  for _ = 1, 1000 do
    if limit == 0 or fresh <= 0 then
      break
    end
    if delay > 0 then
      local blob = redis.pcall('LINDEX', list, 0)
      local sent = type(blob) == 'string' and match(blob, '^%d+')
      if sent and tonumber(sent) + delay > now then
        due = tonumber(sent) + delay
        break
      end
    end
    local more = redis.pcall('LPOP', list, delay > 0 and 1 or math.min(limit, fresh)) or {}
    if #more == 0 then
      break
    end
    popped = true
    for _, blob in ipairs(more) do
      local sent, id, unique = match(blob, '^(%d+) %d+ (%S+) %d+ %S* (%S*)\n')
      if now - tonumber(sent) > keep then
        drop(blob)
      else
        order[#order + 1] = lease(id .. new .. #blob .. (unique == '' and plain or unique_) .. group, blob)
        bodies[#bodies + 1] = id
        bodies[#bodies + 1] = blob
        limit, room, share, fresh = limit - 1, room - 1, share - 1, fresh - 1
      end
    end
  end
  if grate > 0 and room < before then
    call('ZADD', base .. 'rates', string.format('%.3f', math.max(debt, now) + (before - room) * gper / grate), group)
  end
  local head = redis.pcall('LINDEX', list, 0)
  if type(head) == 'table' then
    wrong, bad = head, true
  elseif not head then
    call('ZREM', heads, group)
  elseif popped then
    note(toHeads, match(head, '^%d+'), group)
  end
  if #order > 0 then
    mine[group] = true
    note(toHeld, group, #order == 1 and order[1] or table.concat(order, ' '))
    note(toLocked, until_, group)
    return
  end
  if again then
    call('HDEL', held, group)
  end
  if due then
    call('ZADD', locked, due, group)
  else
    call('ZREM', locked, group)
    if bad then
      later[#later + 1] = group
    elseif head then
      call('RPUSH', groups, group)
    end
  end
end

if room > 0 then
  if grate > 0 then
    call('ZREMRANGEBYSCORE', base .. 'rates', '-inf', now) -- a bucket that is full again is like a new one
  end
  local back, index, turns = call('ZRANGEBYSCORE', locked, '-inf', now, 'LIMIT', 0, room), 1, 100 + room
  if #back > 0 then
    call('LLEN', groups)
  end
  local callers, ready, barred, turn = select(2, string.gsub(ARGV[1], '%d+', '')), {}, {}, 1
  for most in string.gmatch(ARGV[1], '%d+') do
    share = tonumber(most)
    local before = #out
    while share > 0 and room > 0 do
      if index > #back and #back > 0 and turns > 0 then
        flush()
        back, index = call('ZRANGEBYSCORE', locked, '-inf', now, 'LIMIT', 0, room), 1
        turns = turns - 1
      end
      if back[index] then
        index = index + 1
        take(back[index - 1], true)
      else
        if not ready[turn] and turns > 0 and fresh > 0 then -- each caller left takes of one group at least
          ready, turn = call('LPOP', groups, math.min(callers, turns)) or {}, 1
          barred = #ready > 0 and call('ZMSCORE', locked, unpack(ready))
        end
        local group = turns > 0 and fresh > 0 and ready[turn]
        if not group then
          break
        end
        turn, turns = turn + 1, turns - 1
        if not mine[group] and not barred[turn - 1] then
          take(group)
        end
      end
    end
    callers = callers - 1
    shares[#shares + 1] = string.format('%d', (#out - before) / 2)
  end
  for i = #ready, turn, -1 do -- those that nobody has come to are the first again
    call('LPUSH', groups, ready[i])
  end
end

flush()
if #later > 0 then
  call('RPUSH', groups, unpack(later))
end
local got = #out / 2
if #gone > 0 then
  flying = flying - call('ZREM', flight, unpack(gone))
end
if #bodies > 0 then
  call('HSET', msg, unpack(bodies))
end
if got > 0 then
  flying = flying + call('ZADD', flight, unpack(members))
  if rate > 0 then
    call('HSET', KEYS[1], 'tat', string.format('%.3f', math.max(tat, now) + got * per / rate))
  end
  if attempt ~= '' then
    local receipts = {}
    for i = 1, #out, 2 do
      receipts[#receipts + 1] = out[i]
    end
    call('HSET', base .. 'tries', attempt, now .. ' ' .. table.concat(receipts, ' '))
    call('RPUSH', base .. 'triesq', now .. ' ' .. attempt)
  end
end
for _ = 1, attempt ~= '' and 2 or 0 do
  local time, old = match(call('LINDEX', base .. 'triesq', 0) or '', '^(%d+) (%S+)$')
  if not time or now - tonumber(time) < 300000 then
    break
  end
  call('LPOP', base .. 'triesq')
  if match(call('HGET', base .. 'tries', old) or '', '^%d+') == time then
    call('HDEL', base .. 'tries', old)
  end
end
-- Counts that somebody's hand in the keys has put wrong begin anew when nothing is left.
if got == 0 and n ~= 0 and call('HLEN', msg) == 0 and call('EXISTS', heads) == 0 then
  n, size = 0, 0
end
if n ~= n0 then
  call('HSET', KEYS[1], 'n', math.max(0, n), 'size', math.max(0, size))
end
if expired > 0 then
  call('HINCRBY', KEYS[1], 'expired', expired)
end
if paused then
  soon = -1 -- who resumes the queue wakes all
elseif not limited and (got < want or want == 0) then
  at(tonumber(call('ZRANGE', locked, 0, 0, 'WITHSCORES')[2]))
end
if got == 0 and wrong then
  return wrong
end
if got == 0 and ARGV[4] ~= '' then
  call('ZADD', base .. 'wait', now + patient, ARGV[4])
end
return answer()
