#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  how many messages at most, a number for each caller; 0 asks whether there are any
-- ARGV[2]  for how long they are in flight, ms
-- ARGV[3]  eight letters or digits that make this delivery's receipts its own
-- ARGV[4]  the channel, a space and the id by which to wake who asks; empty for who does not wait
-- ARGV[5]  for how long they wait without asking again, ms
-- ARGV[6]  names this attempt: within five minutes the same attempt gets the same answer; empty for none
-- ARGV[7]  the time (Unix ms), in tests
-- reply    {-2 if there is no queue, -1 if it was deleted}; else {messages that wait, ms until there may be more or -1, messages
-- reply    to be moved to the dead letters, how many of the messages are each caller's}, then a receipt and a blob for each message
--
-- This is for FIFO queues. No two callers get messages of the same group. A group stands in groups, or in locked until nothing of it is in flight. What was received of it and is
-- not done is in held, in order, and comes again before anything else of the group.
local base = string.sub(KEYS[1], 1, -5)
local m = redis.call('HMGET', KEYS[1], 'fifo', 'paused', 'recv', 'keep', 'flight', 'delay', 'rate', 'per', 'grate', 'gper', 'n', 'size', 'tat')
if not m[1] then
  return {redis.call('EXISTS', KEYS[2]) - 2}
end
local now = tonumber(ARGV[7])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local want, hidden, nonce, attempt = 0, tonumber(ARGV[2]), ARGV[3], ARGV[6]
local recv, keep, flightMax, delay = tonumber(m[3]) or 0, tonumber(m[4]), tonumber(m[5]) or 0, tonumber(m[6]) or 0
local rate, per, grate, gper = tonumber(m[7]) or 0, tonumber(m[8]) or 1, tonumber(m[9]) or 0, tonumber(m[10]) or 1
local n, size, tat = tonumber(m[11]) or 0, tonumber(m[12]) or 0, tonumber(m[13]) or 0
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

local function answer()
  local dead = redis.call('ZCARD', base .. 'dead')
  local waiting = m[2] == '1' and 0 or n - redis.call('ZCARD', flight) - dead
  return {waiting, soon < 0 and -1 or math.max(0, math.ceil(soon - now)), dead, table.concat(shares, ' '), unpack(out)}
end

-- The same attempt again: the same messages and receipts, if nothing has become of them.
if attempt ~= '' then
  local time, receipts = string.match(redis.call('HGET', base .. 'tries', attempt) or '', '^(%d+) (.+)$')
  if time and now - tonumber(time) < 300000 then
    local again, ids, live, seen = {}, {}, true, {}
    for member in string.gmatch(receipts, '%S+') do
      local score = redis.call('ZSCORE', flight, member)
      live = live and score and tonumber(score) > now
      again[#again + 1], ids[#ids + 1] = member, string.match(member, '^[^:]+')
    end
    if live then
      local blobs = redis.call('HMGET', msg, unpack(ids))
      for i, member in ipairs(again) do
        redis.call('ZADD', flight, now + hidden, member)
        seen[string.match(member, '^[^:]+:%d+:%d+:%d+:[^:]*:(.*)$')] = true
        out[#out + 1] = member
        out[#out + 1] = blobs[i]
      end
      for group in pairs(seen) do
        local last = 0
        for member in string.gmatch(redis.call('HGET', held, group) or '', '%S+') do
          last = math.max(last, tonumber(redis.call('ZSCORE', flight, member)) or 0)
        end
        redis.call('ZADD', locked, string.format('%.0f', last), group)
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
  local id, unique = string.match(blob, '^%d+ %d+ (%S+) %d+ %S* (%S*)\n')
  if unique ~= '' and string.match(redis.call('HGET', base .. 'unique', unique) or '', '^%S+') == id then
    redis.call('HDEL', base .. 'unique', unique)
  end
end

local function lease(id, times, first, bytes, flag, group, blob)
  local member = id .. ':' .. times .. ':' .. first .. ':' .. bytes .. ':' .. flag .. nonce .. ':' .. group
  members[#members + 1] = now + hidden
  members[#members + 1] = member
  out[#out + 1] = member
  out[#out + 1] = blob
  return member
end

local room, limited = m[2] == '1' and 0 or want, false
if rate > 0 then
  local left, next = tokens(tat, rate, per)
  if left < room then
    room, limited = math.max(0, left), true
    at(next)
  end
end
redis.call('HLEN', msg) -- a key of another type is noticed before anything is taken
local fresh = room
if flightMax > 0 then
  fresh = math.min(room, flightMax - redis.call('ZCARD', flight))
end

local share = 0 -- what the caller whose turn it is may still get

-- Takes of a group what there is room for.
local function take(group)
  local list, before, debt = base .. 'g:' .. group, room, 0
  local limit = math.min(room, share)
  if grate > 0 then
    debt = tonumber(redis.call('ZSCORE', base .. 'rates', group)) or 0
    local left, next = tokens(debt, grate, gper)
    limit = math.min(limit, left)
    if left < 1 then
      redis.call('ZADD', locked, string.format('%.0f', math.ceil(next)), group)
      return
    end
  end
  local order, old, ids = {}, {}, {}
  for member in string.gmatch(redis.call('HGET', held, group) or '', '%S+') do
    old[#old + 1], ids[#ids + 1] = member, string.match(member, '^[^:]+')
  end
  local blobs = #old > 0 and redis.call('HMGET', msg, unpack(ids)) or {}
  for i, member in ipairs(old) do
    local id, times, first, bytes, flag = string.match(member, '^([^:]+):(%d+):(%d+):(%d+):([-u])')
    if limit == 0 then
      order[#order + 1] = member
    else
      gone[#gone + 1] = member
      if not blobs[i] then -- somebody has deleted it by hand
        n, size = n - 1, size - bytes
      elseif now - tonumber(string.match(blobs[i], '^%d+')) > keep then
        redis.call('HDEL', msg, id)
        drop(blobs[i])
      elseif recv > 0 and tonumber(times) >= recv then
        redis.call('ZADD', base .. 'dead', now, member)
      else
        order[#order + 1] = lease(id, tonumber(times) + 1, first, bytes, flag, group, blobs[i])
        limit, room, share = limit - 1, room - 1, share - 1
      end
    end
  end
  local popped, due = false, nil
  for _ = 1, 1000 do
    if limit == 0 or fresh <= 0 then
      break
    end
    if delay > 0 then
      local sent = string.match(redis.call('LINDEX', list, 0) or '', '^%d+')
      if sent and tonumber(sent) + delay > now then
        due = tonumber(sent) + delay
        break
      end
    end
    local more = redis.call('LPOP', list, delay > 0 and 1 or math.min(limit, fresh)) or {}
    if #more == 0 then
      break
    end
    popped = true
    for _, blob in ipairs(more) do
      local sent, id, unique = string.match(blob, '^(%d+) %d+ (%S+) %d+ %S* (%S*)\n')
      if now - tonumber(sent) > keep then
        drop(blob)
      else
        order[#order + 1] = lease(id, 1, now, #blob, unique == '' and '-' or 'u', group, blob)
        bodies[#bodies + 1] = id
        bodies[#bodies + 1] = blob
        limit, room, share, fresh = limit - 1, room - 1, share - 1, fresh - 1
      end
    end
  end
  if grate > 0 and room < before then
    redis.call('ZADD', base .. 'rates', string.format('%.3f', math.max(debt, now) + (before - room) * gper / grate), group)
  end
  local head = redis.call('LINDEX', list, 0)
  if not head then
    redis.call('ZREM', heads, group)
  elseif popped then
    redis.call('ZADD', heads, string.match(head, '^%d+'), group)
  end
  if #order > 0 then
    redis.call('HSET', held, group, table.concat(order, ' '))
    redis.call('ZADD', locked, now + hidden, group)
    return
  end
  redis.call('HDEL', held, group)
  if due then
    redis.call('ZADD', locked, due, group)
  else
    redis.call('ZREM', locked, group)
    if head then
      redis.call('RPUSH', groups, group)
    end
  end
end

if room > 0 then
  if grate > 0 then
    redis.call('ZREMRANGEBYSCORE', base .. 'rates', '-inf', now) -- a bucket that is full again is like a new one
  end
  local back, index, turns = redis.call('ZRANGEBYSCORE', locked, '-inf', now, 'LIMIT', 0, room), 1, 100 + room
  for most in string.gmatch(ARGV[1], '%d+') do
    share = tonumber(most)
    local before = #out
    while share > 0 and room > 0 do
      if index > #back and #back > 0 and turns > 0 then
        back, index = redis.call('ZRANGEBYSCORE', locked, '-inf', now, 'LIMIT', 0, room), 1
        turns = turns - 1
      end
      if back[index] then
        index = index + 1
        take(back[index - 1])
      else
        local group = turns > 0 and fresh > 0 and redis.call('LPOP', groups)
        if not group then
          break
        end
        turns = turns - 1
        if not redis.call('ZSCORE', locked, group) then
          take(group)
        end
      end
    end
    shares[#shares + 1] = string.format('%d', (#out - before) / 2)
  end
end

local got = #out / 2
if #gone > 0 then
  redis.call('ZREM', flight, unpack(gone))
end
if #bodies > 0 then
  redis.call('HSET', msg, unpack(bodies))
end
if got > 0 then
  redis.call('ZADD', flight, unpack(members))
  if rate > 0 then
    redis.call('HSET', KEYS[1], 'tat', string.format('%.3f', math.max(tat, now) + got * per / rate))
  end
  if attempt ~= '' then
    local receipts = {}
    for i = 1, #out, 2 do
      receipts[#receipts + 1] = out[i]
    end
    redis.call('HSET', base .. 'tries', attempt, now .. ' ' .. table.concat(receipts, ' '))
    redis.call('RPUSH', base .. 'triesq', now .. ' ' .. attempt)
  end
end
for _ = 1, attempt ~= '' and 2 or 0 do
  local time, old = string.match(redis.call('LINDEX', base .. 'triesq', 0) or '', '^(%d+) (%S+)$')
  if not time or now - tonumber(time) < 300000 then
    break
  end
  redis.call('LPOP', base .. 'triesq')
  if string.match(redis.call('HGET', base .. 'tries', old) or '', '^%d+') == time then
    redis.call('HDEL', base .. 'tries', old)
  end
end
if n ~= n0 then
  redis.call('HSET', KEYS[1], 'n', n, 'size', size)
end
if expired > 0 then
  redis.call('HINCRBY', KEYS[1], 'expired', expired)
end
if m[2] == '1' then
  soon = -1 -- who resumes the queue wakes all
elseif not limited and (got < want or want == 0) then
  at(tonumber(redis.call('ZRANGE', locked, 0, 0, 'WITHSCORES')[2]))
end
if got == 0 and ARGV[4] ~= '' then
  redis.call('ZADD', base .. 'wait', now + ARGV[5], ARGV[4])
end
return answer()
