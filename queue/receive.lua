#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  how many messages at most; 0 asks whether there are any
-- ARGV[2]  for how long they are in flight, ms
-- ARGV[3]  twenty letters or digits that make this delivery's receipts its own
-- ARGV[4]  the channel, a space and the id by which to wake who asks; empty for who does not wait
-- ARGV[5]  for how long they wait without asking again, ms; a space, and the queue's partitions as the process knows them
-- ARGV[6]  the time (Unix ms), in tests
-- reply    {-2 if there is no queue, or another one, -1 if it was deleted}; else {messages that wait, ms until there may be more or -1, messages
-- reply    to be moved to the dead letters}, then a receipt and a blob for each message
--
-- This is for standard queues. Messages whose time in flight has passed come first, then delayed ones whose time has come,
-- then those of each group in turn; messages without a group are a group too.
local call, match = redis.call, string.match
local base = string.sub(KEYS[1], 1, -5)
local m = call('HMGET', KEYS[1], 'cr', 'n', 'size', 'paused')
if not m[1] then
  return {call('EXISTS', KEYS[2]) - 2}
end
local now = tonumber(ARGV[6])
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local want, hidden, nonce, paused = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], m[4] == '1'
local recv, keep, flightMax, groupMax, rate, per, grate, gper, fifo, parts = match(m[1], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) %d+ (%d) (%d+)$')
local patient, known = match(ARGV[5], '^(%d+) (%d+)$')
if fifo ~= '0' or parts ~= known then -- it was made anew as another one
  return {-2}
end
recv, keep, flightMax, groupMax = tonumber(recv), tonumber(keep), tonumber(flightMax), tonumber(groupMax)
rate, per, grate, gper = tonumber(rate), tonumber(per), tonumber(grate), tonumber(gper)
local n, size, tat = math.max(0, tonumber(m[2]) or 0), math.max(0, tonumber(m[3]) or 0), rate > 0 and tonumber(call('HGET', KEYS[1], 'tat')) or 0
local stops = groupMax > 0 or grate > 0
local until_ = tostring(now + hidden)
local new, plain, unique_ = ':1:' .. now .. ':', ':-' .. nonce .. ':', ':u' .. nonce .. ':'
local flight, msg, groups, locked, held = base .. 'flight', base .. 'msg', base .. 'groups', base .. 'locked', base .. 'held'
local out, members, bodies, expired = {}, {}, {}, 0
local soon = -1 -- when there may be more
local ring = 0 -- groups that wait for their turn
local n0 = n

local function at(time)
  if time and (soon < 0 or time < soon) then
    soon = time
  end
end

-- How many of a token bucket of limit, refilled over ms, are there; and when the next one is.
local function tokens(full, limit, ms)
  local gap = ms / limit
  full = math.max(full, now)
  return math.floor((now + ms - full) / gap + 1e-6), full - ms + gap
end

-- Frees the place of one message of a group, and lets the group go on.
local function free(group)
  if group ~= '' then
    if call('HINCRBY', held, group, -1) <= 0 then
      call('HDEL', held, group)
    end
    if call('ZSCORE', locked, group) then
      call('ZREM', locked, group)
      if call('ZSCORE', base .. 'heads', group) then
        ring = call('RPUSH', groups, group)
      end
    end
  end
end

local function drop(blob)
  expired, n, size = expired + 1, n - 1, size - #blob
  local id, unique = match(blob, '^%d+ %d+ (%S+) %d+ %S* (%S*)\n')
  local holder = unique ~= '' and redis.pcall('HGET', base .. 'unique', unique)
  if type(holder) == 'string' and match(holder, '^%S+') == id then
    call('HDEL', base .. 'unique', unique)
  end
end

local filled, leased = 0, 0

local function lease(member, blob)
  members[leased + 1], members[leased + 2] = until_, member
  out[leased + 1], out[leased + 2] = member, blob
  leased = leased + 2
end

