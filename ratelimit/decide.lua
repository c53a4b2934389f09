#!lua
-- KEYS[1..]  for each thing that is asked, the state of the subject's limits but those of kind c; expires when
--          all of it is available again
-- KEYS[2]  with a limit of kind c, where one thing is asked, the places: token -> until when it is held, Unix
--          ms; expires with the last
-- ARGV[1]  how many limits, k
-- ARGV[2]  how many things are asked, n
-- ARGV[3..]  four for each limit: its kind, its limit, and two numbers x, y
--          w fixed window: x its length, ms. q quota: x 1 day, 2 week, 3 month; y its offset, ms
--          b bucket: the limit is its burst; x ticks in a ms, y ticks for a unit
--          s sliding window: x its length, y that of its parts, ms
--          l sliding log: x its window, ms; y bytes of a record
--          c concurrency: x the lease, ms; y the token of who asks
--          behind them two for each thing asked, a cost and a count: so many times cost units, each whole
--          or not at all; a count of 0 only looks; one of -t gives back cost units charged at t, Unix ms
--          behind them, in tests only: now, Unix us
-- reply    {now in Unix ms, then for each thing asked: how often it was granted, and for each limit after
--          it: units left, until all are (ms; ticks of a b), until cost units are (likewise; 0 now, -1 never)}
--
-- The state has a section for each limit, split by ";":
--   w q  "index used": of the window or the period
--   b    a number: until when the bucket fills, 13 digits of Unix ms, then ticks if any
--   w q b beside other limits: the index, or the ms, in 6 bytes, big endian; then used, or the ticks, in digits
--   s    "index count older older:": of the newest part, and the sum and the list "index:count," of the
--        older ones, oldest first, their indexes modulo 1000
--   l    "base length;" and the times of the units less base, big endian, oldest first
-- What can't be read counts as nothing used, and is replaced.
local floor, find, sub, byte = math.floor, string.find, string.sub, string.byte
local k = tonumber(ARGV[1])
local asked = tonumber(ARGV[2])
local now, us, longer = ARGV[k * 4 + asked * 2 + 3], nil, 0
if now then
  us = tonumber(now) % 1000
  now = (now - us) / 1000
  longer = 86400000 -- keys expire by the server's own clock: what is over must count for nothing until then
else
  local time = redis.call('TIME')
  us = time[2] % 1000
  now = time[1] * 1000 + (time[2] - us) / 1000
end

-- Digits as a number, of which there is none above 2^53.
local function number(digits)
  if digits and #digits > 16 then
    return 9007199254740992
  end
  return digits and tonumber(digits)
end

-- A number as the server's Lua prints it has 14 digits at most.
local function text(n)
  return n < 1e14 and n or string.format('%.0f', n)
end

-- The index and the end of a quota's period.
local function period(kind, offset, t)
  local day = floor((t - offset) / 86400000)
  if kind == 1 then
    return day, (day + 1) * 86400000 + offset
  elseif kind == 2 then
    local week = floor((day + 3) / 7)
    return week, (week * 7 + 4) * 86400000 + offset
  end
  local z = day + 719468 -- days since 0000-03-01
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local month = floor((5 * doy + 2) / 153) -- March is 0
  local first = floor((153 * month + 2) / 5)
  local year = yoe + era * 400
  local length = floor((153 * month + 155) / 5) - first
  if month == 11 then
    length = ((year + 1) % 4 == 0 and ((year + 1) % 100 ~= 0 or (year + 1) % 400 == 0)) and 29 or 28
  end
  return year * 12 + month, (day - doy + first + length) * 86400000 + offset
end

-- Six bytes as a number, and back.
local function unpack6(s, at)
  local a, b, c, d, e, f = byte(s, at, at + 5)
  return f and ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end

local function pack6(n)
  n = math.min(n, 281474976710655)
  return string.char(floor(n / 1099511627776), floor(n / 4294967296) % 256, floor(n / 16777216) % 256,
    floor(n / 65536) % 256, floor(n / 256) % 256, n % 256)
end

local function record(s, i, width)
  local n = 0
  for j = (i - 1) * width + 1, i * width do
    n = n * 256 + byte(s, j)
  end
  return n
end

local function encode(n, width)
  local s = ''
  for _ = 1, width do
    s = string.char(n % 256) .. s
    n = floor(n / 256)
  end
  return s
