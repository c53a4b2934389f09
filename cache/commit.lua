#!lua
-- KEYS[1]  the entry
-- KEYS[2]  who fills it, as begin.lua has it
-- KEYS[3]  who waits for it: channel, a space, id
-- ARGV[1]  token of who has written
-- ARGV[2]  the entry to store; empty to store nothing
-- ARGV[3]  its time to live, ms
-- reply    1 if it was stored; 0 if it is removed, as after another invalidation or write
local owner = redis.pcall('GET', KEYS[2])
local stored = ARGV[2] ~= '' and type(owner) == 'string' and string.match(owner, '^w%.' .. ARGV[1] .. '=%d+ $') ~= nil
if stored then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('DEL', KEYS[1])
end
-- Others who still write keep everybody from loading, for as long as they live.
if type(owner) == 'string' and string.sub(owner, 1, 1) == 'w' then
  local time = redis.call('TIME')
  local now, others, last = time[1] * 1000 + math.floor(time[2] / 1000), '', 0
  for token, ends in string.gmatch(owner, '(%w+)=(%d+)') do
    if token ~= ARGV[1] and tonumber(ends) > now then
      others, last = others .. token .. '=' .. ends .. ' ', math.max(last, tonumber(ends))
    end
  end
  if others ~= '' then
    redis.call('SET', KEYS[2], 'w!' .. others, 'PX', string.format('%.0f', last - now))
    return 0
  end
end
redis.call('DEL', KEYS[2])
local waiting = redis.pcall('SMEMBERS', KEYS[3])
redis.call('DEL', KEYS[3])
for _, who in ipairs(waiting) do
  local channel, id = string.match(who, '^(%S+) (.*)$')
  if channel then
    redis.call('PUBLISH', channel, id)
  end
end
return stored and 1 or 0