-- Leases a message that was never received; false if its life has ended. body says that its blob is to be put where those
-- in flight are; old that the one before it in its list has not ended its life, so that this one has not.
local function begin(blob, body, old)
  local sent, id, group, unique = match(blob, '^(%d+) %d+ (%S+) %d+ (%S*) (%S*)')
  if not old and now - sent > keep then
    drop(blob)
    return false
  end
  lease(id .. new .. #blob .. (unique == '' and plain or unique_) .. group, blob)
  if body then
    bodies[filled + 1], bodies[filled + 2] = id, blob
    filled = filled + 2
  end
  return true
end

local room, fresh, limited = want, want, false
if paused then
  room = 0
end
if rate > 0 then
  local left, next = tokens(tat, rate, per)
  if left < room then
    room, limited = math.max(0, left), true
    at(next)
  end
end

-- Keys of another type are met before anything is taken.
call('HLEN', msg)
ring = room > 0 and call('LLEN', groups) or 0
local met = false
local function meet()
  if not met then
    call('HLEN', held)
    call('ZCARD', base .. 'heads')
    met = true
  end
end
if stops then
  call('ZCARD', locked)
end
if grate > 0 and room > 0 then
  call('ZREMRANGEBYSCORE', base .. 'rates', '-inf', now) -- a bucket that is full again is like a new one
end

if room > 0 then
  for _ = 1, 10 do -- more than once where some of them are dead
    local due = room > 0 and call('ZRANGEBYSCORE', flight, '-inf', now, 'LIMIT', 0, room) or {}
    if #due == 0 then
      break
    end
    meet()
    call('ZCARD', locked)
    call('ZCARD', base .. 'dead')
    call('ZCARD', base .. 'delay')
    local ids = {}
    for i, member in ipairs(due) do
      ids[i] = match(member, '^[^:]+')
    end
    local blobs = call('HMGET', msg, unpack(ids))
    call('ZREM', flight, unpack(due))
    for i, member in ipairs(due) do
      local id, times, first, bytes, flag, group = match(member, '^([^:]+):(%d+):(%d+):(%d+):([-u])[^:]*:(.*)$')
      local blob = blobs[i]
      if not blob then -- somebody has deleted it by hand
        n, size = n - 1, size - bytes
        free(group)
      elseif now - tonumber(match(blob, '^%d+')) > keep then
        call('HDEL', msg, id)
        drop(blob)
        free(group)
      elseif recv > 0 and tonumber(times) >= recv then
        call('ZADD', base .. 'dead', now, member)
        free(group)
      else
        lease(id .. ':' .. times + 1 .. ':' .. first .. ':' .. bytes .. (flag == '-' and plain or unique_) .. group, blob)
        room = room - 1
      end
    end
  end

  -- A limit of messages in flight does not hold up those that are: they have their places.
  fresh = room
  if flightMax > 0 then
    fresh = math.min(room, flightMax - call('ZCARD', flight) - leased / 2)
  end
  for _ = 1, 10 do
    local due = fresh > 0 and call('ZRANGEBYSCORE', base .. 'delay', '-inf', now, 'LIMIT', 0, fresh) or {}
    if #due == 0 then
      break
    end
    local blobs = call('HMGET', msg, unpack(due))
    meet()
    call('ZREM', base .. 'delay', unpack(due))
    for i, blob in ipairs(blobs) do
      if blob then
        local group = match(blob, '^%d+ %d+ %S+ %d+ (%S*) ')
        if group ~= '' then -- it waits for its turn beside the others of its group
          local length = redis.pcall('RPUSH', base .. 'g:' .. group, blob)
          if length == 1 then
            call('ZADD', base .. 'heads', match(blob, '^%d+'), group)
            if type(redis.pcall('ZSCORE', locked, group)) ~= 'string' then
              ring = call('RPUSH', groups, group)
            end
          end
          if type(length) == 'number' then
            call('HDEL', msg, due[i])
          else -- a key of another type lies there
            call('ZADD', base .. 'delay', now + 100, due[i])
          end
        elseif begin(blob) then
          fresh, room = fresh - 1, room - 1
        else
          call('HDEL', msg, due[i])
        end
      end
    end
  end

  -- Groups that were out of tokens may have some again.
  local back = stops and call('ZRANGEBYSCORE', locked, '-inf', now, 'LIMIT', 0, 100) or {}
  if #back > 0 then
    call('ZREM', locked, unpack(back))
    for _, group in ipairs(back) do
      if call('ZSCORE', base .. 'heads', group) then
        ring = call('RPUSH', groups, group)
      end
    end
  end
end

local turns, wrong = 1000, nil -- lists whose messages have all ended their life keep nobody for long
local only = fresh > 0 and ring == 1 and call('LINDEX', groups, 0)
if fresh > 0 and ring > 1 or only and only ~= '' then
  meet()
end
local share = math.max(1, math.floor(fresh / math.max(1, ring)))
while fresh > 0 and ring > 0 and turns > 0 do
  turns = turns - 1
  local group = only or (ring == 1 and call('LINDEX', groups, 0) or call('LPOP', groups))
  only = nil
  local list = group == '' and base .. 'ready' or base .. 'g:' .. group
  local take, lock, debt = math.min(fresh, ring == 1 and fresh or share), nil, 0
  if group ~= '' and groupMax > 0 then
    local free = groupMax - (tonumber(call('HGET', held, group)) or 0)
    if free <= take then
      take, lock = math.max(0, free), 9e15 -- until one of its messages is done
    end
  end
  if group ~= '' and grate > 0 then
    debt = tonumber(call('ZSCORE', base .. 'rates', group)) or 0
    local left, next = tokens(debt, grate, gper)
    if left < take then
      take = math.max(0, left)
      lock = math.max(lock or 0, math.ceil(next))
    end
  end
  local blobs, got = take > 0 and redis.pcall('LPOP', list, take) or {}, 0
  for i = 1, #blobs do
    if begin(blobs[i], true, got > 0) then
      got = got + 1
    end
  end
  fresh, room = fresh - got, room - got
  if group ~= '' and got > 0 then
    call('HINCRBY', held, group, got)
    if grate > 0 then
      call('ZADD', base .. 'rates', string.format('%.3f', math.max(debt, now) + got * gper / grate), group)
    end
  end
  local more
  if group == '' then
    more = #blobs == take and call('EXISTS', list) == 1
  else
    local head = redis.pcall('LINDEX', list, 0)
    more = head
    if type(head) == 'table' then
      blobs = head
    elseif head then
      call('ZADD', base .. 'heads', match(head, '^%d+'), group)
    else
      call('ZREM', base .. 'heads', group)
    end
  end
  if blobs.err then -- a key of another type: its turn comes again, and the others have theirs
    wrong = blobs
    if ring > 1 then
      call('RPUSH', groups, group)
    end
  elseif ring == 1 and (not more or lock) then
    call('LPOP', groups)
  end
  if not more or blobs.err then
    ring = ring - 1
  elseif lock then
    ring = ring - 1
    call('ZADD', locked, string.format('%.0f', lock), group)
  elseif ring > 1 then
    call('RPUSH', groups, group)
  end
end

local got = leased / 2
if #bodies > 0 then
  call('HSET', msg, unpack(bodies))
end
if got > 0 then
  call('ZADD', flight, unpack(members))
  if rate > 0 then
    call('HSET', KEYS[1], 'tat', string.format('%.3f', math.max(tat, now) + got * per / rate))
  end
end
-- Counts that somebody's hand in the keys has put wrong begin anew when nothing is left.
if got == 0 and n ~= 0 and call('HLEN', msg) == 0 and call('EXISTS', base .. 'ready', base .. 'heads') == 0 then
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
  at(tonumber(call('ZRANGE', flight, 0, 0, 'WITHSCORES')[2]))
  if stops then
    at(tonumber(call('ZRANGE', locked, 0, 0, 'WITHSCORES')[2]))
  end
  if fresh > 0 or want == 0 then
    at(tonumber(redis.pcall('ZRANGE', base .. 'delay', 0, 0, 'WITHSCORES')[2]))
  end
end
if got == 0 and wrong then
  return wrong
end
if got == 0 and ARGV[4] ~= '' then
  call('ZADD', base .. 'wait', now + patient, ARGV[4])
end
-- A call that got all it asked for does not look at the rest.
local dead, waiting = 0, n - got
if got < want or want == 0 then
  local ended, delayed = redis.pcall('ZCARD', base .. 'dead'), redis.pcall('ZCARD', base .. 'delay')
  dead = type(ended) == 'number' and ended or 0
  waiting = n - call('ZCARD', flight) - (type(delayed) == 'number' and delayed or 0) - dead
end
return {paused and 0 or math.max(0, waiting), soon < 0 and -1 or math.max(0, math.ceil(soon - now)), dead, unpack(out)}