end

-- Of each limit: its kind, its limit, x and y; its window's index and end; units left; and of its state what
-- the comments say.
local kinds, limits, xs, ys, indexes, ends, left = {}, {}, {}, {}, {}, {}, {}
local A, B, C, S = {}, {}, {}, {}
for i = 1, k do
  local kind, x, y = ARGV[i * 4 - 1], tonumber(ARGV[i * 4 + 1]), ARGV[i * 4 + 2]
  if kind ~= 'c' then
    y = tonumber(y)
  end
  kinds[i], limits[i], xs[i], ys[i] = kind, tonumber(ARGV[i * 4]), x, y
  if kind == 'w' then
    indexes[i] = (now - now % x) / x
    ends[i] = (indexes[i] + 1) * x
  elseif kind == 'q' then
    indexes[i], ends[i] = period(x, y, now)
  end
end

-- Reads the i-th section of value from pos on. It returns where the next one begins, and whether the state has
-- to be written even if nothing is granted.
local function load(i, value, pos, quiet)
  local kind, limit, x, y, dirty = kinds[i], limits[i], xs[i], ys[i], false
  local _, last, a, b, c, s
  if kind == 'w' or kind == 'q' then -- A index, B used
    local index = indexes[i]
    if k == 1 then
      _, last, a, b = find(value, '^(%d+) (%d+)')
      a = number(a)
    else
      _, last, b = find(value, '^(%d+);?', pos + 6)
      a = b and unpack6(value, pos)
    end
    b = number(b) or 0
    if not a or a < index then
      b = 0
    elseif a > index then
      dirty = true -- the clock stepped back: what was used counts here
    end
    A[i], B[i] = index, b
    left[i] = limit - b
  elseif kind == 'b' then -- A cap, B level; ticks
    if k == 1 then
      _, last, s = find(value, '^(%d+)')
      if s then
        a, s = tonumber(sub(s, 1, 13)), sub(s, 14)
      end
    else
      _, last, s = find(value, '^(%d*);?', pos + 6)
      a = s and unpack6(value, pos)
    end
    b = a and (a - now) * x + (number(s) or 0) - floor(us * x / 1000) or 0
    a = limit * y
    if b < 0 then
      b = 0
    elseif b > a then
      b, dirty = a, true -- the clock stepped back
    end
    A[i], B[i] = a, b
    left[i] = (a - b - (a - b) % y) / y
  elseif kind == 's' then -- A newest index, B used, C count of the newest, S list of the older ones
    _, last, a, c, b, s = find(value, '^(%d+) (%d+) (%d+) ([%d:,]*);?', pos)
    local index, first = (now - now % y) / y, floor((now - x) / y)
    a, b, c = number(a), number(b), number(c)
    if not a or a < first then
      a, b, c, s = index, 0, 0, ''
    end
    if a > index then -- the clock stepped back: all parts move with it
      local back = a - index
      s = string.gsub(s, '(%d+):', function(j)
        return (j - back) % 1000 .. ':'
      end)
      a, dirty = index, true
    end
    local from = 1
    while true do
      local _, e, j, n = find(s, '^(%d+):(%d+),', from)
      if not e then
        s = ''
        break
      elseif a - (a - j) % 1000 >= first then
        s = sub(s, from)
        break
      end
      b, from = b - n, e + 1
    end
    if s == '' or b < 0 then
      b = 0
    end
    A[i], B[i], C[i], S[i] = a, math.min(b + c, 9007199254740992), c, s
    left[i] = limit - B[i]
  elseif kind == 'l' then -- A base, B units in the window, S their times
    _, last, a, b = find(value, '^(%d+) (%d+);', pos)
    a, b, s = number(a), number(b), ''
    if a and b % y == 0 and last + b <= #value then
      s = sub(value, last + 1, last + b)
      last = last + b
      if byte(value, last + 1) == 59 then
        last = last + 1
      end
    else
      a, last = now, nil
    end
    local n = #s / y
    if n > 0 then
      local newest = a + record(s, n, y)
      if newest > now then -- the clock stepped back: all times move with it
        a, dirty = a - (newest - now), true
      end
      local low, high = 1, n + 1 -- the first one in the window is in [low, high]
      while low < high do
        local mid = floor((low + high) / 2)
        if a + record(s, mid, y) > now - x then
          high = mid
        else
          low = mid + 1
        end
      end
      s = sub(s, (low - 1) * y + 1)
    end
    A[i], B[i], S[i] = a, #s / y, s
    left[i] = limit - B[i]
  else -- A places taken
    a = redis.pcall('ZCOUNT', KEYS[2], '(' .. now, '+inf')
    A[i] = type(a) == 'number' and a or 0
    left[i] = limit - A[i]
    if left[i] <= 0 and not quiet then
      -- No lease is longer than this: the clock stepped back, or leases are shorter now.
      for _, token in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now + x, '+inf')) do
        redis.call('ZADD', KEYS[2], now + x, token)
      end
    end
    last = pos - 1
  end
  return last and last + 1 or #value + 1, dirty
