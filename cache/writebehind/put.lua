#!lua
-- KEYS[1]  the value
-- KEYS[2]  the log: what is known of each key that waits, a dot before it; and four counts
-- KEYS[3]  when each key is due, ms
-- ARGV[1]  the key
-- ARGV[2]  what the value begins with
-- ARGV[3]  the value
-- ARGV[4]  the window, ms
-- ARGV[5]  how many keys the log holds at most
-- reply    the version of the write, as text; 0 if the log is full
--
-- A key that waits keeps its place, and its entry as it is: the newest value goes out when the first was due. One that is
-- at the origin just now is noted to have been written again, and gets a place when that call has ended. Writers wait for
-- this script, so it makes few calls.
local field = '.' .. ARGV[1]
local entry = redis.call('HGET', KEYS[2], field)
local time = redis.call('TIME')
local version = time[1] * 1000000 + time[2]
local size = #ARGV[3]
local had, base
if entry then -- of a key that waits, and has not failed
  had, base = string.match(entry, '^0 0 %d+ (%d+) (%d+) 0 ')
end
if not had or size > tonumber(had) then
  local flight, again, since, tries
  if entry then
    flight, again, since, had, tries = string.match(entry, '^(%d+) (%d) (%d+) (%d+) %d+ (%d+)')
  end
  local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  local last
  if not flight then -- or what lies there is no entry
    local counts = redis.call('HMGET', KEYS[2], 'version', 'claims', 'done', 'dead')
    local none = (counts[1] and 1 or 0) + (counts[2] and 1 or 0) + (counts[3] and 1 or 0) + (counts[4] and 1 or 0)
    if redis.call('HLEN', KEYS[2]) - none >= tonumber(ARGV[5]) then
      return '0'
    end
    last, flight, again, since = counts[1], '0', '0', now
  else -- the origin may have seen the last version
    local head = redis.pcall('GETRANGE', KEYS[1], 0, 24)
    last = type(head) == 'string' and string.match(head, '^\251\1[PD](%d+) ')
    size = math.max(size, tonumber(had))
    if flight ~= '0' and again == '0' then
      again, since = '1', now
    elseif flight == '0' and tries ~= '0' then
      since = now
    end
  end
  version = math.max(version, tonumber(last or 0) + 1)
  base = string.format('%.0f', version)
  if flight == '0' and since == now then -- first: if it fails there must be no entry, which later writes would rely on
    redis.call('ZADD', KEYS[3], now + tonumber(ARGV[4]), ARGV[1])
  end
  redis.call('HSET', KEYS[2], field, table.concat({flight, again, since, size, base, '0 0 0 0 '}, ' '))
end
if version < tonumber(base) then
  version = base -- the clock went back
else
  version = string.format('%.0f', version)
end
redis.call('SET', KEYS[1], ARGV[2] .. version .. ' ' .. ARGV[3])
return version
