#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  how many receipts
-- ARGV[2..]  for each: what to do, the receipt, why; in tests the time (Unix ms) at the end
-- reply    {-2 if there is no queue, -1 if it was deleted}; else {messages to be moved to the dead letters}, then for each receipt
-- reply    1 if it was done, 0 if the receipt is not the message's last one or the message is gone, 2 if there are no dead letters
--
-- What to do: a, the message is done; e and ms, it stays in flight for so long from now on; n and ms, it failed, and comes again
-- after so long; r, it is rejected: it goes to the dead letters at once.
local base = string.sub(KEYS[1], 1, -5)
local m = redis.call('HMGET', KEYS[1], 'fifo', 'recv', 'dlq', 'n', 'size', 'acked', 'flight', 'gflight', 'died')
if not m[1] then
  return {redis.call('EXISTS', KEYS[2]) - 2}
end
local count = tonumber(ARGV[1])
local now = tonumber(ARGV[count * 3 + 2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local fifo, recv, dlq = m[1] == '1', tonumber(m[2]) or 0, m[3] and m[3] ~= ''
local n, size = tonumber(m[4]) or 0, tonumber(m[5]) or 0
local flight, msg, locked, held = base .. 'flight', base .. 'msg', base .. 'locked', base .. 'held'
local asked = {}
for i = 1, count do
  asked[i] = ARGV[i * 3]
end
local scores = redis.call('ZMSCORE', flight, unpack(asked))
local result, left, done, ids, unique, touched, freed = {}, {}, {}, {}, {}, {}, {}
local acked, died, woken = 0, 0, 0

for i, member in ipairs(asked) do
  local what, ms = string.match(ARGV[i * 3 - 1], '^(%a)(%d*)$')
  local why = ARGV[i * 3 + 1]
  result[i] = 1
  if not scores[i] or left[member] then
    result[i] = 0
  elseif what == 'r' and not dlq then
    result[i] = 2
  else
    local id, times, bytes, flag, group = string.match(member, '^([^:]+):(%d+):%d+:(%d+):([-u])[^:]*:(.*)$')
    if what == 'e' or what == 'n' and (recv == 0 or tonumber(times) < recv) then
      redis.call('ZADD', flight, 'XX', now + ms, member)
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
        redis.call('ZADD', base .. 'dead', now, member)
      end
    end
    if why ~= '' and what ~= 'a' then
      redis.call('HSET', base .. 'why', id, why)
    end
  end
end

if #unique > 0 then
  for i, blob in ipairs(redis.call('HMGET', msg, unpack(unique))) do
    local key = blob and string.match(blob, '^%d+ %d+ %S+ %d+ %S* (%S*)\n')
    if key and string.match(redis.call('HGET', base .. 'unique', key) or '', '^%S+') == unique[i] then
      redis.call('HDEL', base .. 'unique', key)
    end
  end
end
if #done > 0 then
  redis.call('ZREM', flight, unpack(done))
  woken = woken + ((m[7] or '0') ~= '0' and #done or 0)
end
if acked > 0 then
  redis.call('HDEL', msg, unpack(ids))
  redis.call('HDEL', base .. 'why', unpack(ids))
  redis.call('HSET', KEYS[1], 'n', n, 'size', size, 'acked', (tonumber(m[6]) or 0) + acked)
end

local function ready(group)
  redis.call('ZREM', locked, group)
  if redis.call('ZSCORE', base .. 'heads', group) then
    redis.call('RPUSH', base .. 'groups', group)
    woken = woken + 1
  end
end

for group in pairs(touched) do
  if fifo then
    local order, last = {}, 0
    for member in string.gmatch(redis.call('HGET', held, group) or '', '%S+') do
      local score = not left[member] and redis.call('ZSCORE', flight, member)
      if score then
        order[#order + 1], last = member, math.max(last, tonumber(score))
      end
    end
    if #order > 0 then
      redis.call('HSET', held, group, table.concat(order, ' '))
      redis.call('ZADD', locked, string.format('%.0f', last), group)
      if last < now + 2000 then
        woken = woken + 1
      end
    else
      redis.call('HDEL', held, group)
      ready(group)
    end
  elseif freed[group] then
    if redis.call('HINCRBY', held, group, -freed[group]) <= 0 then
      redis.call('HDEL', held, group)
    end
    if redis.call('ZSCORE', locked, group) then
      ready(group)
    end
  end
end
while woken > 0 do
  local who = redis.call('ZPOPMIN', base .. 'wait')
  if not who[1] then
    break
  end
  if tonumber(who[2]) > now then
    local channel, id = string.match(who[1], '^(%S+) (%S+)$')
    redis.pcall('PUBLISH', channel, id)
    woken = woken - 1
  end
end
return {redis.call('ZCARD', base .. 'dead'), unpack(result)}