end

local function charge(i, n)
  local kind = kinds[i]
  if kind == 'w' or kind == 'q' then
    B[i] = B[i] + n
  elseif kind == 'b' then
    B[i] = B[i] + n * ys[i]
    left[i] = (A[i] - B[i] - (A[i] - B[i]) % ys[i]) / ys[i]
    return
  elseif kind == 's' then
    local index = (now - now % ys[i]) / ys[i]
    if A[i] < index then
      if C[i] > 0 then
        S[i] = S[i] .. A[i] % 1000 .. ':' .. text(C[i]) .. ','
      end
      A[i], C[i] = index, 0
    end
    B[i], C[i] = B[i] + n, C[i] + n
  elseif kind == 'l' then
    local width, s = ys[i], S[i]
    if s == '' then
      A[i] = now
    elseif now - A[i] >= 256 ^ width then
      local base, moved = A[i] + record(s, 1, width), {}
      for j = 1, B[i] do
        moved[j] = encode(A[i] + record(s, j, width) - base, width)
      end
      A[i], s = base, table.concat(moved)
    end
    S[i] = s .. string.rep(encode(now - A[i], width), n)
    B[i] = B[i] + n
  else
    if type(redis.pcall('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)) ~= 'number' then
      redis.call('DEL', KEYS[2])
    end
    redis.call('ZADD', KEYS[2], now + xs[i], ys[i])
    if redis.call('PTTL', KEYS[2]) < xs[i] + longer then
      redis.call('PEXPIRE', KEYS[2], xs[i] + longer)
    end
    left[i] = left[i] - 1
    return
  end
  left[i] = left[i] - n
end

-- Gives n units back that were charged at t, if they still count: from the oldest on, so that no more
-- than the limit is ever in use.
local function refund(i, n, t)
  local kind, y = kinds[i], ys[i]
  if kind == 'w' or kind == 'q' then
    local index = kind == 'w' and (t - t % xs[i]) / xs[i] or period(xs[i], y, t)
    if index == A[i] then
      B[i] = math.max(0, B[i] - n)
    end
    left[i] = limits[i] - B[i]
  elseif kind == 'b' then
    if (now - t) * xs[i] < A[i] then
      B[i] = math.max(0, B[i] - n * y)
    end
    left[i] = (A[i] - B[i] - (A[i] - B[i]) % y) / y
  elseif kind == 's' and (t - t % y) / y >= floor((now - xs[i]) / y) then
    while n > 0 do
      local _, e, j, c = find(S[i], '^(%d+):(%d+),')
      c = tonumber(c)
      if not e then
        n = math.min(n, C[i])
        C[i], B[i], n = C[i] - n, B[i] - n, 0
      elseif c > n then
        S[i] = j .. ':' .. text(c - n) .. ',' .. sub(S[i], e + 1)
        B[i], n = B[i] - n, 0
      else
        S[i] = sub(S[i], e + 1)
        B[i], n = B[i] - c, n - c
      end
    end
    left[i] = limits[i] - B[i]
  elseif kind == 'l' and t > now - xs[i] then
    n = math.min(n, B[i])
    S[i], B[i] = sub(S[i], n * y + 1), B[i] - n
    left[i] = limits[i] - B[i]
  end
end

-- Until all units are available, and until cost units are.
local function waits(i, cost)
  local kind, x, y = kinds[i], xs[i], ys[i]
  if kind == 'w' or kind == 'q' then
    return ends[i] - now, cost > limits[i] and -1 or cost > left[i] and ends[i] - now or 0
  elseif kind == 'b' then
    return B[i], cost > limits[i] and -1 or math.max(0, B[i] - (A[i] - cost * y))
  elseif kind == 's' then
    local all = B[i] > 0 and (A[i] + 1) * y + x - now or 0
    if cost > limits[i] or cost <= left[i] then
      return all, cost > limits[i] and -1 or 0
    end
    local need = cost - left[i]
    for j, c in string.gmatch(S[i], '(%d+):(%d+),') do
      need = need - c
      if need <= 0 then
        return all, (A[i] - (A[i] - j) % 1000 + 1) * y + x - now
      end
    end
    return all, all
  elseif kind == 'l' then
    local all = B[i] > 0 and A[i] + record(S[i], B[i], y) + x - now or 0
    if cost > limits[i] or cost <= left[i] then
      return all, cost > limits[i] and -1 or 0
    end
    return all, A[i] + record(S[i], math.min(B[i], cost - left[i]), y) + x - now
  end
  if left[i] > 0 then
    return left[i] < limits[i] and x or 0, 0
  end
  local next = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local wait = next[2] and math.min(x, next[2] - now) or x
  return x, wait
end

-- Writes the state.
local function save(key)
  local sections, ms = {}, 0
  for i = 1, k do
    local kind = kinds[i]
    if kind == 'w' or kind == 'q' then
      sections[#sections + 1] = (k == 1 and A[i] .. ' ' or pack6(A[i])) .. text(B[i])
      ms = math.max(ms, ends[i] - now)
    elseif kind == 'b' then
      local ticks = floor(us * xs[i] / 1000) + B[i]
      local rest = ticks % xs[i]
      local whole = (ticks - rest) / xs[i]
      sections[#sections + 1] = (k == 1 and now + whole or pack6(now + whole)) .. (rest > 0 and text(rest) or '')
      ms = math.max(ms, whole + 1)
    elseif kind == 's' then
      sections[#sections + 1] = A[i] .. ' ' .. text(C[i]) .. ' ' .. text(B[i] - C[i]) .. ' ' .. S[i]
      ms = math.max(ms, (A[i] + 1) * ys[i] + xs[i] - now)
    elseif kind == 'l' then
      sections[#sections + 1] = A[i] .. ' ' .. #S[i] .. ';' .. S[i]
      ms = math.max(ms, B[i] > 0 and A[i] + record(S[i], B[i], ys[i]) + xs[i] - now or 1)
    end
  end
  if #sections > 0 then
    redis.call('SET', key, table.concat(sections, ';'), 'PX', math.max(1, ms) + longer)
  end
end

local reply = {now}
for item = 1, asked do
  local key = KEYS[item]
  local cost, count = tonumber(ARGV[k * 4 + item * 2 + 1]), tonumber(ARGV[k * 4 + item * 2 + 2])
  local value, pos, dirty, changed = redis.pcall('GET', key), 1, false, false
  if type(value) ~= 'string' then
    value = ''
  end
  for i = 1, k do
    pos, changed = load(i, value, pos, count == 0)
    dirty = dirty or changed
  end
  local n, granted = math.max(0, count), count < 0
  if count < 0 then
    for i = 1, k do
      refund(i, cost, -count)
    end
  elseif n > 0 then
    for i = 1, k do
      n = math.min(n, kinds[i] == 'c' and (left[i] > 0 and n or 0) or floor((left[i] - left[i] % cost) / cost))
    end
    if n > 0 then
      granted = true
      for i = 1, k do
        charge(i, n * cost)
      end
    end
    n = math.max(0, n)
  end
  local at = #reply + 1
  reply[at] = n
  for i = 1, k do
    local all, this = waits(i, cost)
    reply[at + 1], reply[at + 2], reply[at + 3] = math.max(0, left[i]), all, this
    at = at + 3
  end
  if count ~= 0 then
    if not granted and not dirty and value ~= '' then
      dirty = redis.call('PTTL', key) == -1 -- it has lost its expiry, and gets it back
    end
    if granted or dirty then
      save(key)
    end
    for i = 1, granted and 0 or k do
      if kinds[i] == 'c' and redis.call('PTTL', KEYS[2]) == -1 then -- so have the places
        redis.call('PEXPIRE', KEYS[2], xs[i] + longer)
      end
    end
  end
end
return reply
